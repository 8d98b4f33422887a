"""The refresh token nears its end: told once, by whatever looks at the grant first."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from rotator.core import events
from rotator.core.grants import Grant
from rotator.core.policy import Rules

NEAR = timedelta(days=3)
TOLD = "the refresh token nears its end"


def noted(grant: Grant, now: datetime, rules: Rules) -> tuple[Grant, tuple[events.Event, ...]]:
    """The grant that remembers that it was told, and the event; both as they were where there is nothing to tell.

    While rotation goes on it never comes so far, as every exchange renews the token. What is latched, or fails for
    days, comes there, and is then about to need more than it needed before: a login, or a person's authorize.
    """
    if grant.refresh is None or grant.refreshed_at is None or rules.refresh_lifetime is None or TOLD in grant.remarks:
        return grant, ()
    ends_at = grant.refreshed_at + rules.refresh_lifetime
    if now < ends_at - min(NEAR, rules.refresh_lifetime / 4):
        return grant, ()
    told = events.RefreshTokenEnding(at=now, grant=grant.name, ends_at=ends_at)
    return replace(grant, remarks=(*grant.remarks, TOLD)), (told,)


def renewed(grant: Grant, now: datetime) -> Grant:
    """The same grant with a refresh token that has its whole life before it."""
    return replace(grant, refreshed_at=now, remarks=tuple(one for one in grant.remarks if one != TOLD))
