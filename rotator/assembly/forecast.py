"""A fleet to simulate, as it is configured. Reads no secret and opens nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from rotator.assembly.plan import Plan
from rotator.core.errors import BadUsage

if TYPE_CHECKING:
    from rotator.lab.fleet.scenario import Sort

USUAL_PROVIDER = "omnifund"
USUAL_GRANTS = 100


def fleet(plan: Plan, *, provider: str | None, grants: int | None, lifetime: timedelta | None) -> tuple[Sort, ...]:
    """The configured grants, or ``grants`` of them in their proportions; with ``provider`` only those of that one.

    Where none is configured, plain grants of ``provider`` with a password. Access tokens live for ``lifetime``, else
    for the provider's ``default_lifetime``. Raises BadUsage for a provider that nobody knows."""
    from rotator.assembly import terms
    from rotator.core.policy import Rules
    from rotator.lab.fleet import scenario
    from rotator.settings import Budget

    known = plan.settings.providers
    if provider is not None and provider not in known:
        raise BadUsage(f"there is no provider {provider!r}", mend=f"it is one of: {', '.join(sorted(known))}")

    def sort(name: str, named: str, rules: Rules, count: int) -> Sort:
        lives = min(lifetime or known[named].default_lifetime, known[named].longest_lifetime)
        limits = terms.limits(known[named])
        return scenario.Sort(name=name, provider=named, rules=rules, limits=limits, lifetime=lives, count=count)

    sorts = [
        sort(name, grant.provider, terms.of_grant(known[grant.provider], grant), 1)
        for name, grant in plan.settings.grants.items()
        if provider in (None, grant.provider)
    ]
    if sorts:
        return scenario.spread(sorts, grants or len(sorts))
    named = provider or USUAL_PROVIDER
    return (sort("grant", named, terms.plain(known[named], Budget(), password=True), grants or USUAL_GRANTS),)
