"""The provider's stored tokens, and what a spent refresh token costs: one policy per family of providers."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from enum import StrEnum

# Intuit changes the value of a refresh token once in 24 to 26 hours and answers the same one in between.
STICKY_SECONDS = 86400


class Reuse(StrEnum):
    """What happens to a refresh token once it was used, and to whoever presents it again."""

    FOS = "fos"
    """Deleted; a second use is refused and nothing else happens."""
    GRACE_SAME_PAIR = "grace_same_pair"
    """django-oauth-toolkit: within the grace the pair already issued comes back; later it is refused."""
    GRACE_NEW_PAIR = "grace_new_pair"
    """Auth0, Okta: within the grace the token before the newest gives a new pair; later the family is revoked."""
    FAMILY_REVOKE = "family_revoke"
    """A second use revokes the whole family, access tokens included."""
    UNTIL_NEW_USED = "until_new_used"
    """Doorkeeper: works until the new access token or the new refresh token was used once."""
    NEVER_REVOKED = "never_revoked"
    """Entra: a new one comes each time, the old one stays good."""
    STICKY_VALUE = "sticky_value"
    """Intuit: the same value comes back for a day."""
    NO_RT_IN_REFRESH = "no_rt_in_refresh"
    """Google: a refresh answers no refresh token, the old one stays good."""


class Verdict(StrEnum):
    """What a presented refresh token is worth."""

    UNKNOWN = "unknown"
    DEAD = "dead"
    EXPIRED = "expired"
    USABLE = "usable"
    SAME_PAIR = "same pair"


@dataclass(slots=True, eq=False)
class Refresh:
    """A stored refresh token. ``access`` is the value of the access token stored with it."""

    value: str = field(repr=False)
    client: str
    user: str | None
    scope: str | None
    expires_at: float
    family: int
    access: str = field(repr=False)
    minted_at: float
    parent: Refresh | None = field(default=None, repr=False)
    children: list[Refresh] = field(default_factory=list, repr=False)
    spent_at: float | None = None
    revoked: bool = False
    closed: bool = False


@dataclass(slots=True, eq=False)
class Access:
    """A stored access token. ``parent`` is the refresh token that was spent for it."""

    value: str = field(repr=False)
    client: str
    user: str | None
    scope: str | None
    expires_at: float
    family: int
    parent: Refresh | None = field(default=None, repr=False)


class Ledger:
    """Stored tokens by their value, and the families they descend in (one per password exchange or code)."""

    def __init__(self) -> None:
        self.access: dict[str, Access] = {}
        self.refresh: dict[str, Refresh] = {}
        self._families = itertools.count(1)

    def new_family(self) -> int:
        return next(self._families)

    def judge(self, row: Refresh | None, client: str, now: float, reuse: Reuse, grace_seconds: float) -> Verdict:
        """What ``row`` is worth to ``client``; a reuse that looks like theft revokes the family here and now."""
        if row is None or row.client != client:
            return Verdict.UNKNOWN
        if row.revoked:
            return Verdict.DEAD
        if row.spent_at is not None and not self._reusable(row, now, reuse, grace_seconds):
            if reuse in (Reuse.FAMILY_REVOKE, Reuse.GRACE_NEW_PAIR):
                self.revoke_family(row.family)
            return Verdict.DEAD
        if row.spent_at is not None and reuse is Reuse.GRACE_SAME_PAIR:
            return Verdict.SAME_PAIR
        # Still valid during the second of its expiry: the provider compares whole seconds, and with `>`.
        return Verdict.EXPIRED if int(now) > int(row.expires_at) else Verdict.USABLE

    def spend(self, row: Refresh, now: float) -> None:
        """Mark ``row`` as used; whatever it was minted from can no longer be the token before the newest."""
        if row.spent_at is None:
            row.spent_at = now
        if row.parent is not None:
            row.parent.closed = True
            # Cut, so that a long chain of generations is not kept alive by its newest end.
            row.parent = None

    def used(self, access: Access) -> None:
        """Note the first use of an access token at the resource."""
        if access.parent is not None:
            access.parent.closed = True
            access.parent = None

    def revoke_family(self, family: int) -> None:
        for row in self.refresh.values():
            row.revoked = row.revoked or row.family == family
        self.access = {value: row for value, row in self.access.items() if row.family != family}

    def is_newest(self, row: Refresh) -> bool:
        return row.spent_at is None and not row.revoked

    def purge(self, now: float) -> None:
        """Drop what is past its expiry, like the provider's clean-up job: "expired" then becomes "invalid"."""
        self.access = {value: row for value, row in self.access.items() if int(now) <= int(row.expires_at)}
        self.refresh = {value: row for value, row in self.refresh.items() if int(now) <= int(row.expires_at)}

    def _reusable(self, row: Refresh, now: float, reuse: Reuse, grace_seconds: float) -> bool:
        assert row.spent_at is not None  # noqa: S101 (narrowing for the type checker)
        match reuse:
            case Reuse.NEVER_REVOKED:
                return True
            case Reuse.UNTIL_NEW_USED:
                return not row.closed
            case Reuse.GRACE_SAME_PAIR | Reuse.GRACE_NEW_PAIR:
                # Only the token before the newest: one whose own successor was spent is out, whatever the grace.
                return not row.closed and bool(row.children) and now - row.spent_at < grace_seconds
            case _:
                return False
