"""A machine with a real systemd as its process 1: systemd-nspawn on an overlay of a root directory, without any network
but its own loopback. What is done in it is gone when it is shut down."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.acceptance.stage import wait_for

# Of the host's own root: units that have nothing to do here, or that would look for hardware.
MASKED = (
    "systemd-networkd", "systemd-resolved", "systemd-timesyncd", "systemd-udevd", "systemd-update-utmp",
    "systemd-update-utmp-runlevel", "console-getty", "getty@", "e2scrub_reap",
)  # fmt: skip
TIMERS = ("apt-daily", "apt-daily-upgrade", "man-db", "dpkg-db-backup", "fstrim")
ENVIRON = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root", "TERM": "dumb"}
PATIENCE = 60.0


def why_not() -> str:
    """What this machine lacks for it; empty where nothing."""
    if os.geteuid() != 0:
        return "booting a systemd wants root"
    absent = [tool for tool in ("systemd-nspawn", "nsenter", "dpkg-deb", "apt") if shutil.which(tool) is None]
    return f"{absent[0]} is not on this machine" if absent else ""


class Machine:
    """One that runs; made by `booted`."""

    def __init__(self, root: Path, leader: int) -> None:
        self.root = root
        self._leader = leader

    def run(self, *command: str, check: bool = True, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """A command as root in it, in all of its namespaces and control group."""
        done = subprocess.run(
            ["nsenter", "-t", str(self._leader), "-a", "--", *command], capture_output=True, text=True, check=False,
            input=given, timeout=PATIENCE, env=ENVIRON,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def say(self, *command: str) -> str:
        """What the command prints, without the last line end."""
        return self.run(*command).stdout.rstrip("\n")

    def succeeds(self, *command: str) -> bool:
        return self.run(*command, check=False).returncode == 0

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Through the machine's own eyes, as its mounts hide what lies beneath."""
        self.run("install", "-D", "-m", f"{mode:o}", "/dev/stdin", path, given=text)

    def read(self, path: str) -> str:
        return self.run("cat", path).stdout

    def unit(self, name: str, *properties: str) -> dict[str, str]:
        told = self.say("systemctl", "show", name, "--property", ",".join(properties))
        return dict(line.split("=", 1) for line in told.splitlines())

    def state(self, name: str) -> str:
        return self.unit(name, "ActiveState")["ActiveState"]

    def wait_state(self, name: str, *states: str) -> None:
        wait_for(lambda: self.state(name) in states, f"{name} to be {' or '.join(states)}", PATIENCE)

    def journal(self, **fields: str) -> list[dict[str, Any]]:
        """Entries with these fields, oldest first."""
        matches = [f"{name}={value}" for name, value in fields.items()]
        told = self.say("journalctl", "--no-pager", "-o", "json", *matches)
        return [json.loads(line) for line in told.splitlines()]

    def drop_in(self, unit: str, text: str) -> None:
        self.write(f"/run/systemd/system/{unit}.d/90-test.conf", text)
        self.run("systemctl", "daemon-reload")


@contextmanager
def booted(folder: Path, lower: Path, extra: Mapping[str, Path]) -> Iterator[Machine]:
    """A machine whose root is ``lower`` with a writable layer above it; ``extra`` files are copied in before it
    boots."""
    root = folder / "root"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2g,mode=755", "tmpfs", folder], check=True)
    try:
        for name in ("upper", "work", "root"):
            (folder / name).mkdir()
        options = f"lowerdir={lower},upperdir={folder}/upper,workdir={folder}/work"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, root], check=True)
        try:
            _prepare(root)
            for place, source in extra.items():
                shutil.copy(source, root / place.lstrip("/"))
            with _running(folder, root) as machine:
                yield machine
        finally:
            subprocess.run(["umount", root], check=True)
    finally:
        subprocess.run(["umount", folder], check=True)


def _prepare(root: Path) -> None:
    units = root / "etc/systemd/system"
    units.mkdir(parents=True, exist_ok=True)
    (root / "etc/machine-id").write_text("")
    for wants in units.glob("*.wants"):
        shutil.rmtree(wants)
    for name in (*(f"{name}.service" for name in MASKED), *(f"{name}.timer" for name in TIMERS)):
        _link(units / name, "/dev/null")
    _link(units / "default.target", "/lib/systemd/system/multi-user.target")


def _link(place: Path, to: str) -> None:
    place.unlink(missing_ok=True)
    place.symlink_to(to)


@contextmanager
def _running(folder: Path, root: Path) -> Iterator[Machine]:
    command = [
        "systemd-nspawn", "--quiet", f"--directory={root}", "--boot", "--register=no", "--keep-unit",
        "--private-network", f"--machine=rotator-{os.getpid()}",
    ]  # fmt: skip
    with (folder / "console.log").open("wb") as console:
        nspawn = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True
        )
    try:
        yield wait_for(lambda: _up(nspawn, root), f"the boot, see {folder}/console.log", PATIENCE)
    finally:
        # Its process 1 outlives a nspawn that is killed.
        for child in _children(nspawn.pid):
            os.kill(child, signal.SIGKILL)
        nspawn.wait(PATIENCE)


def _up(nspawn: subprocess.Popen[bytes], root: Path) -> Machine | None:
    """The machine, once it has booted. Which child is its process 1 is looked up each time: the first one goes."""
    assert nspawn.poll() is None, "systemd-nspawn has ended"
    for child in _children(nspawn.pid):
        machine = Machine(root, child)
        told = machine.run("systemctl", "is-system-running", check=False).stdout.strip()
        if told in ("running", "degraded"):
            return machine
    return None


def _children(pid: int) -> list[int]:
    told = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in told.split()]
