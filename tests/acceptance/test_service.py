"""`rotator run` under a supervisor: what it says and when, how it reloads, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rotator.frontends.control import Client
from tests.acceptance import stage as stages
from tests.acceptance.stage import Stage, Supervisor, wait_for
from tests.peers.emulator import ACCOUNT

SLOW = 0.6
# Seconds; the daemon looks for one second whether all is done before it tells how things stand.
LONGER_THAN_THE_FIRST_PASS = 1.8


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with stages.opened(tmp_path) as opened:
        yield opened


@pytest.fixture
def supervisor(stage: Stage) -> Iterator[Supervisor]:
    with stage.supervisor() as its:
        stage.extra["NOTIFY_SOCKET"] = str(its.path)
        yield its


def in_flight(stage: Stage, kind: str) -> bool:
    return any(one.kind == kind and one.outcome == "in flight" for one in list(stage.provider.journal.entries))


def test_ready_is_told_only_after_the_token_is_there(stage: Stage, supervisor: Supervisor) -> None:
    stage.provider.faults.latency_seconds = LONGER_THAN_THE_FIRST_PASS
    with stage.daemon():
        ready = supervisor.wait_told("READY=1")
        before, told = supervisor.told[:ready], supervisor.told[ready]
        assert told.published
        assert told.words["STATUS"].startswith("1/1 grants published; next rotation in ")
        assert [one for one in before if "EXTEND_TIMEOUT_USEC" in one.text], "no time was asked for while it waited"
        status = [one.words["STATUS"] for one in before if "STATUS" in one.words]
        assert status[0].startswith("0/1 grants published; billing: the first exchange is on its way")
        assert not before[0].published


def test_while_the_provider_is_down_it_asks_for_time_and_says_why(stage: Stage, supervisor: Supervisor) -> None:
    stage.provider.faults.outage = True
    with stage.daemon(wait=""):
        first = supervisor.wait_told("EXTEND_TIMEOUT_USEC=30000000")
        again = supervisor.wait_told("EXTEND_TIMEOUT_USEC=30000000", since=first + 1)
        told = supervisor.wait_told("STATUS=0/1 grants published; billing: doubtful: ")
        assert not any("READY=1" in one.text for one in supervisor.told)
        assert supervisor.told[told].words["STATUS"].isprintable()
        stage.provider.faults.outage = False
        ready = supervisor.wait_told("READY=1", since=again)
        assert supervisor.told[ready].published


def test_the_watchdog_is_fed_and_not_while_the_process_stands_still(stage: Stage, supervisor: Supervisor) -> None:
    with stage.daemon(WATCHDOG_USEC="400000") as process:
        number = supervisor.wait_told("READY=1")
        for _ in range(3):
            number = supervisor.wait_told("WATCHDOG=1", since=number + 1)
        os.kill(process.pid, signal.SIGSTOP)
        wait_for(lambda: state_of(process.pid) == "T", "the process to stop")
        stopped = len(supervisor.told)
        time.sleep(1.0)  # not to synchronise: the silence itself is what is looked at
        assert len(supervisor.told) <= stopped + 1, "only what was on its way may still come"
        os.kill(process.pid, signal.SIGCONT)
        supervisor.wait_told("WATCHDOG=1", since=len(supervisor.told))


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_watchdog_meant_for_another_process_is_not_fed(stage: Stage, supervisor: Supervisor) -> None:
    def fed() -> int:
        return sum("WATCHDOG=1" in one.text for one in list(supervisor.told))

    with stage.daemon(WATCHDOG_USEC="200000", WATCHDOG_PID="1"):
        supervisor.wait_told("READY=1")
        began, before = time.monotonic(), fed()
        time.sleep(0.6)  # two sweeps; the silence itself is what is looked at
        told, seconds = fed() - before, time.monotonic() - began
        # Every sweep that ended in time may say it; the beat of its own, three times as often, may not run.
        assert told <= seconds / 0.3 + 2


def test_reload_takes_a_good_file_and_says_so(stage: Stage, supervisor: Supervisor) -> None:
    with stage.daemon() as process:
        ready = supervisor.wait_told("READY=1")
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        stage.configure(stage.grant(), stage.grant("reports"))
        os.kill(process.pid, signal.SIGHUP)
        number = supervisor.wait_told("RELOADING=1", since=ready)
        words = supervisor.told[number].words
        assert before <= int(words["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        supervisor.wait_told("READY=1", since=number + 1)
        process.wait_logged("configuration reloaded: added reports")
        wait_for((stage.folder / "run/reports/token").exists, "the new grant's token")
        supervisor.wait_told("STATUS=2/2 grants published", since=number)


def test_reload_of_a_bad_file_keeps_the_old_one_and_says_so(stage: Stage, supervisor: Supervisor) -> None:
    with stage.daemon() as process:
        ready = supervisor.wait_told("READY=1")
        value = stage.token.read_text()
        stage.write(stage.config.read_text().replace("client_id", "client_idd"))
        os.kill(process.pid, signal.SIGHUP)
        number = supervisor.wait_told("READY=1", since=supervisor.wait_told("RELOADING=1", since=ready) + 1)
        status = supervisor.told[number].words["STATUS"]
        assert status.startswith("configuration not reloaded: ")
        assert "grants.billing.client_idd is not a known key" in status
        process.wait_logged("configuration not reloaded, the old one is kept: ")
        # Forced, and from 2 on: on a slow machine a rotation that is due may come first and keep the least spacing.
        assert Client(stage.state / "control").rotate("billing", force=True)["generation"] >= 2
        assert stage.token.read_text() != value, "the old configuration goes on working"


def test_reload_says_what_only_a_restart_changes(stage: Stage) -> None:
    with stage.daemon() as process:
        stage.configure(
            stage.grant(), stage.grant("reports"), head='[readiness]\nleast = "10s"\n[http]\naddress = "[::1]:1"\n'
        )
        os.kill(process.pid, signal.SIGHUP)
        process.wait_logged("what changed in [readiness], [http] counts from the next start only; restart rotator")
        process.wait_logged("configuration reloaded: added reports")


def test_stopping_comes_first_and_the_end_is_clean(stage: Stage, supervisor: Supervisor) -> None:
    with stage.daemon() as process:
        supervisor.wait_told("READY=1")
        told = len(supervisor.told)
        assert process.end() == 0
        assert supervisor.told[told].words["STOPPING"] == "1"
        assert not (stage.state / "control").exists()
        assert stage.token.exists(), "readers go on reading while nobody runs"


def test_a_stop_during_the_login_saves_it_and_a_restart_does_not_log_in_again(
    stage: Stage, supervisor: Supervisor
) -> None:
    stage.provider.faults.latency_seconds = SLOW
    process = stage.start()
    wait_for(lambda: in_flight(stage, "password"), "the login to be in flight")
    os.kill(process.pid, signal.SIGTERM)
    stopping = supervisor.wait_told("STOPPING=1")
    assert process.popen.wait(stages.PATIENCE) == 0, process.told
    assert any("EXTEND_TIMEOUT_USEC" in one.text for one in supervisor.told[stopping:]), "time to save is asked for"
    assert not any("READY=1" in one.text for one in supervisor.told[stopping:]), "who stops is not ready"
    stage.provider.faults.latency_seconds = 0
    with stage.daemon():
        assert stage.rotator("rotate", "billing").returncode == 0
    entries = list(stage.provider.journal.entries)
    assert [one.kind for one in entries] == ["password", "refresh_token"]
    assert entries[1].token == "newest"


def test_a_stop_during_a_refresh_saves_the_new_refresh_token(stage: Stage) -> None:
    with stage.daemon() as process:
        stage.provider.faults.latency_seconds = SLOW
        asking = subprocess.Popen(
            stage.command("rotate", "billing"), env=stage.environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        wait_for(lambda: in_flight(stage, "refresh_token"), "the refresh to be in flight")
        assert process.end() == 0, process.told
        _, told = asking.communicate(timeout=stages.PATIENCE)
        assert (asking.returncode, told.decode().split(",")[0]) == (0, "billing: generation 2"), told
    stage.provider.faults.latency_seconds = 0
    with stage.daemon():
        assert stage.rotator("rotate", "billing").returncode == 0
    refreshes = [one.token for one in stage.provider.journal.entries if one.kind == "refresh_token"]
    assert refreshes == ["newest", "newest"]
    assert stage.provider.journal.password_attempts == 1


def test_a_stop_before_the_configuration_is_read_still_ends_cleanly(stage: Stage) -> None:
    text = stage.config.read_text()
    stage.config.unlink()
    os.mkfifo(stage.config)
    process = stage.start()

    def opened() -> int | None:
        try:
            return os.open(stage.config, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return None  # nobody reads yet

    fifo = wait_for(opened, "the configuration to be opened")
    os.kill(process.pid, signal.SIGTERM)
    os.kill(process.pid, signal.SIGHUP)
    assert process.popen.poll() is None
    with os.fdopen(fifo, "w") as writer:
        writer.write(text)
    assert process.popen.wait(stages.PATIENCE) == 0, process.told
    assert "Traceback" not in process.told


def test_a_mount_that_hangs_holds_up_neither_the_daemon_nor_its_end(stage: Stage) -> None:
    """A pipe that nobody writes into, in place of a CA file on such a mount: whoever opens it waits for ever."""
    os.mkfifo(stage.folder / "ca.pem")
    table = stage.provider_table("https://127.0.0.1:1/token")
    stage.configure(f'{table}ca_file = "{stage.folder}/ca.pem"\ndeadline = "1s"\n', stage.grant())
    stage.write(stage.config.read_text().replace(stage.provider_table(), "", 1))
    with stage.daemon(wait="") as daemon:
        daemon.wait_logged("out of time (1 s) while reading the CA certificates")
        assert "billing" in stage.status()["grants"]


def test_a_restart_with_a_valid_token_asks_the_provider_nothing(stage: Stage, supervisor: Supervisor) -> None:
    with stage.daemon():
        value = stage.token.read_text()
    asked = len(stage.provider.journal.entries)
    stage.token.unlink()  # /run was emptied
    with stage.daemon():
        supervisor.wait_told("READY=1")
        assert stage.token.read_text() == value
    assert len(stage.provider.journal.entries) == asked


def test_once_ends_when_all_is_published(stage: Stage) -> None:
    done = stage.rotator("run", "--once")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines()[-1].startswith("1/1 grants published; next rotation in ")
    assert stage.token.exists()


def test_once_ends_with_77_where_a_person_must_act(stage: Stage) -> None:
    # Refused or not, a login counts against the budget: without this the next one would have to keep apart.
    stage.configure(stage.grant() + '[grants.billing.budget]\napart = "0s"\n')
    stage.secret("password", "not the password")
    done = stage.rotator("run", "--once")
    assert done.returncode == 77
    assert "0/1 grants published; billing: " in done.stderr.splitlines()[-1]
    assert "latched" in done.stderr
    again = stage.rotator("run", "--once")
    assert again.returncode == 77
    assert stage.provider.journal.password_attempts == 1, "refused credentials are not tried again"
    stage.secret("password", ACCOUNT.password)
    assert stage.rotator("run", "--once").returncode == 0, "mended credentials release the latch"


def test_once_ends_with_75_where_time_ran_out(stage: Stage) -> None:
    stage.provider.faults.outage = True
    done = stage.rotator("run", "--once", "--within", "700ms")
    assert done.returncode == 75, done.stderr
    assert done.stderr.splitlines()[-1].startswith("0/1 grants published; billing: ")
