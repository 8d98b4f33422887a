"""Leases of other daemons as they were seen. Two machines have no clock in common, and the server's may be set or be
another one after a failover: so a lease of another machine has run out once its claim was seen unchanged for as long as
it was taken for, by our own boot-time clock. That is never sooner than by its owner's, who took it before we saw it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from rotator.core import lean, records
from rotator.core.policy import Moment

NOTHING = timedelta(0)


@lean.dataclass(frozen=True, slots=True)
class Claim:
    """A lease as it is stored; ``until`` counts on the boot-time clock of ``boot_id``."""

    owner: str
    fence: int
    span: timedelta
    boot_id: str
    until: timedelta


def read(owner: str, fence: int, span: int, boot_id: str, until: int) -> Claim:
    return Claim(owner, fence, span * records.MICROSECOND, boot_id, until * records.MICROSECOND)


class Sights:
    """Since when each claim of somebody else was seen."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Claim, Moment]] = {}

    def all(self, found: Iterable[tuple[str, Claim]], moment: Moment) -> None:
        """These are all that there are now."""
        before, self._seen = self._seen, {}
        for name, claim in found:
            seen = before.get(name)
            self._seen[name] = seen if seen is not None and _same(seen, claim, moment) else (claim, moment)

    def left(self, name: str, claim: Claim, moment: Moment) -> timedelta:
        """How long nobody else may begin what this claim allows its owner; nothing once it has run out."""
        if claim.boot_id == moment.boot_id:
            return max(claim.until - moment.boottime, NOTHING)
        seen = self._seen.get(name)
        if seen is None or not _same(seen, claim, moment):
            seen = self._seen[name] = claim, moment
        return max(claim.span - (moment.boottime - seen[1].boottime), NOTHING)

    def ran_out(self, name: str, moment: Moment) -> Claim | None:
        """The claim that is known to have run out, if any."""
        seen = self._seen.get(name)
        return None if seen is None or self.left(name, seen[0], moment) > NOTHING else seen[0]

    def note(self, name: str, claim: Claim, moment: Moment) -> None:
        self.left(name, claim, moment)
        if claim.boot_id == moment.boot_id:
            self._seen[name] = claim, moment

    def forget(self, name: str) -> None:
        self._seen.pop(name, None)

    def clear(self) -> None:
        self._seen.clear()


def _same(seen: tuple[Claim, Moment], claim: Claim, moment: Moment) -> bool:
    return seen[0] == claim and seen[1].boot_id == moment.boot_id
