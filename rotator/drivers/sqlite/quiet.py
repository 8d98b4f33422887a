"""What is known of due times between two writes, and of when what was delivered expires: a daemon at rest wakes no
thread to hear that nothing has changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(slots=True)
class Quiet:
    """Made anew with every write that is handed in, and filled by what is read after it; a reading that was on its way
    fills the one that it was asked under, which nobody looks at any more.

    Nothing is due up to ``nothing_until``; ``looked`` is (after, the first due time later than that). ``expires`` is
    the same for what was delivered, where nothing of it had expired."""

    nothing_until: datetime | None = None
    looked: tuple[datetime, datetime | None] | None = None
    expires: tuple[datetime, datetime | None] | None = None

    def has_none_expired(self, now: datetime) -> bool:
        """Whether it is known that nothing that was delivered has expired."""
        if self.expires is None:
            return False
        since, next_at = self.expires
        return now <= since or next_at is None or now < next_at

    def next_after(self, after: datetime) -> tuple[bool, datetime | None]:
        """Whether it is known, and the first due time later than ``after``."""
        if self.looked is None:
            return False, None
        since, next_at = self.looked
        return since <= after and (next_at is None or after < next_at), next_at

    def is_nothing_due(self, now: datetime) -> bool:
        """Whether it is known that nothing is due."""
        if self.nothing_until is None:
            return False
        if now <= self.nothing_until:
            return True
        known, next_at = self.next_after(self.nothing_until)
        return known and (next_at is None or now < next_at)
