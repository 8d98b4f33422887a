"""`rotator run` with hooks: told at least once whatever happens, not again after it, and never of a secret."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests.acceptance import stage as stages
from tests.acceptance.stage import Stage, wait_for
from tests.peers import wire
from tests.peers.emulator import ACCOUNT
from tests.peers.wire import Asked, Reply

FILE = '[grants.billing.targets.app]\nfile = "billing/token"\n'
JSON = '[grants.billing.targets.described]\nfile = "billing/token.json"\nformat = "json"\n'


def recorder(stage: Stage, more: str = "") -> Path:
    """A command that writes down what it was told, what it was given, and what the file held, one line a run."""
    path = stage.folder / "hook"
    path.write_text(
        f"#!{sys.executable} -I\n"
        "import json, os, sys\n"
        f"held = json.load(open({str(stage.folder / 'run/billing/token.json')!r}))\n"
        "words = [open('/proc/self/cmdline').read(), open('/proc/self/environ').read()]\n"
        "line = {'generation': os.environ['ROTATOR_GENERATION'], 'held': held['generation'], 'words': words}\n"
        f"open({str(stage.folder / 'told')!r}, 'a').write(json.dumps(line) + '\\n')\n"
        f"{more}\n"
    )
    path.chmod(0o755)
    return path


def told(stage: Stage) -> list[dict[str, Any]]:
    path = stage.folder / "told"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def generations(stage: Stage) -> list[int]:
    return [int(one["generation"]) for one in told(stage)]


def hook(stage: Stage, more: str = "", **keys: str) -> str:
    rest = "".join(f"{key} = {value}\n" for key, value in keys.items())
    return f'[grants.billing.targets.reload]\ncommand = ["{recorder(stage, more)}", "now"]\n{rest}'


def rotate(stage: Stage) -> None:
    done = stage.rotator("rotate", "--force", "billing")
    assert done.returncode == 0, done.stderr


def secrets_of(stage: Stage) -> list[str]:
    """Everything that no log, argv or environment may hold: the account's, and every token that is there."""
    tokens = {stage.rotator("token", "billing").stdout.strip()}
    refresh = [path.read_bytes() for path in stage.state.glob("state.db*")]
    assert any(refresh)
    return [ACCOUNT.password, ACCOUNT.client_secret, *tokens]


def test_a_command_runs_once_for_each_generation_after_its_file_and_is_told_no_secret(tmp_path: Path) -> None:
    with stages.opened(tmp_path) as stage:
        stage.configure(stage.grant(targets=FILE + JSON + hook(stage)))
        with stage.daemon(CANARY="canary-of-the-environment") as daemon:
            wait_for(lambda: generations(stage) == [1], "the first run")
            rotate(stage)
            assert generations(stage) == [1, 2], "rotate ends once its hooks have run"
            secrets = secrets_of(stage)
            shown = stage.status()["grants"]["billing"]
            assert shown["targets"]["reload"]["generation"] == 2 and shown["published"]
            assert stage.rotator("status").stdout.splitlines()[1].endswith("3/3")
        assert [one["held"] for one in told(stage)] == [1, 2]
        words = json.dumps(told(stage)) + daemon.told
        for secret in (*secrets, "canary-of-the-environment", "NOTIFY_SOCKET", "STATE_DIRECTORY", str(stage.config)):
            assert secret not in words
        # A clean restart, and one that was killed long after.
        for end in (signal.SIGTERM, signal.SIGKILL):
            again = stage.start()
            again.wait_logged("daemon.ready")
            assert again.end(end) in (0, -9)
        with stage.daemon():
            wait_for(lambda: stage.status()["grants"]["billing"]["targets"]["reload"]["generation"] == 2, "its status")
            assert generations(stage) == [1, 2]


def test_killed_before_its_hook_could_run_it_runs_after_the_restart(tmp_path: Path) -> None:
    """The command of the first life never gets to its end; nor does the daemon."""
    with stages.opened(tmp_path) as stage:
        hold = (
            f"import time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
            f"if os.path.exists({str(tmp_path / 'hold')!r}): time.sleep(600)\n"
            f"open({str(tmp_path / 'ended')!r}, 'w').write('done')"
        )
        (tmp_path / "hold").touch()
        stage.configure(stage.grant(targets=FILE + JSON + hook(stage, hold, timeout='"600s"')))
        daemon = stage.start()
        wait_for(lambda: generations(stage) == [1], "the command")
        daemon.wait_logged("daemon.ready")
        daemon.popen.kill()
        daemon.popen.wait()
        # systemd and a container end what is left of a service; nobody does here.
        os.kill(int(wait_for(lambda: (tmp_path / "pid").read_text(), "its number")), signal.SIGKILL)
        (tmp_path / "hold").unlink()
        with stage.daemon():
            wait_for(lambda: (tmp_path / "ended").exists(), "the command again")
            assert generations(stage) == [1, 1]
        with stage.daemon():
            assert generations(stage) == [1, 1]


def test_what_a_failing_command_says_is_told_without_the_token_and_holds_nobody_up(tmp_path: Path) -> None:
    with stages.opened(tmp_path) as stage:
        says = "print('cannot reload with', held['access_token'], flush=True)\nsys.exit(3)"
        stage.configure(stage.grant(targets=FILE + JSON + hook(stage, says)))
        with stage.daemon() as daemon:
            daemon.wait_logged("delivery.failed")
            assert "ended with 3: cannot reload with \\u2022" in daemon.told
            assert stage.rotator("health").returncode == 0
            status = stage.rotator("status")
            assert status.returncode == 0 and "hook reload" in status.stdout and "•••" in status.stdout
            token = stage.rotator("token", "billing").stdout
            assert token not in daemon.told + status.stdout
            recorder(stage)
            wait_for(lambda: stage.status()["grants"]["billing"]["reason"] == "", "the retry")


def test_a_stop_kills_a_command_that_is_on_its_way_with_its_children(tmp_path: Path) -> None:
    with stages.opened(tmp_path) as stage:
        waits = (
            "import subprocess, time\nchild = subprocess.Popen(['/bin/sleep', '600'])\n"
            f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\ntime.sleep(600)"
        )
        stage.configure(stage.grant(targets=FILE + JSON + hook(stage, waits, timeout='"600s"')))
        with stage.daemon():
            pid = wait_for(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text(), "the command")
        wait_for(lambda: not is_running(int(pid)), "the end of its child")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_webhook_is_told_of_each_generation_signed_and_without_the_token(tmp_path: Path) -> None:
    key = b"a key that both know"
    answers: list[int] = [503, 200]

    def answer(asked: Asked) -> Reply:
        return Reply(answers.pop(0) if answers else 200)

    with stages.opened(tmp_path) as stage, wire.serve(answer) as receiver:
        path = stage.secret("signing", key.decode())
        webhook = (
            f'[grants.billing.targets.audit]\nwebhook = "{receiver.url}/of/billing"\n'
            f'signing_key = {{ file = "{path}" }}\n'
        )
        stage.configure(stage.grant(targets=FILE + webhook))
        done = stage.rotator("check", "--online")
        assert done.returncode == 0 and "the receiver is there (nothing was sent)" in done.stdout
        with stage.daemon() as daemon:
            wait_for(lambda: len(receiver.asked) == 2, "the retry")
            rotate(stage)
            secrets = secrets_of(stage)
            assert len(receiver.asked) == 3
        events = [json.loads(asked.body) for asked in receiver.asked]
        assert [one["data"]["generation"] for one in events] == [1, 1, 2]
        assert events[0] == events[1] and events[1]["id"] != events[2]["id"]
        assert events[0]["data"]["targets"] == {"app": f"file:{stage.token}"}
        for asked in receiver.asked:
            headers = {name.lower(): value for name, value in asked.headers.items()}
            content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + asked.body
            signed = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
            assert headers["webhook-signature"] == f"v1,{signed}"
            assert not [secret for secret in (*secrets, key.decode()) if secret in repr(asked)]
        assert not [secret for secret in (*secrets, key.decode(), "/of/billing") if secret in daemon.told]
        assert "the webhook at 127.0.0.1" in daemon.told


def test_a_signal_reaches_the_process_that_a_file_names(tmp_path: Path) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: heard.append(number))
    try:
        with stages.opened(tmp_path) as stage:
            path = stage.folder / "app.pid"
            path.write_text(f"{os.getpid()}\n")
            target = f'[grants.billing.targets.nudge]\nsignal = {{ pid_file = "{path}", name = "USR2" }}\n'
            stage.configure(stage.grant(targets=FILE + target))
            with stage.daemon():
                wait_for(lambda: len(heard) == 1, "the signal")
                rotate(stage)
                assert len(heard) == 2
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_command_that_is_not_there_is_named_by_check_and_stops_no_daemon(tmp_path: Path) -> None:
    with stages.opened(tmp_path) as stage:
        (tmp_path / "plain").write_text("")
        absent, plain = (
            f'[grants.billing.targets.{name}]\ncommand = ["{tmp_path}/{name}"]\n' for name in ("absent", "plain")
        )
        stage.configure(stage.grant(targets=FILE + absent + plain))
        done = stage.rotator("check")
        assert done.returncode == 78
        assert f"grants.billing.targets.absent.command: the command {tmp_path}/absent does not exist" in done.stderr
        assert f"grants.billing.targets.plain.command: the command {tmp_path}/plain is not executable" in done.stderr
        with stage.daemon() as daemon:
            daemon.wait_logged("/absent does not exist")
            daemon.wait_logged("cannot be started")
            assert stage.token.exists()


def test_a_hook_may_run_rotator_itself(tmp_path: Path) -> None:
    with stages.opened(tmp_path) as stage:
        told_by = {"ROTATOR_GRANT": "billing", "ROTATOR_GENERATION": "1", "ROTATOR_ID": "x", "ROTATOR_TARGET": "y"}
        assert stage.rotator("check", environ=told_by).returncode == 0


def test_a_removed_hook_is_forgotten_and_another_in_its_place_is_told(tmp_path: Path) -> None:
    with stages.opened(tmp_path) as stage:
        stage.configure(stage.grant(targets=FILE + JSON + hook(stage)))
        with stage.daemon() as daemon:
            wait_for(lambda: generations(stage) == [1], "the first run")

            def reload(timeout: str, word: str) -> None:
                stage.configure(stage.grant(targets=FILE + JSON + hook(stage, timeout=timeout).replace("now", word)))
                os.kill(daemon.pid, signal.SIGHUP)

            reload('"20s"', "now")
            daemon.wait_logged("configuration reloaded: changed billing")
            assert generations(stage) == [1], "what does the same has been told"
            reload('"20s"', "later")
            wait_for(lambda: generations(stage) == [1, 1], "the other command")
            stage.configure(stage.grant(targets=FILE + JSON))
            os.kill(daemon.pid, signal.SIGHUP)
            wait_for(lambda: set(stage.status()["grants"]["billing"]["targets"]) == {"app", "described"}, "its end")
