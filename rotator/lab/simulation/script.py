"""The script of a story: what goes wrong, and when. Seeded, written out, and therefore shrinkable and storable."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from datetime import timedelta
from enum import StrEnum

from rotator.core.policy import Budget
from rotator.lab import ledger, world
from rotator.lab.faults import Mishap

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


class What(StrEnum):
    """What can go wrong. Some last for a span; ``number`` means what the word says."""

    OUTAGE = "outage"
    """No connection to the provider for a span."""
    SLOW = "slow"
    """Each way to the provider and back takes up to ``number`` seconds for a span, which may be over the deadline."""
    STORM = "storm"
    """Every request is answered with the status ``number`` (429, 500, 502, 503) for a span; 429 and 503 name a time."""
    MISHAP = "mishap"
    """The next ``number`` requests meet ``detail`` (`rotator.lab.faults.Mishap`)."""
    CRASH = "crash"
    """The process is killed at the ``number``-th crash point from now on, and started again after a span."""
    REBOOT = "reboot"
    """The machine goes down, and comes back after a span as another boot."""
    STORE_AWAY = "store_away"
    """Every write to the store fails for a span: ``detail`` says how (busy, full, read-only, torn: written in half and
    taken back by the database)."""
    SAVE_FAILS = "save_fails"
    """From the ``number``-th save on the store takes no write for a span: in the middle of an exchange, too."""
    CLOCK = "clock"
    """Wall time is set by ``number`` seconds."""
    SUSPEND = "suspend"
    """The machine sleeps for a span."""
    TARGET_AWAY = "target_away"
    """The target of ``grant`` cannot be written for a span."""
    VANDAL = "vandal"
    """Somebody deletes (``number`` 0) or overwrites (1) what stands at the target of ``grant``."""
    SECOND = "second"
    """A second daemon is started on the same state; it must refuse."""
    COPY = "copy"
    """A second daemon runs on a copy of the state for a span."""
    CHANGED_PASSWORD = "changed_password"  # noqa: S105 (none)
    """The provider's password of ``grant`` is changed, and rotator's after a span."""
    WRONG_SECRET = "wrong_secret"  # noqa: S105 (none)
    """The password that rotator has for ``grant`` is wrong for a span."""
    UNREADABLE = "unreadable"
    """The secrets of ``grant`` cannot be read for a span."""
    REVOKED = "revoked"
    """The owner of ``grant`` revokes all its tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfortune:
    """One thing that goes wrong, ``at`` so long after the story began."""

    at: timedelta
    what: What
    span: timedelta = timedelta(0)
    number: float = 0
    detail: str = ""
    grant: str = ""

    @property
    def words(self) -> str:
        lasts = f" for {self.span}" if self.span else ""
        told = {
            What.SLOW: f"each way takes up to {self.number:.0f} s",
            What.STORM: f"every request is answered {self.number:.0f}",
            What.MISHAP: f"the next {self.number:.0f} request(s): {self.detail}",
            What.CRASH: f"killed at crash point {self.number:.0f} from here, down",
            What.STORE_AWAY: f"the store takes no write ({self.detail})",
            What.SAVE_FAILS: f"from the {self.number:.0f}. save on the store takes no write",
            What.CLOCK: f"wall time is set by {self.number / 3600:+.2f} h",
            What.VANDAL: "the target is overwritten" if self.number else "the target is deleted",
        }.get(self.what, self.what.value.replace("_", " "))
        return f"{told}{lasts}{f' ({self.grant})' if self.grant else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One story: how many grants, how long, at which kind of provider, and what goes wrong.

    ``script`` None: the seed decides. A quiet story has an empty one. ``lifetime`` is that of an access token.
    """

    seed: int
    grants: int = 3
    span: timedelta = 10 * HOUR
    policy: ledger.Reuse = ledger.Reuse.FOS
    script: tuple[Misfortune, ...] | None = None
    budget: Budget = field(default_factory=lambda: Budget(window=4 * HOUR))
    lifetime: timedelta = HOUR

    @property
    def misfortunes(self) -> tuple[Misfortune, ...]:
        return script(self) if self.script is None else self.script


def script(plan: Plan) -> tuple[Misfortune, ...]:
    """What goes wrong in the story of this seed: some six things, alone and together."""
    dice = world.SeededDice(plan.seed * 2 + 1)
    names = names_of(plan)

    def some(things: list[str]) -> str:
        return things[int(dice.chance() * len(things))]

    told = []
    at = timedelta(0)
    while (at := at + 3 * HOUR * dice.chance() ** 2) < plan.span:
        what = What(some(list(What)))
        # Mostly minutes, sometimes hours: what lasts no longer than a token does must not be seen by a reader.
        span = 4 * HOUR * dice.chance() ** 4
        told.append(_detailed(what, at, span, some, names, dice.chance))
    return tuple(told)


def _detailed(
    what: What, at: timedelta, span: timedelta, some: Callable[[list[str]], str], names: list[str],
    chance: Callable[[], float],
) -> Misfortune:  # fmt: skip
    grant = some(names)
    match what:
        case What.SLOW:
            return Misfortune(at=at, what=what, span=span, number=240 * chance() ** 3)
        case What.STORM:
            return Misfortune(at=at, what=what, span=span, number=float(some(["429", "500", "502", "503"])))
        case What.MISHAP:
            return Misfortune(at=at, what=what, number=1 + int(3 * chance()), detail=some(list(Mishap)))
        case What.CRASH:
            return Misfortune(at=at, what=what, span=span * (chance() < 0.3), number=1 + int(24 * chance()))
        case What.STORE_AWAY:
            return Misfortune(at=at, what=what, span=span, detail=some(["busy", "full", "read-only", "torn"]))
        case What.SAVE_FAILS:
            return Misfortune(at=at, what=what, span=span, number=1 + int(6 * chance()))
        case What.CLOCK:
            return Misfortune(at=at, what=what, number=round(86400 * (2 * chance() - 1)))
        case What.SUSPEND:
            return Misfortune(at=at, what=what, span=span + DAY * (chance() < 0.1))
        case What.VANDAL:
            return Misfortune(at=at, what=what, number=int(2 * chance()), grant=grant)
        case What.TARGET_AWAY | What.CHANGED_PASSWORD | What.WRONG_SECRET | What.UNREADABLE:
            return Misfortune(at=at, what=what, span=span, grant=grant)
        case What.REVOKED:
            return Misfortune(at=at, what=what, grant=grant)
        case What.SECOND:
            return Misfortune(at=at, what=what)
    return Misfortune(at=at, what=what, span=span)


def names_of(plan: Plan) -> list[str]:
    return [f"g{number}" for number in range(plan.grants)]


def stories(seeds: range) -> list[Plan]:
    """One plan for each seed: the provider's kind, the number of grants and the length go round."""
    kinds = list(ledger.Reuse)
    return [
        Plan(seed=seed, policy=kinds[seed % len(kinds)], grants=1 + seed % 3, span=(6 + seed % 7) * HOUR)
        for seed in seeds
    ]


# --- a story as a file ----------------------------------------------------------------------------------------------


def write(plan: Plan, reason: str) -> str:
    """The story as TOML, so that it outlives every change of the dice. Times are seconds."""
    lines = [
        f"reason = {_quoted(reason)}", f"seed = {plan.seed}", f'policy = "{plan.policy.value}"',
        f"grants = {plan.grants}", f"span = {plan.span.total_seconds()}",
    ]  # fmt: skip
    for one in plan.misfortunes:
        lines += ["", "[[misfortunes]]", f"at = {one.at.total_seconds()}", f'what = "{one.what.value}"']
        lines += [f"span = {one.span.total_seconds()}"] if one.span else []
        lines += [f"number = {float(one.number)}"] if one.number else []
        lines += [f"{key} = {_quoted(getattr(one, key))}" for key in ("detail", "grant") if getattr(one, key)]
    return "\n".join(lines) + "\n"


def read(text: str) -> Plan:
    """The story of a file that `write` wrote, or that a person did."""
    told = tomllib.loads(text)
    misfortunes = []
    for one in told.get("misfortunes", []):
        given = {name.name: one[name.name] for name in fields(Misfortune) if name.name in one}
        given |= {key: timedelta(seconds=given[key]) for key in ("at", "span") if key in given}
        misfortunes.append(Misfortune(**{**given, "what": What(one["what"])}))
    return Plan(
        seed=told["seed"], policy=ledger.Reuse(told["policy"]), grants=told["grants"],
        span=timedelta(seconds=told["span"]), script=tuple(misfortunes),
    )  # fmt: skip


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'
