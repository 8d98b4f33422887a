"""What of a machine a test may break without breaking the machine: file systems, a network and a memory of its own.

Everything is undone at the end of its block, also where the test failed. Needs root; see `require`.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import signal
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.house import House
from tests.acceptance.stage import Process, wait_for

PATIENCE = 30.0

# <linux/fs.h> and xfs_fs.h: both file systems take the same call. Not flushed: what was not synced is lost.
FS_IOC_SHUTDOWN = 0x8004587D
WITHOUT_FLUSH = 2
# mkfs.xfs refuses less than 300 MB; the image is a hole.
SIZES = {"ext4": "32M", "xfs": "320M"}
# <sched.h>
CLONE_NEWNET = 0x40000000

# Whether every story is told, and at full length; else those that fit into minutes. See conftest.
WHOLE = os.environ.get("FAULTS") == "all"


def require(*programs: str) -> None:
    """Skip where this machine cannot be broken: no right to mount, or a program that is absent. A CI machine must be
    able to."""
    absent = [program for program in programs if shutil.which(program) is None]
    if absent:
        why = f"not installed: {', '.join(absent)}"
    elif (
        os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode
    ):
        why = "only root may mount, cut and confine, and not in every container"
    else:
        return
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


def run(*command: str, good: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode in good, f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


# --- file systems -----------------------------------------------------------------------------------------------


@dataclass
class Memory:
    """A mounted tmpfs."""

    at: Path

    def change(self, options: str) -> None:
        """Remount with other options: `size=4m`, `nr_inodes=6`, `ro`."""
        run("mount", "-o", f"remount,{options}", str(self.at))


@contextmanager
def tmpfs(at: Path, options: str) -> Iterator[Memory]:
    """A tmpfs over the folder ``at``."""
    run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(at))
    try:
        yield Memory(at)
    finally:
        unmount(at)


def unmount(at: Path) -> None:
    """Whoever has just died may still hold it for a moment; whoever holds it for long shall not keep it."""

    def gone() -> bool:
        # Tried, not looked at: a disk that was cut cannot be looked at.
        done = subprocess.run(["umount", at], capture_output=True, text=True, check=False)
        return done.returncode == 0 or "not mounted" in done.stderr

    try:
        wait_for(gone, f"the end of the mount {at}")
    except AssertionError:
        run("umount", "--lazy", str(at))
        raise


@dataclass
class Disk:
    """A real file system of its own kind on a loop device, mounted at ``at``."""

    kind: str
    image: Path
    at: Path

    def mount(self) -> None:
        """A journal that is left from a cut is replayed here."""
        run("mount", "-o", "loop", str(self.image), str(self.at))

    def cut(self) -> None:
        """The power fails: from now on nothing reaches the disk, and nothing that was not synced has."""
        fd = os.open(self.at, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, FS_IOC_SHUTDOWN, struct.pack("I", WITHOUT_FLUSH))
        finally:
            os.close(fd)

    def reboot(self) -> None:
        """Forget everything that only memory knew, and mount what the disk holds. Nobody may have it open."""
        unmount(self.at)
        self.mount()

    def fail(self) -> None:
        """The kernel meets an error of the file system and mounts it read-only, as it does on a dying disk (ext4)."""
        device = Path(run("findmnt", "-n", "-o", "SOURCE", str(self.at)).strip())
        Path("/sys/fs/ext4", device.name, "trigger_fs_error").write_text("told by a test\n")

    def mend(self) -> None:
        """What an operator does after `fail`: unmount, check, mount."""
        unmount(self.at)
        # 1: errors were found and corrected (e2fsck(8)).
        run("e2fsck", "-p", str(self.image), good=(0, 1))
        self.mount()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Whoever writes waits until the block ends."""
        run("fsfreeze", "--freeze", str(self.at))
        try:
            yield
        finally:
            run("fsfreeze", "--unfreeze", str(self.at))


@contextmanager
def disk(kind: str, image: Path, at: Path) -> Iterator[Disk]:
    """A fresh file system (`ext4` or `xfs`) in the file ``image``, mounted over the folder ``at``."""
    run("truncate", "-s", SIZES[kind], str(image))
    quietly = ("-q", "-F", "-e", "remount-ro") if kind == "ext4" else ("-q", "-f")
    run(f"mkfs.{kind}", *quietly, str(image))
    made = Disk(kind, image, at)
    made.mount()
    try:
        yield made
    finally:
        unmount(at)
        image.unlink()


def fill(folder: Path) -> Path:
    """Fill the file system of ``folder`` to its last byte; delete what is returned to make room."""
    path = folder / "filler"
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        size = 1 << 16
        while size:
            try:
                os.write(fd, bytes(size))
            except OSError:
                size //= 2
    finally:
        os.close(fd)
    assert free(folder) == 0, f"{folder} is not full"
    return path


def free(folder: Path) -> int:
    """Bytes that are left."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


# --- a process --------------------------------------------------------------------------------------------------


def wait(place: House, process: Process, condition: Callable[[], object], what: str) -> None:
    """Wait for it while the daemon lives; a failure shows what the daemon said meanwhile."""
    try:
        wait_for(lambda: condition() or process.popen.poll() is not None, what, within=PATIENCE)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{place.told()}") from None
    assert process.popen.poll() is None, f"the daemon ended by itself:\n{place.told()}"


def rest(process: Process, seconds: float) -> None:
    """Let a state of things last; the daemon must outlive it."""
    try:
        code = process.popen.wait(seconds)
    except subprocess.TimeoutExpired:
        return
    raise AssertionError(f"the daemon ended with {code}:\n{process.told}")


@contextmanager
def stopped(process: Process) -> Iterator[None]:
    """No instruction of it runs until the block ends; SIGCONT comes in any case."""
    os.kill(process.pid, signal.SIGSTOP)
    try:
        wait_for(lambda: _state(process.pid) in "TtZX", "the process to stop")
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)


def _state(pid: int) -> str:
    try:
        # proc_pid_stat(5): after the name in brackets, which may hold anything.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "X"


# --- a network --------------------------------------------------------------------------------------------------


@contextmanager
def own_network() -> Iterator[None]:
    """Whatever this thread starts within the block lives in a network of its own, which has nothing but a loopback.

    A namespace belongs to a thread (setns(2)), and a child begins in that of the thread that made it."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        assert libc.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            run("ip", "link", "set", "lo", "up")
            yield
        finally:
            assert libc.setns(home, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(home)


@contextmanager
def dropped(*match: str) -> Iterator[Callable[[], int]]:
    """Packets that match these words of iptables(8) are lost within the block; call it for how many were so far."""
    run("iptables", "-I", "OUTPUT", *match, "-j", "DROP")

    def count() -> int:
        # Two lines of headings, then the rule that was put first.
        return int(run("iptables", "-L", "OUTPUT", "-n", "-v", "-x").splitlines()[2].split()[0])

    try:
        yield count
        assert count() > 0, "nothing was lost: this proved nothing"
    finally:
        run("iptables", "-D", "OUTPUT", *match, "-j", "DROP")


def is_connected(process: Process, port: int) -> bool:
    """Whether it holds a connection to this port, in its own network."""
    rows = [line.split() for line in Path(f"/proc/{process.pid}/net/tcp").read_text().splitlines()[1:]]
    # proc_pid_net(5): remote address and state, in hexadecimal; 01 is ESTABLISHED.
    return any(row[2].endswith(f":{port:04X}") and row[3] == "01" for row in rows)
