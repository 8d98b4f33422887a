"""A grant as a JSON object and back, the same for every store. Secrets stand in it in clear: a record is for a
store only, and the store keeps it private."""

from __future__ import annotations

import operator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from rotator.core.errors import Overtaken, StateDamaged
from rotator.core.grants import Doubt, Grant, Intent, Kind, Latch, OutcomeClass, Source, Trouble
from rotator.core.policy import Moment
from rotator.core.tokens import AccessToken, Secret

VERSION = 1

Record = dict[str, Any]


def write(grant: Grant) -> Record:
    """A JSON-ready object with times in microseconds since the epoch."""
    access = grant.access
    return {
        "v": VERSION,
        "name": grant.name,
        "lineage": grant.lineage,
        "identity": grant.identity,
        "generation": grant.generation,
        "access": None if access is None else {
            "value": access.value.reveal(), "type": access.token_type, "scope": access.scope,
            "issued_at": _at(access.issued_at), "expires_at": _at(access.expires_at),
            "generation": access.generation,
        },
        "refresh": _revealed(grant.refresh),
        "previous_refresh": _revealed(grant.previous_refresh),
        "refreshed_at": _at(grant.refreshed_at),
        "intent": None if grant.intent is None else {
            "lineage": grant.intent.lineage, "generation": grant.intent.generation, "kind": grant.intent.kind.value,
            "source": grant.intent.source.value, "attempt": grant.intent.attempt,
            "interactive": grant.intent.interactive, **_moment(grant.intent.moment),
        },
        "doubt": None if grant.doubt is None else {
            "attempts": grant.doubt.attempts, "cause": grant.doubt.cause, **_moment(grant.doubt.since),
        },
        "latch": None if grant.latch is None else {
            "reason": grant.latch.reason, "mend": grant.latch.mend, "digest": grant.latch.digest,
            "since": _at(grant.latch.since),
        },
        "trouble": None if grant.trouble is None else {
            "cls": grant.trouble.cls.value, "message": grant.trouble.message, "mend": grant.trouble.mend,
            "since": _at(grant.trouble.since), "count": grant.trouble.count,
        },
        "debits": [_at(at) for at in grant.debits],
        "password_lost": grant.password_lost,
        "due_at": _at(grant.due_at),
        "exchanged_at": _at(grant.exchanged_at),
        "unproven": grant.unproven,
        "remarks": list(grant.remarks),
    }  # fmt: skip


def read(record: Record) -> Grant:
    """Raises StateDamaged for a record that no version of ours wrote, without quoting more than its name."""
    try:
        version = int(record["v"])
        if version > VERSION:
            raise StateDamaged(
                f"the record of {record['name']!r} has version {version}, this rotator knows {VERSION}",
                mend="start the newer rotator that wrote it",
            )
        return _read(record)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise StateDamaged("a stored grant is not readable", mend="run `rotator state reset`") from None


def _read(record: Record) -> Grant:
    access, intent, doubt = record["access"], record["intent"], record["doubt"]
    latch, trouble = record["latch"], record["trouble"]
    return Grant(
        name=_text(record["name"]),
        lineage=_text(record["lineage"]),
        identity=_text(record["identity"]),
        generation=operator.index(record["generation"]),
        access=None if access is None else AccessToken(
            Secret(_text(access["value"])), access["type"], access["scope"],
            time(access["issued_at"]), time(access["expires_at"]), access["generation"],
        ),
        refresh=_secret(record["refresh"]),
        previous_refresh=_secret(record["previous_refresh"]),
        refreshed_at=_maybe(record["refreshed_at"]),
        intent=None if intent is None else Intent(
            intent["lineage"], intent["generation"], Kind(intent["kind"]), Source(intent["source"]),
            intent["attempt"], _read_moment(intent), intent["interactive"],
        ),
        doubt=None if doubt is None else Doubt(_read_moment(doubt), doubt["attempts"], doubt["cause"]),
        latch=None if latch is None else Latch(
            latch["reason"], latch["mend"], latch["digest"], time(latch["since"]),
        ),
        trouble=None if trouble is None else Trouble(
            OutcomeClass(trouble["cls"]), trouble["message"], trouble["mend"], time(trouble["since"]),
            trouble["count"],
        ),
        debits=tuple(time(at) for at in record["debits"]),
        password_lost=record["password_lost"],
        due_at=_maybe(record["due_at"]),
        exchanged_at=_maybe(record["exchanged_at"]),
        unproven=record["unproven"],
        # Records that were written before there were remarks lack them.
        remarks=tuple(_text(remark) for remark in record.get("remarks", ())),
    )  # fmt: skip


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def stamp(at: datetime) -> int:
    """Microseconds since the epoch: exact both ways, unlike a float, and ordered, so that a store can index it."""
    return (at - EPOCH) // MICROSECOND


def time(micros: int) -> datetime:
    return EPOCH + timedelta(0, 0, micros)


def _at(at: datetime | None) -> int | None:
    return None if at is None else stamp(at)


def _maybe(micros: int | None) -> datetime | None:
    return None if micros is None else time(micros)


def _revealed(secret: Secret | None) -> str | None:
    return None if secret is None else secret.reveal()


def _secret(raw: object) -> Secret | None:
    return None if raw is None else Secret(_text(raw))


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise TypeError
    return raw


def _moment(moment: Moment) -> Record:
    return {"at": stamp(moment.now), "boot": moment.boot_id, "boottime": moment.boottime // MICROSECOND}


def _read_moment(record: Record) -> Moment:
    return Moment(time(record["at"]), record["boot"], timedelta(microseconds=record["boottime"]))


# --- what every store must agree on -----------------------------------------------------------------------------

# More password exchanges than any budget allows (the settings cap it below): a tombstone spends them all, whatever
# the limit of the grant is, because a store does not know it.
TOMBSTONE_DEBITS = 16


def charge(grant: Grant, tombstone_at: datetime | None) -> Grant:
    """A new grant in a store that lost what it knew (`rotator state reset`): its password budget counts as spent."""
    if tombstone_at is None:
        return grant
    return replace(grant, debits=grant.debits + (tombstone_at,) * TOMBSTONE_DEBITS)


def admit(found: tuple[str, int] | None, grant: Grant, expected: int) -> None:
    """The compare-and-set of `ports.Store.save`, given lineage and generation as they are stored (None: not there).

    A new lineage may only begin as an enrolment does, with nothing in hand (`lifecycle.reidentify`): tokens of one
    lineage never end up under the number of another. Raises Overtaken; whether the lease allows it is the store's
    own question.
    """
    if found is None:
        raise Overtaken(f"{grant.name} is no longer stored: it was retired meanwhile")
    lineage, generation = found
    if generation != expected:
        raise Overtaken(f"{grant.name} is at generation {generation} already, not at {expected}: another saved first")
    if lineage != grant.lineage and not starts_anew(grant):
        raise Overtaken(f"{grant.name} was started anew meanwhile: its lineage is another one")


def starts_anew(grant: Grant) -> bool:
    """Whether this is how a lineage begins: nothing in hand."""
    in_hand = (grant.access, grant.refresh, grant.intent, grant.doubt, grant.latch, grant.trouble)
    return grant.generation == 0 and all(one is None for one in in_hand)
