"""Which calls of a rotation count: those that touch its store, its secrets, the provider or a target, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tests.faults.tracer import Call, Fault


class Half(StrEnum):
    """The tracer comes before the order, or while the provider holds its answer: two halves of one rotation."""

    REQUEST = "request"
    ANSWER = "answer"


class Place(StrEnum):
    SECRETS = "secrets"
    STORE = "store"
    PROVIDER = "provider"
    TARGET = "target"
    ELSEWHERE = "elsewhere"


@dataclass(frozen=True, slots=True)
class Point:
    """The ``turn``-th call of a name in a step of a rotation.

    ``step`` is made of what happened *before* the call, so that a run that ends in it names it alike."""

    half: Half
    place: Place
    step: str
    name: str
    turn: int

    @property
    def in_window(self) -> bool:
        """Whether the provider has committed and our save need not be durable yet."""
        return self.step in (RECEIVE, SAVE)

    def __str__(self) -> str:
        return f"{self.step}: {self.name} #{self.turn}"


# Whoever died in a trace that names no call that was struck.
NOWHERE = Point(Half.ANSWER, Place.ELSEWHERE, "nowhere", "none", 0)

SECRETS, INTENT, SEND = "read the secrets", "look again, save the intent", "send the request"
RECEIVE, SAVE, PUBLISH, MARK = "receive the answer", "save", "publish", "mark as delivered"
CHECKPOINT = "checkpoint"

# What the calls may fail with (errno(3) and their man pages), the most likely first.
_DISK = ("EIO", "ENOSPC")
_WIRE = ("ECONNRESET", "ETIMEDOUT")
ERRORS: Mapping[str, tuple[str, ...]] = {
    "pwrite64": ("ENOSPC", "EIO"),
    "write": ("ENOSPC", "EIO", "EDQUOT"),
    "fdatasync": _DISK,
    "fsync": _DISK,
    "ftruncate": ("EIO",),
    "rename": _DISK,
    "openat": ("ENOSPC", "EIO", "EMFILE"),
    "fchmod": ("EIO",),
    "fcntl": ("EIO", "ENOLCK"),
    "pread64": ("EIO",),
    "read": ("EIO",),
    "lseek": ("EIO",),
    "ioctl": ("EIO",),
    "newfstatat": ("EIO",),
    "fstatfs": ("EIO",),
    "close": (),
    "socket": ("EMFILE", "ENOBUFS"),
    "connect": ("ECONNREFUSED", "ENETUNREACH", "ETIMEDOUT"),
    "sendto": ("EPIPE", "ECONNRESET"),
    "recvfrom": _WIRE,
    "getsockopt": ("ENOBUFS",),
    "setsockopt": ("ENOBUFS",),
    "getsockname": ("ENOBUFS",),
    "getpeername": ("ENOTCONN",),
    "epoll_ctl": ("ENOMEM",),
}


def can_fail(call: Call) -> bool:
    """Linux fails to do nothing of these: close(2) closes also where it reports an error, a descriptor is taken off an
    epoll list and a whole lock is given back. A call that is not made would leave them as no kernel does."""
    return call.name != "close" and "EPOLL_CTL_DEL" not in call.text and "F_UNLCK" not in call.text


def faults(point: Point) -> tuple[Fault, ...]:
    """Raises KeyError for a call nobody has thought about."""
    return tuple(Fault(name) for name in ERRORS[point.name])


# A commit ends when SQLite gives back the lock on writing to the log (sqlite.org/walformat.html, section 2.3.1). Its
# sync does not tell: a log that begins anew has one more.
UNLOCKED = "{l_type=F_UNLCK, l_whence=SEEK_SET, l_start=120,"

# What makes something durable, visible, or known to the provider.
_WEIGHTY = frozenset(
    ("pwrite64", "fdatasync", "connect", "sendto", "recvfrom", "openat", "fchmod", "write", "fsync", "rename")
)


def weighty(plan: Iterable[Point]) -> list[Point]:
    """The calls that must have been struck. Of receiving the first: an answer comes in one piece or in two."""
    return [at for at in plan if at.name in _WEIGHTY and (at.name != "recvfrom" or at.turn == 1)]


def telling(plan: Iterable[Point]) -> list[Point]:
    """The few that stand for all: on the path intent, send, receive, save, publish, mark every weighty call, of the
    writes to the log the first and the last of each step."""
    chosen = [at for at in weighty(plan) if at.place is not Place.SECRETS]
    last = {at.step: at for at in chosen if at.name == "pwrite64"}
    return [at for at in chosen if at.name != "pwrite64" or at.turn == 1 or at == last[at.step]]


def of(calls: Iterable[Call], half: Half, folder: Path) -> list[tuple[Point, Call]]:
    """Name the calls of a trace; those that touch nothing are left out. ``folder`` is what the machine lives in."""
    named: list[tuple[Point, Call]] = []
    saved = half is Half.REQUEST
    turns: Counter[tuple[str, str]] = Counter()
    for call in calls:
        place = _place(call, folder)
        if place is None:
            continue
        step = _step(place, half, saved)
        saved = saved or (step == SAVE and UNLOCKED in call.text)
        turns[step, call.name] += 1
        named.append((Point(half, place, step, call.name, turns[step, call.name]), call))
    return named


def struck(calls: Iterable[Call], half: Half, folder: Path) -> Point | None:
    """What the fault of a trace hit; None where it hit nothing."""
    calls = list(calls)
    if named := next((at for at, call in of(calls, half, folder) if call.struck), None):
        return named
    return next((Point(half, Place.ELSEWHERE, "elsewhere", at.name, at.number) for at in calls if at.struck), None)


def struck_of_checkpoint(calls: Iterable[Call]) -> Point | None:
    """The same for the calls on the database file, which is written by a checkpoint and by nothing else."""
    return next((Point(Half.ANSWER, Place.STORE, CHECKPOINT, at.name, at.number) for at in calls if at.struck), None)


def _step(place: Place, half: Half, saved: bool) -> str:
    match place:
        case Place.SECRETS:
            return SECRETS
        case Place.PROVIDER:
            return SEND if half is Half.REQUEST else RECEIVE
        case Place.TARGET:
            return PUBLISH
    return INTENT if half is Half.REQUEST else MARK if saved else SAVE


def _place(call: Call, folder: Path) -> Place | None:
    text = call.text
    if "<TCP:[" in text or (call.name == "socket" and text.startswith("AF_INET,")):
        return Place.PROVIDER
    places = {"state/state/state.db": Place.STORE, "client_secret": Place.SECRETS, "password": Place.SECRETS}
    return next(
        (place for path, place in {**places, "run/billing": Place.TARGET}.items() if f"{folder}/{path}" in text), None
    )
