"""Answers without a daemon: from the stored state, read-only, and from the provider's login."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from rotator.assembly import states
from rotator.assembly.plan import Plan
from rotator.assembly.roster import ConfiguredRoster
from rotator.core import health, lifecycle
from rotator.core.errors import BadUsage, Misconfigured, Transient
from rotator.core.ports import HttpRequest, Store
from rotator.drivers import clock

NOT_RUNNING = "the daemon does not run; this is what it left"
LOGIN_LIMIT = 64 << 10


def _store(plan: Plan, system_clock: clock.SystemClock) -> Store:
    return states.store(plan, system_clock, clock.SystemDice(), read_only=True)


async def stored_health(plan: Plan) -> dict[str, Any]:
    """The snapshot as far as the stored state tells it."""
    system_clock = clock.SystemClock()
    now = system_clock.now()
    store = _store(plan, system_clock)
    await store.open()
    try:
        grants = {grant.name: grant for grant in await store.grants()}
        delivered = {(one.grant, one.target): one for one in await store.deliveries()}
        roster = ConfiguredRoster(plan, system_clock, store.key)
    finally:
        await store.close()
    shown = []
    for name, enrolment in sorted(roster.enrolments().items()):
        grant = grants.get(name) or lifecycle.enrol(name, "", "", now)
        targets = []
        for target, publisher in enrolment.targets.items():
            one = delivered.get((name, target))
            good = one is not None and one.location == publisher.location and one.lineage == grant.lineage
            generation = one.generation if one is not None and good else None
            hook, required = publisher.judged_by_mark, enrolment.is_required(target)
            targets.append(health.TargetHealth(target, publisher.location, generation, required=required, hook=hook))
        budget = enrolment.rules.budget if enrolment.rules.password else None
        shown.append(health.examine(grant, enrolment.provider, budget, targets, now))
    return {**health.document(health.Health(now, tuple(shown))), "note": NOT_RUNNING}


async def stored_token(plan: Plan, name: str) -> dict[str, Any]:
    """The stored access token of a grant. Raises Transient where none is valid."""
    if name not in plan.settings.grants:
        known = ", ".join(sorted(plan.settings.grants)) or "none is configured"
        raise BadUsage(f"no grant is named {name!r}", mend=f"known grants: {known}")
    system_clock = clock.SystemClock()
    store = _store(plan, system_clock)
    await store.open()
    try:
        grant = await store.grant(name)
    finally:
        await store.close()
    if grant is None:
        raise Transient(f"{name}: no token yet", mend="start the daemon, or run `rotator authorize`")
    return health.token(grant, system_clock.now())


async def login(plan: Plan, name: str, token: dict[str, Any]) -> dict[str, Any]:
    """Token Login: POST with ``Authorization: Bearer`` to the provider's ``login_url``; what came back, in words."""
    grant = plan.settings.grants.get(name)
    if grant is None:
        raise BadUsage(f"no grant is named {name!r}")
    provider = plan.settings.providers[grant.provider]
    if provider.login_url is None:
        raise Misconfigured(
            f"providers.{grant.provider}.login_url is not set", mend="the provider's support knows its Token Login URL"
        )
    system_clock = clock.SystemClock()

    async def no_key() -> bytes:
        return b""

    roster = ConfiguredRoster(plan, system_clock, no_key)
    request = HttpRequest(
        "POST",
        provider.login_url,
        (("authorization", f"{token['token_type']} {token['access_token']}"), ("accept", "application/json")),
    )
    try:
        answer = await roster.client(provider).send(
            request, deadline=min(provider.deadline, timedelta(seconds=30)), limit=LOGIN_LIMIT
        )
    finally:
        await roster.close()
    accepted = answer.status is not None and 200 <= answer.status < 300
    generation = token["generation"]
    if answer.status is None:
        message = f"no answer from {grant.provider}: {answer.detail}"
    elif accepted:
        message = f"generation {generation} is accepted (HTTP {answer.status})"
    else:
        message = f"generation {generation} is refused (HTTP {answer.status}); the refresh token is not touched"
    return {"grant": name, "status": answer.status, "accepted": accepted, "message": message}
