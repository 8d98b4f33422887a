"""Every command about a grant, beside a living daemon (which does the work) and without one."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance import stage as stages
from tests.acceptance.stage import Stage, wait_for
from tests.peers.emulator import ACCOUNT

AT_ONCE = 1.0  # seconds within which a touched file is right again


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with stages.opened(tmp_path) as opened:
        yield opened


def newest_refresh_token(stage: Stage) -> str:
    ledger = stage.provider.provider.ledger
    return next(value for value, row in ledger.refresh.items() if ledger.is_newest(row))


def stored_bytes(stage: Stage) -> bytes:
    """Everything in the state folder: the database, its log, what it keeps in reserve."""
    return b"".join(path.read_bytes() for path in sorted(stage.state.iterdir()) if path.is_file())


# --- beside a daemon --------------------------------------------------------------------------------------------


def test_orders_beside_a_daemon_go_through_it(stage: Stage) -> None:
    with stage.daemon() as process:
        first = stage.rotator("token", "billing")
        assert (first.returncode, first.stderr) == (0, "")
        assert first.stdout == stage.token.read_text(), "the token alone, without a line end"

        rotated = stage.rotator("rotate", "billing")
        assert rotated.returncode == 0
        assert rotated.stdout == "", "messages are for stderr"
        assert re.fullmatch(r"billing: generation 2, valid until \S+Z\n", rotated.stderr)
        process.wait_logged("billing: generation 2 by refresh_token")
        assert stage.token.read_text() != first.stdout, "published before the command returned"

        status = stage.rotator("status", "--json")
        document = json.loads(status.stdout)
        assert (status.returncode, document["grants"]["billing"]["generation"]) == (0, 2)
        assert "note" not in document, "it is the daemon that answers"
        assert stage.rotator("status").stdout.splitlines()[1].split()[:3] == ["billing", "fresh", "2"]

        assert stage.rotator("wait", "billing").returncode == 0
        verified = stage.rotator("verify", "billing")
        assert (verified.returncode, verified.stderr) == (0, "billing: generation 2 is accepted (HTTP 200)\n")
        assert stage.provider.journal.count("login", "granted") == 1

        refused = stage.rotator("retire", "billing")
        assert refused.returncode == 64
        assert "is still configured" in refused.stderr
    assert stage.provider.journal.max_in_flight == {f"{ACCOUNT.client_id} {ACCOUNT.username}": 1}


def test_authorize_beside_a_daemon_needs_no_password_in_the_configuration(stage: Stage) -> None:
    stage.configure(stage.grant(password=False))
    with stage.daemon() as process:
        waiting = stage.rotator("status")
        assert (waiting.returncode, waiting.stdout.splitlines()[1].split()[1:4]) == (69, ["needs", "a", "person"])
        done = stage.rotator("authorize", "billing", "--password-file", "-", typed=ACCOUNT.password + "\n")
        assert done.returncode == 0, done.stderr
        process.wait_logged("billing: generation 1 by password")
        assert stage.token.exists()
        assert ACCOUNT.password.encode() not in stored_bytes(stage)
    assert ACCOUNT.password.encode() not in stored_bytes(stage)
    assert ACCOUNT.password not in process.told
    assert newest_refresh_token(stage).encode() in stored_bytes(stage), "the search finds what is there"


def test_authorize_takes_a_refresh_token_over(stage: Stage) -> None:
    with stage.daemon():
        pass
    taken = newest_refresh_token(stage)
    other = Stage(stage.folder / "other", stage.provider)
    for name in ("home", "state", "run"):
        (other.folder / name).mkdir(parents=True)
    other.configure(other.grant(password=False))
    with other.daemon():
        done = other.rotator("authorize", "billing", "--refresh-token", "-", typed=taken)
        assert done.returncode == 0, done.stderr
        assert other.token.exists()
    assert stage.provider.journal.password_attempts == 1
    assert [one.token for one in stage.provider.journal.entries if one.kind == "refresh_token"] == ["newest"]


def test_a_second_daemon_is_refused_and_told_who_holds_the_state(stage: Stage) -> None:
    with stage.daemon() as process:
        second = stage.rotator("run")
        assert second.returncode == 75
        assert f"is held by process {process.pid} (" in second.stderr
        assert "rotator: to mend it: a state has one daemon: ask that one" in second.stderr
        reset = stage.rotator("state", "reset", "--yes")
        assert reset.returncode == 75
        assert f"process {process.pid}" in reset.stderr
        assert stage.rotator("status").returncode == 0, "the first is not disturbed"
    assert stage.provider.journal.password_attempts == 1


TOUCHES: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "altered": lambda path: path.write_text("somebody else's"),
    "emptied": lambda path: os.truncate(path, 0),
    "opened to all": lambda path: path.chmod(0o644),
    "moved away": lambda path: path.rename(path.with_name("elsewhere")),
}


@pytest.mark.parametrize("touch", TOUCHES)
def test_a_touched_file_comes_back_at_once(touch: str, stage: Stage) -> None:
    # Looking only every hour: it is the watch that must notice.
    stage.configure(timing='[timing]\nverify_every = "1h"\n')
    with stage.daemon() as process:
        value = stage.token.read_text()
        TOUCHES[touch](stage.token)
        wait_for(lambda: is_right(stage, value), "the file to be right again", AT_ONCE)
        process.wait_logged("is put right (generation 1)")
    assert len(stage.provider.journal.entries) == 1, "it asks the provider nothing"


def test_who_keeps_on_touching_a_file_does_not_win(stage: Stage) -> None:
    with stage.daemon():
        value = stage.token.read_text()
        for _ in range(3):
            stage.token.write_text("somebody else's")
            wait_for(lambda: is_right(stage, value), "the file to be right again")


def is_right(stage: Stage, value: str) -> bool:
    try:
        return stage.token.read_text() == value and stage.token.stat().st_mode & 0o777 == 0o600
    except FileNotFoundError:
        return False


def test_a_removed_grant_keeps_its_token_until_it_expires(tmp_path: Path) -> None:
    with stages.opened(tmp_path, access_seconds=4) as stage:
        stage.configure(stage.grant(), stage.grant("reports"))
        with stage.daemon() as process:
            value = stage.token.read_text()
            stage.configure(stage.grant("reports"))
            os.kill(process.pid, signal.SIGHUP)
            process.wait_logged("configuration reloaded: removed billing")
            assert stage.token.read_text() == value, "its readers go on"
            wait_for(lambda: not stage.token.exists(), "the file to go once its token has expired")
            process.wait_logged("billing: target app is no longer configured and its token has expired")
            assert (stage.folder / "run/reports/token").exists()
            done = stage.rotator("retire", "billing")
            assert (done.returncode, done.stderr) == (0, "billing: retired; its stored tokens are deleted\n")
            process.wait_logged("billing: retired")
            again = stage.rotator("retire", "billing")
            assert again.returncode == 64, "there is nothing left of it"


# --- on a terminal ----------------------------------------------------------------------------------------------

# getpass asks on /dev/tty: the process needs a terminal of its own, as in a login.
WITH_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.executable, sys.argv[1:])"
)


def on_terminal(stage: Stage, *words: str, answer: str, prompt: str) -> tuple[int, str]:
    """Run a command on a real terminal, type ``answer`` once ``prompt`` is there; what the screen showed."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", WITH_TERMINAL, *stage.command(*words)], env=stage.environ(), start_new_session=True,
            stdin=theirs, stdout=theirs, stderr=theirs,
        )  # fmt: skip
        screen, typed, until = b"", False, time.monotonic() + stages.PATIENCE
        while process.poll() is None or select.select([ours], [], [], 0)[0]:
            assert time.monotonic() < until, screen
            if select.select([ours], [], [], 0.05)[0]:
                screen += os.read(ours, 4096)
            # Not before echo is off: what is typed earlier would be shown, and thrown away.
            if not typed and prompt.encode() in screen and not termios.tcgetattr(theirs)[3] & termios.ECHO:
                os.write(ours, answer.encode() + b"\n")
                typed = True
        return process.wait(stages.PATIENCE), screen.decode()
    finally:
        os.close(ours)
        os.close(theirs)


def test_authorize_asks_for_the_password_on_a_terminal(stage: Stage) -> None:
    stage.configure(stage.grant(password=False))
    code, screen = on_terminal(
        stage, "authorize", "billing", answer=ACCOUNT.password, prompt=f"Password of {ACCOUNT.username} for billing: "
    )
    assert code == 0, screen
    assert "billing: generation 1, valid until " in screen
    assert ACCOUNT.password not in screen, "it is not echoed"
    assert ACCOUNT.password.encode() not in stored_bytes(stage)
    assert stage.token.exists()


def test_authorize_without_a_terminal_says_what_to_do(stage: Stage) -> None:
    done = stage.rotator("authorize", "billing")
    assert done.returncode == 64
    assert "--password-file" in done.stderr
    assert len(stage.provider.journal.entries) == 0


# --- without a daemon -------------------------------------------------------------------------------------------


def test_orders_without_a_daemon_do_the_work_themselves(stage: Stage) -> None:
    stage.configure(stage.grant(password=False))
    absent = stage.rotator("token", "billing")
    assert absent.returncode == 69
    assert absent.stdout == ""
    done = stage.rotator("authorize", "billing", "--password-file", "-", typed=ACCOUNT.password)
    assert done.returncode == 0, done.stderr
    first = stage.token.read_text()
    assert stage.rotator("token", "billing").stdout == first
    rotated = stage.rotator("rotate", "--json", "billing")
    assert (rotated.returncode, json.loads(rotated.stdout)["generation"]) == (0, 2), rotated.stderr
    assert stage.token.read_text() != first
    status = stage.rotator("status", "--json")
    document = json.loads(status.stdout)
    assert (status.returncode, document["grants"]["billing"]["generation"]) == (0, 2)
    assert document["note"] == "the daemon does not run; this is what it left"
    assert stage.rotator("verify", "billing").returncode == 0
    waited = stage.rotator("wait", "billing", "--timeout", "300ms")
    assert waited.returncode == 75
    assert "the daemon does not run" in waited.stderr
    assert [one.kind for one in stage.provider.journal.entries] == ["password", "refresh_token", "login"]
    stage.configure(stage.grant("reports", password=False))
    assert stage.rotator("retire", "billing").returncode == 0
    assert not stage.token.exists(), "what it had published goes with it"


def test_verify_says_that_a_token_is_refused_and_touches_nothing(stage: Stage) -> None:
    assert stage.rotator("run", "--once").returncode == 0
    stage.provider.provider.ledger.access.clear()  # the provider's owner revoked it
    done = stage.rotator("verify", "billing")
    assert done.returncode == 77
    assert "generation 1 is refused (HTTP 401); the refresh token is not touched" in done.stderr
    stage.provider.faults.outage = True
    assert stage.rotator("verify", "billing").returncode == 69
    stage.provider.faults.outage = False
    assert [one.kind for one in stage.provider.journal.entries if one.kind != "login"] == ["password"]
    assert stage.rotator("rotate", "billing").returncode == 0


def test_rotate_tells_what_the_provider_said(stage: Stage) -> None:
    assert stage.rotator("run", "--once").returncode == 0
    value = stage.token.read_text()
    stage.provider.faults.outage = True
    done = stage.rotator("rotate", "billing")
    assert done.returncode == 75
    assert all(line.startswith("rotator: ") for line in done.stderr.splitlines() if not line.startswith("{"))
    assert stage.token.read_text() == value


def test_wait_ends_when_the_token_is_published(stage: Stage) -> None:
    stage.provider.faults.outage = True
    with stage.daemon(wait="exchange.failed"):
        waiting = subprocess.Popen(
            stage.command("wait", "billing", "--timeout", "20s"), env=stage.environ(), stderr=subprocess.PIPE
        )
        try:
            assert waiting.poll() is None
            stage.provider.faults.outage = False
            _, told = waiting.communicate(timeout=stages.PATIENCE)
        finally:
            waiting.kill()
            waiting.wait()
        assert (waiting.returncode, told) == (0, b"")
        assert stage.token.exists()


def test_one_grant_from_the_environment_alone(stage: Stage) -> None:
    stage.config.unlink()
    environ = {
        "ROTATOR_PROVIDERS__OMNIFUND__TOKEN_URL": stage.provider.token_url,
        "ROTATOR_GRANTS__BILLING__PROVIDER": "omnifund",
        "ROTATOR_GRANTS__BILLING__CLIENT_ID": ACCOUNT.client_id,
        "ROTATOR_GRANTS__BILLING__CLIENT_SECRET__FILE": str(stage.folder / "client_secret"),
        "ROTATOR_GRANTS__BILLING__USERNAME": ACCOUNT.username,
        "ROTATOR_GRANTS__BILLING__PASSWORD__FILE": str(stage.folder / "password"),
        "ROTATOR_GRANTS__BILLING__TARGETS__APP__FILE": "billing/token",
        "ROTATOR_GRANTS__BILLING__TARGETS__APP__FORMAT": "json",
        "ROTATOR_SERVICE_HOST": "10.0.0.1",  # what a kubelet leaves behind is no setting of ours
    }
    done = stage.rotator("run", "--once", config=False, environ=environ)
    assert done.returncode == 0, done.stderr
    assert json.loads(stage.token.read_text())["generation"] == 1
    shown = stage.rotator("config", "show", config=False, environ=environ)
    assert f'grants.billing.client_id = "{ACCOUNT.client_id}"' in shown.stdout
    assert "# environment ROTATOR_GRANTS__BILLING__CLIENT_ID" in shown.stdout
    checked = stage.rotator("check", config=False, environ=environ)
    assert (checked.returncode, checked.stdout.startswith("the environment: good; 1 grant(s)")) == (0, True)


def test_config_show_tells_where_every_value_comes_from(stage: Stage) -> None:
    done = stage.rotator("config", "show", "--json")
    assert done.returncode == 0
    shown = json.loads(done.stdout)
    assert shown["timing.sweep_every"] == {"value": "300ms", "source": "rotator.toml:3"}
    assert shown["timing.verify_every"]["value"] == "1s"
    assert shown["log.level"] == {"value": "info", "source": "default"}
    assert not any(key.startswith("providers.omnifund") for key in shown), "presets that nobody uses are left out"


def test_check_changes_nothing_and_starts_nothing(stage: Stage) -> None:
    done = stage.rotator("check")
    assert done.returncode == 0
    assert done.stdout == f"{stage.config}: good; 1 grant(s), 1 target(s), state in {stage.state}\n"
    assert len(stage.provider.journal.entries) == 0
    assert not stage.token.exists()
    assert not stage.state.exists()


# --- a new beginning --------------------------------------------------------------------------------------------


def test_state_reset_keeps_the_old_and_counts_the_budget_as_spent(stage: Stage) -> None:
    with stage.daemon():
        pass
    old = stage.database.read_bytes()
    unasked = stage.rotator("state", "reset")
    assert unasked.returncode == 64
    assert stage.database.read_bytes() == old
    done = stage.rotator("state", "reset", "--yes")
    assert done.returncode == 0, done.stderr
    kept = re.search(r"the old state is kept as (\S+);", done.stderr)
    assert kept is not None
    assert Path(kept[1]).read_bytes() == old
    assert done.stderr.rstrip().endswith("the password budget counts as spent for its window")
    with stage.daemon(wait="grant.budget_spent"):
        assert stage.status()["grants"]["billing"]["passwords_left"] == 0
        asked = stage.rotator("rotate", "billing")
        assert asked.returncode != 0
        assert stage.provider.journal.password_attempts == 1, "a reset is no way around the budget"
        forced = stage.rotator("rotate", "--force", "billing")
        assert forced.returncode == 0, forced.stderr
    assert stage.provider.journal.password_attempts == 2


def test_state_reset_may_leave_the_budget_unspent(stage: Stage) -> None:
    with stage.daemon():
        pass
    done = stage.rotator("state", "reset", "--yes", "--keep-budget")
    assert (done.returncode, done.stderr.rstrip().endswith("the password budget is kept")) == (0, True)
    with stage.daemon():
        assert stage.status()["grants"]["billing"]["passwords_left"] == 2
    assert stage.provider.journal.password_attempts == 2
