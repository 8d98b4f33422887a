"""What the engine needs of the world. Each docstring is a contract: atomicity, idempotence, cancellation, errors.

`tests/contracts` runs one suite per port over every implementation, the lab's twins included.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import field
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Protocol

from rotator.core import events, lean
from rotator.core.grants import Grant, Kind, Outcome
from rotator.core.health import Census, Listed
from rotator.core.policy import Moment, Rules
from rotator.core.pressure import Limits, Line
from rotator.core.publication import Publication, Settled
from rotator.core.tokens import Secret


class Clock(Protocol):
    """The only source of time, and the alarm bell. Never blocks; every ring is a plain call on the event loop."""

    def now(self) -> datetime:
        """Wall time, aware UTC."""
        ...

    def moment(self) -> Moment:
        """Wall time, boot id, boot-time and monotonic clock, read together."""
        ...

    def alarm(self, at: datetime | None, ring: Callable[[], None]) -> None:
        """Set *the* alarm, replacing the one before; None takes it away. A time in the past rings at once.

        It may ring late or twice (a suspended machine, a stepped clock): whoever is rung looks for himself."""
        ...

    def beat(self, name: str, every: timedelta, ring: Callable[[], None]) -> None:
        """Ring every ``every`` until `stop`; a beat of the same name is replaced, missed beats fall together.

        Beats may count from one moment, so that one awakening serves several: the first ring comes after ``every`` or
        sooner. They follow the time that passes while the machine is awake, whatever wall time does."""
        ...

    async def wait_until(self, at: datetime) -> None:
        """Return at ``at`` or later. Cancellation returns at once and leaves nothing behind."""
        ...

    def deadline(self, limit: timedelta) -> AbstractAsyncContextManager[object]:
        """A scope that raises TimeoutError in its owner once ``limit`` has passed."""
        ...

    def stop(self) -> None:
        """Ring no more. Idempotent."""
        ...


class Dice(Protocol):
    """Chance, seeded in the lab."""

    def chance(self) -> float:
        """A number in [0, 1), for jitter."""
        ...

    def name(self) -> str:
        """A fresh random identifier of at least 96 bits, for lineages and owners."""
        ...


class Reach(IntEnum):
    """How far an HTTP request got. From WRITTEN on the far end may have acted."""

    NOTHING = 0
    CONNECTED = 1
    WRITTEN = 2
    STATUS = 3
    COMPLETE = 4


@lean.dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request. ``body`` and ``headers`` may hold secrets and do not print."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)


@lean.dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What came back, and how far it got.

    ``failure`` is None for a complete answer, else a short stable word: ``dns``, ``refused``, ``unreachable``,
    ``tls``, ``certificate``, ``connect timeout``, ``timeout``, ``reset``, ``protocol``, ``too large``, ``proxy``,
    ``connection``; ``detail`` is a sentence without secrets. ``status`` and ``headers`` (names in lower case) are
    there from STATUS on; ``body`` is whole only with COMPLETE. It may hold secrets and does not print.
    """

    reach: Reach
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)
    failure: str | None = None
    detail: str = ""

    def header(self, name: str) -> str | None:
        """The first header of that name (lower case), or None."""
        return next((value for key, value in self.headers if key == name), None)


class Http(Protocol):
    """Sends one request on one connection of its own, follows no redirect, and never raises for the far end."""

    async def send(self, request: HttpRequest, *, deadline: timedelta, limit: int = 1 << 20) -> HttpAnswer:
        """``deadline`` bounds the whole; ``limit`` is the largest body in bytes, beyond it ``too large``.

        Cancellation closes the connection; it is the caller who then does not know."""
        ...


@lean.dataclass(frozen=True, slots=True)
class Credentials:
    """What a token request presents, resolved just before it. ``digest`` is the keyed hash a latch remembers."""

    client_id: str
    client_secret: Secret | None
    username: str | None
    password: Secret | None
    digest: str


class CredentialSource(Protocol):
    """The references of one grant. Read anew each time: a changed file counts at the next exchange."""

    async def resolve(self, *, password: Secret | None = None) -> Credentials:
        """``password`` stands in for the configured one (a person's `authorize`).

        Raises Transient or Misconfigured where a reference cannot be read now; nothing was sent then."""
        ...


@lean.dataclass(frozen=True, slots=True)
class TokenRequest:
    """One exchange at the token endpoint (RFC 6749 sections 4.3.2 and 6)."""

    kind: Kind
    credentials: Credentials
    refresh: Secret | None


class TokenEndpoint(Protocol):
    """A provider's token endpoint."""

    async def exchange(self, request: TokenRequest, *, deadline: timedelta) -> Outcome:
        """Send exactly one request and class what came of it. Never raises for the far end, never retries."""
        ...


class Publisher(Protocol):
    """Where a generation is published.

    ``local`` tells that the target lives on this machine: it is judged by what is there, never by a mark.
    ``judged_by_mark`` tells that nobody can see what is there (a hook): only the durable mark of its delivery says
    whether a generation was told, so `settle` is called until that is on record, and never again for that generation.
    ``location`` names the place for ever (it is stored): two publishers of one location are the same place.
    """

    @property
    def local(self) -> bool: ...

    @property
    def judged_by_mark(self) -> bool: ...

    @property
    def location(self) -> str: ...

    async def settle(self, publication: Publication, now: datetime) -> Settled:
        """Make the target hold ``publication`` and say what was found. Idempotent; a reader sees the old value or
        the new one, whole, at every instant, also when this is killed or cancelled half-way.

        A higher generation of the same lineage is left alone (AHEAD). A target that is right is not written. One that
        is judged by its mark always acts, and says UNTOLD; killed half-way, it may have acted.
        Raises Transient (tried again), Refused or Misconfigured (a person must act; tried again slowly)."""
        ...

    async def remove(self, mark: str) -> bool:
        """Delete what stands there if it is still what ``mark`` names; False where it is something else."""
        ...


class Watcher(Protocol):
    """Notices at once when a local target is touched. Where the machine cannot watch, it simply never calls."""

    def watch(self, locations: Mapping[str, Callable[[], None]]) -> None:
        """Watch exactly these locations from now on; each is called on the event loop after a change."""
        ...

    def begin(self) -> None:
        """Until this is asked nobody is called: what it takes to watch may be dear, and publishing comes first."""
        ...

    def close(self) -> None: ...


@lean.dataclass(frozen=True, slots=True)
class Lease:
    """The right to *start* an exchange of ``grant`` until ``until``. ``fence`` only ever goes up."""

    grant: str
    owner: str
    fence: int
    until: Moment


@lean.dataclass(frozen=True, slots=True)
class Delivery:
    """That ``generation`` stands at ``location``, as the store remembers it."""

    grant: str
    target: str
    location: str
    lineage: str
    generation: int
    expires_at: datetime
    mark: str


@lean.dataclass(frozen=True, slots=True)
class Entry:
    """A grant that stands in the store instead of in the configuration. ``text`` is its table, `[grants.NAME]`, as
    JSON; it may hold secrets and does not print. ``provider`` is the one that it names."""

    name: str
    provider: str
    text: str = field(repr=False)


@lean.dataclass(frozen=True, slots=True)
class Heard:
    """What others did to a register, by name: ``entered`` or changed there; ``struck`` out of it; ``granted``: who has
    a token set that this daemon may not have published, for others rotated it or its entry is new here; ``lost``: whose
    generation is lower than one that this store saw of it before, so that a newer one was lost or it began anew."""

    entered: frozenset[str] = frozenset()
    struck: frozenset[str] = frozenset()
    granted: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()


class Register(Protocol):
    """Grants that were enrolled at run time, kept beside their records. They come to a desk when something is to be
    done for them and leave it again: nothing here costs what grows with how many there are, but `census`, which
    delays no other call.

    Raises what `Store` raises."""

    async def enter(self, entries: Sequence[Entry]) -> None:
        """Add or replace, all or none, durably."""
        ...

    async def entries(self, names: Collection[str]) -> Sequence[Entry]:
        """Those of these names that stand in it, by name."""
        ...

    async def page(self, after: str, limit: int) -> Sequence[Listed]:
        """The first ``limit`` whose names come behind ``after``, by name."""
        ...

    async def strike(self, name: str) -> bool:
        """Take it out; its record and deliveries stay. False where it was not there."""
        ...

    async def due(
        self, now: datetime, rooms: Mapping[tuple[str, Line], int]
    ) -> Mapping[tuple[str, Line], Sequence[str]]:
        """Names in it that are due: of each provider and line the longest overdue, as many as it has room for. Where
        nobody is due it may be left out."""
        ...

    async def next_due(self, after: datetime, providers: Collection[str]) -> datetime | None:
        """The first due time later than ``after`` of these providers."""
        ...

    async def census(self, now: datetime) -> Census: ...

    async def heard(self) -> Heard:
        """What others did to it since this store last asked; nothing where nobody else may write. It may tell the same
        twice, and miss what was written very late: the walk over all of them finds that."""
        ...


class Store(Protocol):
    """Where grants live durably.

    Every write is all or nothing and durable before it returns. Writes of one grant keep their order. Cancelling a
    write leaves it done or not done, never half. Raises Unavailable while the store cannot be reached or written,
    StateDamaged where it cannot be read, Overtaken as told below.

    ``follows`` tells that other daemons may write to it beside this one; then `news` is to be asked often.
    """

    @property
    def follows(self) -> bool: ...

    @property
    def register(self) -> Register | None:
        """None where it has none."""
        ...

    async def open(self) -> None:
        """Reach the store, and make or check its schema. Raises Overtaken where another daemon holds it."""
        ...

    async def close(self) -> None:
        """Idempotent; waits for writes that were begun."""
        ...

    async def key(self) -> bytes:
        """The installation's key for fingerprints and digests, made at the first opening, the same ever after."""
        ...

    async def high_water(self) -> datetime | None:
        """The latest wall time that any write was made at."""
        ...

    async def enrol(self, grant: Grant) -> Grant:
        """Keep ``grant`` unless one of that name is there; return what is kept.

        Where a tombstone stands (see `rotator state reset`), its debits are charged to the new grant."""
        ...

    async def grant(self, name: str) -> Grant | None: ...

    async def grants(self) -> Sequence[Grant]:
        """All of them, by name."""
        ...

    async def due(self, now: datetime, limit: int) -> Sequence[str]:
        """Names of grants that are due and not of the register, the longest overdue first, by an index on the due
        time."""
        ...

    async def next_due(self, after: datetime) -> datetime | None:
        """The first due time later than ``after`` of those that are not of the register."""
        ...

    async def lease(self, name: str, owner: str, moment: Moment, until: timedelta) -> tuple[Lease, Grant]:
        """Take the right to start an exchange, and look again: the grant as it is *under* the lease.

        The same owner gets a new fence and overtakes its own former lease: it has one at work at a time. A lease of
        another boot ran out, where a store is one machine's; where it follows others, once it was seen unchanged for
        its whole length. Raises Overtaken while another owner holds it, or where there is no such grant."""
        ...

    async def release(self, lease: Lease) -> None:
        """Give it back; nothing happens where it is no longer ours."""
        ...

    async def save(self, grant: Grant, *, expected: int, lease: Lease | None, now: datetime) -> None:
        """Compare-and-set on the generation, raising the high-water mark to ``now``.

        ``grant.generation > expected`` is a granted answer: saved if the stored generation is still ``expected`` in
        the same lineage, whoever holds the lease now. Any other change also needs that nobody took ``lease`` over;
        one that merely ran out still saves a failure. ``lease`` None is for what only the holder of the whole store
        does. A new lineage begins at generation 0 with nothing in hand. Raises Overtaken otherwise; `records.admit`
        is the judge that all stores share."""
        ...

    async def delivered(self, delivery: Delivery) -> None:
        """Remember a delivery, replacing what is known of that grant and location."""
        ...

    async def deliveries(self, grant: str | None = None) -> Sequence[Delivery]: ...

    async def expired(self, now: datetime, limit: int) -> Sequence[Delivery]:
        """Deliveries of tokens that have expired, the longest ago first, by an index on the expiry."""
        ...

    async def forget(self, grant: str, location: str) -> None:
        """Forget one delivery. Idempotent."""
        ...

    async def retire(self, name: str) -> bool:
        """Delete the stored grant, unless its name stands in the register: that is looked at in the same write, so that
        nothing is taken from who is entered again meanwhile. Its deliveries stay until they are removed. False where
        nothing was deleted."""
        ...

    async def news(self, names: Collection[str]) -> Mapping[str, Grant | None]:
        """Those of these grants that somebody else wrote since this store last looked; None for one that is gone. What
        is merely meant, under a lease that stands, may be told later or not at all."""
        ...

    async def fleet(self, owner: str) -> Collection[str]:
        """Tell that ``owner`` is at work, and learn who is: owners whose word was heard lately, himself included.

        Good for sharing the work out, never for more: it may be wrong at any time, and leases alone decide. Ends with
        `close`. A store that does not know the others names only himself."""
        ...


@lean.dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """One grant as configured, made of objects: what the engine works with.

    ``identity`` is (provider's URL, client id, username): other tokens do not fit it. ``limits`` are those of the
    provider, the same for all its grants. Readiness and start do not wait for ``optional`` targets. ``fingerprint``
    changes with anything configured, so that a reload can tell what changed. ``after`` names the targets that a hook
    waits for, where that is said.
    """

    name: str
    provider: str
    identity: tuple[str | None, ...]
    rules: Rules
    endpoint: TokenEndpoint
    credentials: CredentialSource
    targets: Mapping[str, Publisher]
    optional: frozenset[str] = frozenset()
    limits: Limits = field(default_factory=Limits)
    fingerprint: str = ""
    after: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def is_required(self, target: str) -> bool:
        """Whether readiness and start wait for it; for a hook they never do."""
        return target not in self.optional and not self.targets[target].judged_by_mark


class Roster(Protocol):
    """Which grants are enrolled, now."""

    def enrolments(self) -> Mapping[str, Enrolment]: ...

    @property
    def providers(self) -> Collection[str]:
        """Those that a grant of the register may name."""
        ...

    def enrolment_of(self, entry: Entry) -> Enrolment:
        """A grant of the register, made of objects. Raises Misconfigured where it does not fit what is configured."""
        ...

    async def standing(self, wanted: Sequence[tuple[Publisher, Publication]], now: datetime) -> Sequence[bool]:
        """Of each of these whether it stands there, for many at once and without a write. False where it does not, or
        where only `Publisher.settle` can tell. Never raises for a target."""
        ...

    def publisher_at(self, location: str) -> Publisher | None:
        """A publisher that can remove what was once delivered to ``location``; None where the way there is gone."""
        ...

    async def tend(self) -> None:
        """Look after what the enrolments share (logins that must be renewed). Never raises for the far end."""
        ...

    async def close(self) -> None: ...


class Face(Protocol):
    """A frontend that is open while the daemon runs."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...


class Supervisor(Protocol):
    """Who started us: systemd, or nobody. Never raises, never blocks."""

    @property
    def watchdog(self) -> timedelta | None:
        """The interval at which it expects to hear that we are alive; None where it does not."""
        ...

    @property
    def listens(self) -> bool:
        """Whether anybody hears what is told here: a status line over many grants costs more than a rotation."""
        ...

    def ready(self, status: str) -> None: ...

    def status(self, status: str) -> None: ...

    def extend(self, span: timedelta) -> None:
        """Ask for more time to start or stop."""
        ...

    def alive(self) -> None: ...

    def reloading(self) -> None: ...

    def stopping(self, status: str) -> None: ...


Listener = Callable[[events.Event], None]
