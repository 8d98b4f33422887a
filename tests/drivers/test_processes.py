"""Hooks on this machine: real commands, real signals, and nothing of ours in their hands."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from rotator.core.errors import Misconfigured, RotatorError, Unavailable
from rotator.core.publication import Found
from rotator.drivers import processes
from rotator.drivers.processes import CommandHook, SignalHook
from tests.acceptance.stage import wait_for
from tests.contracts.publishers import NOW, publication

HOUSE = Path(__file__).parents[2]
# What a service has in its environment, and what none of its children may have.
SERVICE = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/var/lib/rotator",
    "NOTIFY_SOCKET": "/run/systemd/notify",
    "WATCHDOG_USEC": "1000000",
    "WATCHDOG_PID": "1",
    "CREDENTIALS_DIRECTORY": "/run/credentials/rotator.service",
    "LISTEN_FDS": "1",
    "LD_PRELOAD": "/tmp/evil.so",
    "VAULT_TOKEN": "canary-of-vault",
    "ROTATOR_GRANTS__BILLING__PASSWORD": "canary-of-the-password",
}


def script(folder: Path, text: str) -> str:
    """A program of Python's in a file."""
    path = folder / "hook"
    path.write_text(f"#!{sys.executable} -I\n{textwrap.dedent(text)}")
    path.chmod(0o755)
    return str(path)


def command(*argv: str, timeout: float = 20, environ: Mapping[str, str] = SERVICE) -> CommandHook:
    return CommandHook("billing", "reload", argv, timeout=timedelta(seconds=timeout), environ=environ)


def run(hook: processes.CommandHook | processes.SignalHook, generation: int = 1) -> None:
    settled = asyncio.run(hook.settle(publication(generation), NOW))
    assert settled.found is Found.UNTOLD


def failure(hook: processes.CommandHook | processes.SignalHook, kind: type[RotatorError]) -> str:
    with pytest.raises(kind) as caught:
        run(hook)
    assert publication(1).value.reveal() not in str(caught.value)
    return str(caught.value)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_command_is_told_by_its_environment_and_gets_nothing_else(tmp_path: Path) -> None:
    told = tmp_path / "told"
    program = script(
        tmp_path,
        f"""
        import os, sys
        fds = sorted(os.listdir("/proc/self/fd"))[:-1]
        open({str(told)!r}, "w").write(repr((
            dict(os.environ), sys.argv[1:], sys.stdin.read(), os.getcwd(), os.getsid(0) == os.getpid(), fds
        )))
        """,
    )
    run(command(program, "$ROTATOR_GRANT", "a b; id"), 7)
    environ, argv, given, folder, leads, descriptors = eval(told.read_text())  # our own repr
    environ.pop("LC_CTYPE", None)  # PEP 538: Python sets it for itself
    assert environ == {
        "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/var/lib/rotator", "ROTATOR_GRANT": "billing",
        "ROTATOR_TARGET": "reload", "ROTATOR_GENERATION": "7", "ROTATOR_ISSUED_AT": "2027-03-01T19:00:00Z",
        "ROTATOR_EXPIRES_AT": "2027-03-01T20:00:00Z", "ROTATOR_EXPIRES_AT_UNIX": "1803931200",
        "ROTATOR_ID": "lineage-1-7-reload",
    }  # fmt: skip
    assert argv == ["$ROTATOR_GRANT", "a b; id"], "no shell has seen it"
    assert (given, folder, leads) == ("", "/", True)
    assert set(descriptors) <= {"0", "1", "2"}


def test_its_output_is_told_where_it_fails_escaped_bounded_and_without_what_looks_like_a_secret(tmp_path: Path) -> None:
    token = publication(1).value.reveal()
    program = script(
        tmp_path,
        f"""
        import sys
        print("x" * 200_000)
        print("\\x1b[31mred\\nPRIORITY=0", "token {token}", "key 8c2f0b9e4d5a6b7c8d9e0f1a2b3c4d5e", file=sys.stderr)
        print("cannot reload /usr/lib/systemd/system/my-application-worker.service")
        sys.exit(3)
        """,
    )
    text = failure(command(program), Unavailable)
    assert f"{program} ended with 3: " in text
    assert "red PRIORITY=0 token ••• key ••• cannot reload" in text
    assert text.endswith("cannot reload /usr/lib/systemd/system/my-application-worker.service")
    assert len(text) < 500 and text.isprintable()


def test_one_that_takes_too_long_is_killed_with_all_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    program = script(
        tmp_path,
        f"""
        import os, signal, subprocess, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen(["/bin/sleep", "600"])
        print("still waiting", flush=True)
        open({str(pids)!r}, "w").write(f"{{os.getpid()}} {{child.pid}}")
        time.sleep(600)
        """,
    )
    text = failure(command(program, timeout=1.5), Unavailable)
    assert text == f"{program} was killed after 1.5 s: still waiting"
    for pid in map(int, pids.read_text().split()):
        wait_for(lambda pid=pid: is_gone(pid), f"the end of process {pid}")


def test_one_that_is_given_up_half_way_is_killed_too(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    program = script(tmp_path, f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)")

    async def story() -> None:
        running = asyncio.create_task(command(program).settle(publication(1), NOW))
        while not pid.exists() or not pid.read_text():
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(story())
    assert is_gone(int(pid.read_text()))


def test_a_service_that_it_leaves_behind_is_not_waited_for(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    program = script(
        tmp_path,
        f"""
        import subprocess
        child = subprocess.Popen(["/bin/sleep", "600"])
        open({str(pid)!r}, "w").write(str(child.pid))
        """,
    )
    run(command(program))
    left = int(pid.read_text())
    assert not is_gone(left)
    os.kill(left, signal.SIGKILL)


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda folder: folder / "absent", Misconfigured, "cannot be started: No such file or directory"),
        (lambda folder: folder, Misconfigured, "cannot be started: Permission denied"),
        (lambda folder: script(folder, "import os; os.kill(os.getpid(), 9)"), Unavailable, "was ended by SIGKILL"),
        (lambda folder: "/bin/false", Unavailable, "/bin/false ended with 1"),
    ],
)
def test_what_goes_wrong_is_told_by_who_must_act(
    make: object, kind: type[RotatorError], words: str, tmp_path: Path
) -> None:
    assert words in failure(command(str(make(tmp_path))), kind)  # type: ignore[operator]


def test_a_command_is_looked_at_without_being_run(tmp_path: Path) -> None:
    command("/bin/true").check()
    plain = tmp_path / "plain"
    plain.write_text("")
    for program, words in ((tmp_path / "absent", "does not exist"), (plain, "is not executable")):
        with pytest.raises(Misconfigured, match=words):
            command(str(program)).check()


def test_without_an_environment_there_is_still_a_path(tmp_path: Path) -> None:
    program = script(tmp_path, "import os, sys; sys.exit('/usr/bin' not in os.environ['PATH'] or 'HOME' in os.environ)")
    run(command(program, environ={}))


# --- signals ------------------------------------------------------------------------------------------------------


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that says each signal it gets, and its pid file."""
    program = (
        "import os, signal\n"
        # No print: one that is interrupted by its like, here the word that it is ready, raises.
        "for one in (signal.SIGHUP, signal.SIGUSR1): signal.signal(one, lambda n, f: os.write(1, b'%d\\n' % n))\n"
        "print('ready', flush=True)\nwhile True: signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-I", "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        path = tmp_path / "app.pid"
        path.write_text(f"{process.pid}\n")
        try:
            yield process, path
        finally:
            process.kill()


def test_the_process_that_a_file_names_is_told(listener: tuple[subprocess.Popen[str], Path]) -> None:
    process, path = listener
    for name, number in (("HUP", signal.SIGHUP), ("USR1", signal.SIGUSR1)):
        run(SignalHook("billing", "nudge", path, name))
        assert process.stdout is not None and process.stdout.readline() == f"{int(number)}\n"


def test_many_applications_take_few_threads(tmp_path: Path) -> None:
    """Our units set TasksMax=64: a thread for each would end with none for the files."""
    for number in range(40):
        folder = tmp_path / f"app{number}"
        folder.mkdir()
        assert "is missing" in failure(SignalHook("billing", "nudge", folder / "pid", "HUP"), Unavailable)
    assert sum(one.name.startswith("signals-") for one in threading.enumerate()) <= 4


def test_a_process_that_ended_or_did_not_begin_yet_is_waited_for(
    listener: tuple[subprocess.Popen[str], Path], tmp_path: Path
) -> None:
    process, path = listener
    process.kill()
    process.wait()
    assert "does not run" in failure(SignalHook("billing", "nudge", path, "HUP"), Unavailable)
    path.write_text("")
    assert "is empty" in failure(SignalHook("billing", "nudge", path, "HUP"), Unavailable)
    assert "is missing" in failure(SignalHook("billing", "nudge", tmp_path / "absent", "HUP"), Unavailable)


@pytest.mark.parametrize("text", ["0", "1", "-1", "-4242", "all", "1234567890123", "self"])
def test_neither_init_nor_a_group_nor_ourselves_can_be_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "app.pid"
    path.write_text(str(os.getpid()) if text == "self" else text)
    assert "names no process" in failure(SignalHook("billing", "nudge", path, "HUP"), Misconfigured)


def test_a_process_of_another_user_is_left_alone(tmp_path: Path) -> None:
    """As after a number was given to somebody else. Root could signal him; that is what must not happen."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("another user wants root")
    other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sleep", "600"]
    with subprocess.Popen(other) as process:
        path = tmp_path / "app.pid"
        path.write_text(str(process.pid))
        wait_for(lambda: Path(f"/proc/{process.pid}").stat().st_uid == 65534, "the other user")
        text = failure(SignalHook("billing", "nudge", path, "TERM"), Misconfigured)
        assert "none of this user's" in text and process.poll() is None
        process.kill()


# --- both ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hook", [command("/bin/true", "x"), SignalHook("billing", "nudge", Path("/run/app.pid"), "HUP")], ids=repr
)
def test_a_hook_has_one_place_for_ever_and_nothing_to_take_away(hook: CommandHook | SignalHook) -> None:
    assert hook.judged_by_mark and not hook.local
    assert re.fullmatch(r"hook:billing/(reload command /bin/true x|nudge signal HUP /run/app.pid)", hook.location)
    assert not asyncio.run(hook.remove("mark"))
    gone = processes.Forgotten(hook.location)
    assert gone.location == hook.location and not asyncio.run(gone.remove("mark"))
    with pytest.raises(Misconfigured):
        asyncio.run(gone.settle(publication(1), NOW))


# As process 1 of a container: a command leaves orphans of both kinds, in its group and in one of their own.
INIT = """
import asyncio, os, sys, time
from datetime import timedelta
from pathlib import Path
sys.path[:0] = [{house!r}]
from rotator.drivers.processes import CommandHook, reaping
from tests.contracts.publishers import NOW, publication

assert os.getpid() == 1
def children():
    stats = [one.read_text().rpartition(")")[2].split() for one in Path("/proc").glob("[0-9]*/stat")]
    return [stat for stat in stats if stat[1] == "1"]

async def main():
    argv = ("/bin/sh", "-c", "(sleep 0.3 &) ; setsid sleep 0.3 & exit 7")
    hooks = [CommandHook("billing", f"h{{n}}", argv, timeout=timedelta(seconds=20), environ={{}}) for n in range(8)]
    told = await asyncio.gather(*(one.settle(publication(1), NOW) for one in hooks), return_exceptions=True)
    print([str(one) for one in told])
    until = time.monotonic() + 20
    while children() and time.monotonic() < until:
        await asyncio.sleep(0.05)
    print(children())

asyncio.run(main())
"""


def test_as_process_1_it_waits_for_what_commands_leave_behind() -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("a namespace of process numbers wants root")
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", INIT.format(house=str(HOUSE))],
        capture_output=True, text=True, timeout=60, check=False, cwd=HOUSE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told, left = map(eval, done.stdout.splitlines())
    assert told == ["/bin/sh ended with 7"] * 8, "an end was taken from who waits for it"
    assert left == []
