"""Probes and the page of the real process: what fails them, what does not, and how they end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.acceptance import pages
from tests.acceptance import stage as stages
from tests.acceptance.pages import Pages
from tests.acceptance.stage import Stage, wait_for


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with stages.opened(tmp_path) as opened:
        yield opened


def opened(stage: Stage, *grants: str, head: str = "") -> Pages:
    its = pages.free()
    stage.configure(*grants, head=its.table + head)
    return its


def test_an_outage_of_the_provider_fails_no_probe_while_the_token_is_valid(stage: Stage) -> None:
    its = opened(stage)
    with stage.daemon():
        for path in ("/livez", "/readyz", "/startupz", "/healthz"):
            assert its.get(path) == (200, "ok\n"), path
        stage.provider.faults.outage = True
        assert stage.rotator("rotate", "billing").returncode != 0
        reason = stage.status()["grants"]["billing"]["reason"]
        assert reason.startswith("doubtful: ") or "nobody knows" in reason
        for path in ("/livez", "/readyz", "/startupz"):
            assert its.get(path) == (200, "ok\n"), path
        for word in ("--live", "--started"):
            assert stage.rotator("health", word).returncode == 0
        health = stage.rotator("health")
        assert (health.returncode, health.stderr.split(":")[0]) == (0, "ready")
        # One verdict: the page, `status` and the command say the same.
        assert reason.split(";")[0] in its.get("/")[1].replace("&#x27;", "'")
        assert reason in health.stderr
        stage.provider.faults.outage = False


def test_readiness_ends_with_the_token_and_comes_back_with_the_next(tmp_path: Path) -> None:
    with stages.opened(tmp_path, access_seconds=6) as stage:
        its = opened(stage)
        with stage.daemon():
            assert its.status("/readyz") == 200
            stage.provider.faults.outage = True
            until = stage.status()["grants"]["billing"]["expires_at"]
            wait_for(lambda: its.status("/readyz") == 503, "readiness to end")
            # A tenth of its life before the end: hysteresis on what is left.
            assert "its token holds for" in its.get("/readyz")[1]
            wait_for(lambda: "holds no valid token" in its.get("/readyz")[1], f"the end of the token at {until}")
            assert its.get("/readyz/billing")[0] == 503
            assert its.get("/livez") == (200, "ok\n")
            assert its.get("/startupz") == (200, "ok\n")
            assert stage.rotator("health").returncode == 69
            assert "[-]billing failed: target app holds no valid token" in stage.rotator("health").stderr
            stage.provider.faults.outage = False
            wait_for(lambda: its.status("/readyz") == 200, "readiness to come back")


def test_readiness_ends_at_once_when_a_required_target_is_lost_and_not_for_one_that_is_not(stage: Stage) -> None:
    grant = stage.grant(
        targets='[grants.billing.targets.app]\nfile = "billing/token"\n'
        '[grants.billing.targets.extra]\nfile = "extra/token"\nrequired = false\n'
    )
    its = opened(stage, grant)
    with stage.daemon():
        assert its.status("/readyz") == 200
        lose(stage.folder / "run" / "extra")
        wait_for(lambda: "target extra" in stage.status()["grants"]["billing"]["reason"], "the loss to be noticed")
        assert its.status("/readyz") == 200
        lose(stage.token.parent)
        wait_for(lambda: its.status("/readyz") == 503, "readiness to end")
        assert "[-]billing failed: target app holds no valid token; " in its.get("/readyz")[1]
        assert its.status("/livez") == 200
        stage.token.parent.unlink()
        wait_for(lambda: its.status("/readyz") == 200, "readiness to come back")
        assert stage.token.exists()


def lose(folder: Path) -> None:
    """A file stands where the folder was: nobody can write there, not even root."""
    wait_for(lambda: _is_replaced(folder), f"a file instead of {folder}")


def _is_replaced(folder: Path) -> bool:
    # The daemon notices the loss and writes again, at times before this is through.
    with suppress(OSError):
        shutil.rmtree(folder)
        folder.open("x").close()
        return True
    return False


def test_who_stands_still_answers_no_probe_and_feeds_no_watchdog(stage: Stage) -> None:
    its = opened(stage)
    with stage.supervisor() as supervisor:
        stage.extra["NOTIFY_SOCKET"] = str(supervisor.path)
        with stage.daemon(WATCHDOG_USEC="1000000") as process:
            assert its.get("/livez?verbose") == (200, "[+]loop ok\nlivez check passed\n")
            os.kill(process.pid, signal.SIGSTOP)
            told = len(supervisor.told)
            # The silence of one interval is what is looked at.
            with pytest.raises(TimeoutError):
                its.get("/livez", patience=1.0)
            assert len(supervisor.told) <= told + 1, "only what was on its way may still come"
            os.kill(process.pid, signal.SIGCONT)
            supervisor.wait_told("WATCHDOG=1", since=len(supervisor.told))
            wait_for(lambda: its.status("/livez") == 200, "the answer of who goes on")


def test_a_rotation_reaches_an_open_page(stage: Stage) -> None:
    its = opened(stage)
    with stage.daemon(), its.asking("/events") as page:
        assert "generation 1<" in "".join(page.readline().decode() for _ in range(4))
        begin = time.monotonic()
        assert stage.rotator("rotate", "billing").returncode == 0
        while "generation 2<" not in page.readline().decode():
            assert time.monotonic() < begin + stages.PATIENCE


def test_an_open_page_does_not_hold_up_the_end(stage: Stage) -> None:
    its = opened(stage)
    with stage.daemon() as process, its.asking("/events") as page:
        page.readline()
        assert process.end() == 0, process.told
        assert page.read().endswith(b"\n\n"), "the stream ends in order"
    assert "defect" not in process.told


def test_a_taken_port_is_one_clear_line(stage: Stage) -> None:
    its = opened(stage)
    with socket.create_server(("127.0.0.1", its.port)):
        process = stage.start()
        assert process.popen.wait(stages.PATIENCE) == 69, process.told
    assert f"http.address: cannot listen on 127.0.0.1 port {its.port}: Address already in use" in process.told
    assert "Traceback" not in process.told
    # What mattered more came first.
    assert stage.token.exists()


def test_a_token_guards_what_is_shown(stage: Stage) -> None:
    secret = stage.secret("page-token", "let-me-see\n")
    its = opened(stage, head=f'token = {{ file = "{secret}" }}\n')
    with stage.daemon() as process:
        assert (its.status("/livez"), its.status("/readyz"), its.status("/"), its.status("/metrics")) == (
            200, 200, 401, 401,
        )  # fmt: skip
        assert its.status("/readyz?verbose") == 401
        assert "let-me-see" not in process.told


def test_without_an_address_nothing_listens(stage: Stage) -> None:
    stage.configure()
    with stage.daemon() as process:
        sockets = {os.readlink(one) for one in Path(f"/proc/{process.pid}/fd").iterdir() if one.is_symlink()}
        inodes = {one[8:-1] for one in sockets if one.startswith("socket:")}
        listening = [
            line.split()[9]
            for table in ("tcp", "tcp6")
            for line in Path(f"/proc/{process.pid}/net/{table}").read_text().splitlines()[1:]
            if line.split()[3] == "0A"
        ]
        assert not inodes & set(listening)
