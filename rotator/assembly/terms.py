"""The terms on which a grant is rotated: what the core must know of it and of its provider, as they are configured."""

from __future__ import annotations

from datetime import timedelta

from rotator import settings
from rotator.core.policy import Budget, Rules
from rotator.core.pressure import Limits
from rotator.settings import Grant, Provider


def of_grant(provider: Provider, grant: Grant) -> Rules:
    """What the lifecycle must know of a grant, as its provider and it are configured."""
    return plain(provider, grant.budget, password=has_password(grant))


def has_password(grant: Grant) -> bool:
    return grant.password is not None and grant.username is not None


def plain(provider: Provider, budget: settings.Budget, *, password: bool) -> Rules:
    return Rules(
        rotate_at=provider.rotate_at,
        jitter=provider.jitter,
        spacing=provider.spacing,
        deadline=provider.deadline,
        reuse=provider.reuse,
        grace=provider.grace,
        resend_after=min(timedelta(seconds=2), provider.grace / 4) if provider.grace else timedelta(seconds=2),
        default_lifetime=provider.default_lifetime,
        longest_lifetime=provider.longest_lifetime,
        refresh_lifetime=provider.refresh_lifetime,
        budget=Budget(limit=budget.limit, window=budget.window, apart=budget.apart),
        password=password,
    )


def limits(provider: Provider) -> Limits:
    return Limits(in_flight=provider.limits.in_flight, per_second=provider.limits.per_second)
