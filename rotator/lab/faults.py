"""What a test or `POST /_lab/faults` can make the provider do wrong.

`Faults.plan` queues mishaps for the next token requests, one after the other; the other switches stand until they
are changed. Durations are seconds here, because the switches are also written as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum

from rotator.core import errors


class Step(StrEnum):
    """Where a token request can be held, interleaved or crashed, in the order of FOSOAuthServerBundle: the old
    refresh token is deleted last, each step is a transaction of its own, and none goes around them."""

    ARRIVED = "arrived"
    READ = "refresh token read"
    ACCESS_STORED = "access stored"
    REFRESH_STORED = "refresh stored"
    OLD_DELETED = "old deleted"


class Mishap(StrEnum):
    """What befalls one token request."""

    LOST_BEFORE_COMMIT = "lost before commit"
    LOST_AFTER_COMMIT = "lost after commit"
    CRASH_AFTER_ACCESS = "crash after access"
    CRASH_AFTER_REFRESH = "crash after refresh"
    CRASH_AFTER_DELETE = "crash after delete"
    BUSY = "busy"
    HTML = "html"
    TRUNCATED = "truncated"


CRASHES = {
    Step.ACCESS_STORED: Mishap.CRASH_AFTER_ACCESS,
    Step.REFRESH_STORED: Mishap.CRASH_AFTER_REFRESH,
    Step.OLD_DELETED: Mishap.CRASH_AFTER_DELETE,
}


JSON_NAMES = {bool: "true or false", int: "a whole number", float: "a number", dict: "an object", list: "a list"}


@dataclass(frozen=True, slots=True)
class Fault:
    """One planned mishap, ``times`` in a row. ``status`` and ``retry_after`` belong to BUSY; ``retry_after`` is sent
    as it stands, so that an HTTP date or rubbish can be tried (RFC 9110 section 10.2.3)."""

    mishap: Mishap
    times: int = 1
    status: int = 503
    retry_after: str | None = None


@dataclass(slots=True)
class Faults:
    """The switches.

    ``outage`` drops every connection. ``latency_seconds`` passes before a request is looked at. ``meet`` holds token
    requests between reading the refresh token and storing the new pair until so many have come together, once.
    After ``lockout_after`` bad passwords in a row an account answers ``invalid_grant`` even to the right one, for
    ``lockout_seconds``. ``error_statuses`` gives errors another status by their code (``invalid_grant``: 403; ``*``
    stands for every error, so ``*``: 200 is the error in a 200). ``overrides`` replaces members of a granted answer
    (``expires_in``, ``token_type``, …) without changing what is stored, ``omitted`` takes members away.
    """

    queue: list[Fault] = field(default_factory=list)
    outage: bool = False
    latency_seconds: float = 0.0
    meet: int = 0
    lockout_after: int = 0
    lockout_seconds: float = 1800.0
    error_statuses: dict[str, int] = field(default_factory=dict)
    overrides: dict[str, object] = field(default_factory=dict)
    omitted: list[str] = field(default_factory=list)

    def plan(self, mishap: Mishap, times: int = 1, *, status: int = 503, retry_after: str | None = None) -> None:
        """Queue ``mishap`` for the next ``times`` token requests that can meet it."""
        self.queue.append(Fault(mishap, times, status, retry_after))

    def take(self) -> Fault | None:
        """The mishap of the request that has just arrived. A crash waits in the queue for its step."""
        if not self.queue or self.queue[0].mishap in CRASHES.values():
            return None
        return self._pop()

    def crashes_at(self, step: Step) -> bool:
        """Whether the provider crashes now that ``step`` is done."""
        if not self.queue or self.queue[0].mishap is not CRASHES.get(step):
            return False
        self._pop()
        return True

    def clear(self) -> None:
        """Back to a provider without faults."""
        for name, value in _values(Faults()).items():
            setattr(self, name, value)

    def describe(self) -> dict[str, object]:
        """All switches, as `set` takes them."""
        return asdict(self)

    def set(self, wanted: Mapping[str, object]) -> None:
        """Set the switches named; the others stay. Nothing changes unless all of them can be read.

        Raises BadUsage naming the key."""
        present = _values(self)
        for name, value in wanted.items():
            if name not in present:
                known = ", ".join(present)
                raise errors.BadUsage(f"there is no fault switch {name!r}", mend=f"the switches are: {known}")
            present[name] = _queue(value) if name == "queue" else _like(name, value, present[name])
        for name, value in present.items():
            setattr(self, name, value)

    def _pop(self) -> Fault:
        fault = self.queue[0]
        self.queue[:1] = [replace(fault, times=fault.times - 1)] if fault.times > 1 else []
        return fault


def _values(faults: Faults) -> dict[str, object]:
    return {item.name: getattr(faults, item.name) for item in fields(faults)}


def _like(name: str, value: object, present: object) -> object:
    kind = (int, float) if isinstance(present, float) else type(present)
    if not isinstance(value, kind) or (isinstance(value, bool) and not isinstance(present, bool)):
        wanted = JSON_NAMES[type(present)]
        raise errors.BadUsage(f"fault switch {name!r} is not {wanted}", mend=f"give it {wanted}")
    return value


def _queue(value: object) -> list[Fault]:
    mend = 'write [{"mishap": "busy", "times": 2, "status": 429, "retry_after": "7"}]'
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise errors.BadUsage("fault switch 'queue' is not a list of objects", mend=mend)
    try:
        return [Fault(**{**item, "mishap": Mishap(item.get("mishap", ""))}) for item in value]
    except (TypeError, ValueError):
        known = ", ".join(Mishap)
        raise errors.BadUsage("fault switch 'queue' cannot be read", mend=f"{mend}; mishaps: {known}") from None
