"""The record of one grant: what the store keeps, and what an exchange can bring back.

Everything is immutable; the lifecycle makes a new record for every change.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime, timedelta
from enum import StrEnum

from rotator.core import lean
from rotator.core.policy import Moment
from rotator.core.tokens import AccessToken, Secret


class Kind(StrEnum):
    """The two exchanges of this client (RFC 6749 sections 4.3 and 6), named as ``grant_type`` names them."""

    PASSWORD = "password"  # noqa: S105 (the name of a grant type)
    REFRESH = "refresh_token"


class Source(StrEnum):
    """Which refresh token an exchange spends."""

    CURRENT = "current"
    PREVIOUS = "previous"


class OutcomeClass(StrEnum):
    """The class of a token request; the lifecycle answers by it and by nothing else."""

    GRANTED = "granted"
    PARTIAL = "granted in part"
    NOT_SENT = "not sent"
    DOUBTFUL = "doubtful"
    BUSY = "busy"
    REFRESH_DEAD = "refresh token dead"
    REFUSED = "credentials refused"
    MISCONFIGURED = "misconfigured"


class Charge(StrEnum):
    """How a password exchange that was not granted counts on the budget; “not sent” never does."""

    ONE = "one login"
    NONE = "nobody looked at the credentials"
    HALF = "the provider counts: half of what is left is given up"


@lean.dataclass(frozen=True, slots=True)
class Answer:
    """What a provider granted. ``access`` is None where it may not be used (granted in part);
    ``lifetime`` is None where ``expires_in`` was missing or unusable."""

    access: Secret | None
    refresh: Secret | None
    lifetime: timedelta | None
    scope: str | None = None
    token_type: str = "bearer"  # noqa: S105 (RFC 6749 section 7.1)
    remarks: tuple[str, ...] = ()


@lean.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one token request ended.

    ``message`` says it for a person and holds no secret; ``mend`` is the mending step. ``retry_after`` is what the
    provider asked for. ``pace`` is the slow retry (first delay, longest delay) of what waiting alone may not mend; None
    means the usual one of its class. ``charge`` is about a password exchange, ``barred`` about a refresh: the client
    may not refresh at all, so that only a login is left.
    """

    cls: OutcomeClass
    message: str
    mend: str = ""
    answer: Answer | None = None
    retry_after: timedelta | None = None
    pace: tuple[timedelta, timedelta] | None = None
    charge: Charge = Charge.ONE
    barred: bool = False


@lean.dataclass(frozen=True, slots=True)
class Intent:
    """“I am about to spend ``generation`` with this exchange”: durable before the request leaves.

    ``interactive`` marks a person's own `rotator authorize`: its failure changes nothing else.
    """

    lineage: str
    generation: int
    kind: Kind
    source: Source
    attempt: int
    moment: Moment
    interactive: bool = False


@lean.dataclass(frozen=True, slots=True)
class Doubt:
    """A refresh request left and no answer is on record: nobody knows whether the refresh token was spent.

    ``cause`` says why in words, ``attempts`` counts the requests sent in this doubt, ``since`` is when the first left.
    """

    since: Moment
    attempts: int
    cause: str


@lean.dataclass(frozen=True, slots=True)
class Latch:
    """Credentials were refused: no further exchange until ``digest`` (a keyed hash of the request's credentials and
    settings) changes or an operator asks."""

    reason: str
    mend: str
    digest: str
    since: datetime


@lean.dataclass(frozen=True, slots=True)
class Trouble:
    """Why a grant is not simply fresh: the class of the last failure, in words, since when, how often in a row."""

    cls: OutcomeClass
    message: str
    mend: str
    since: datetime
    count: int


@lean.dataclass(frozen=True, slots=True, weakref_slot=True, kw_only=True)
class Grant:
    """Everything that is durable about one grant.

    ``identity`` is a keyed hash of provider, client and resource owner: under another identity the stored tokens
    belong to somebody else. ``due_at`` None means that nothing happens until a person or a changed secret acts.
    ``debits`` are the times of password exchanges. ``remarks`` are oddities that were told and still stand: they
    are told when they come, not while they stay. ``unproven`` means that the clock may have been wrong when
    validity was judged: refresh before trusting.
    """

    name: str
    lineage: str
    identity: str
    generation: int = 0
    access: AccessToken | None = None
    refresh: Secret | None = None
    previous_refresh: Secret | None = None
    refreshed_at: datetime | None = None
    intent: Intent | None = None
    doubt: Doubt | None = None
    latch: Latch | None = None
    trouble: Trouble | None = None
    debits: tuple[datetime, ...] = field(default=())
    password_lost: bool = False
    due_at: datetime | None = None
    exchanged_at: datetime | None = None
    unproven: bool = False
    remarks: tuple[str, ...] = ()

    def holds_valid(self, now: datetime) -> bool:
        return self.access is not None and self.access.is_valid(now)
