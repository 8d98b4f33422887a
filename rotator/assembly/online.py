"""`rotator check --online`: asks everything that the configuration names whether it is there, and spends nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from rotator.assembly import roster, states
from rotator.assembly.plan import Plan
from rotator.core import lean
from rotator.core.errors import Misconfigured, Refused, RotatorError, Unavailable
from rotator.core.ports import HttpRequest
from rotator.drivers import clock
from rotator.drivers.secrets import NoCredentials
from rotator.settings import Target

if TYPE_CHECKING:
    from rotator.drivers.vault.rights import Right

LIMIT = timedelta(seconds=10)
LARGEST = 64 << 10


@lean.dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; ``error`` None where all is well. ``asked``: False where it could not even be tried from
    here, which is neither good nor bad."""

    what: str
    told: str
    error: RotatorError | None = None
    asked: bool = True


# Told what one of those that were asked has answered, how many have, and how many there are.
Heard = Callable[[list[Finding], int, int], None]


async def check(plan: Plan, heard: Heard = lambda found, done, of: None) -> list[Finding]:
    """Every check of a ``plan`` that was read with its own checks, all at once, in the order of the configuration;
    ``heard`` is told of each as it is known. Raises nothing for what it finds."""
    system_clock = clock.SystemClock()

    async def no_key() -> bytes:
        return b""

    enrolled = roster.ConfiguredRoster(plan, system_clock, no_key)
    try:
        asked: list[Awaitable[list[Finding]]] = [
            _asked(f"provider {name}", _provider(enrolled, name, plan)) for name in _used_providers(plan)
        ]
        asked += [_postgres(plan, system_clock)] if plan.settings.state.url.startswith("postgresql:") else []
        asked += [_vault(name, plan, system_clock) for name in plan.settings.vault]
        asked += [_asked(key, _webhook(enrolled, key, target)) for key, target in _webhooks(plan)]
        # Reading the configuration has looked at these, or it would have raised.
        files = [Finding(key, "its folder can be written") for key, _ in roster.files_of(plan)]
        heard(files, 0, len(asked))
        done = 0

        async def told(asking: Awaitable[list[Finding]]) -> list[Finding]:
            nonlocal done
            found = await asking
            done += 1
            heard(found, done, len(asked))
            return found

        answered = await asyncio.gather(*map(told, asked))
        return [finding for findings in answered for finding in findings] + files
    finally:
        await enrolled.close()


def worst(findings: list[Finding]) -> int:
    """The exit code: what a person must mend before what only waits, 0 where all is well."""
    codes = {one.error.exit_code for one in findings if one.error is not None}
    order = (Misconfigured.exit_code, Refused.exit_code, Unavailable.exit_code)
    return next((code for code in order if code in codes), max(codes, default=0))


def _used_providers(plan: Plan) -> list[str]:
    return sorted({grant.provider for grant in plan.settings.grants.values()})


async def _asked(what: str, asking: Awaitable[str]) -> list[Finding]:
    try:
        return [Finding(what, await asking)]
    except RotatorError as error:
        return [_failed(what, error)]


def _failed(what: str, error: RotatorError) -> Finding:
    """Who looks from outside the service has none of its credentials: nothing is wrong with them."""
    if isinstance(error, NoCredentials):
        return Finding(what, f"not asked: credentials are given to the service only ({error.key})", asked=False)
    return Finding(what, error.what, error)


async def _provider(enrolled: roster.ConfiguredRoster, name: str, plan: Plan) -> str:
    """A request without credentials: that the endpoint takes no HEAD is an answer like any other."""
    provider = plan.settings.providers[name]
    request = HttpRequest("HEAD", provider.token_url, (("accept", "application/json"),))
    answer = await enrolled.client(provider).send(request, deadline=min(LIMIT, provider.deadline), limit=LARGEST)
    if answer.status is None:
        kind = Misconfigured if answer.failure in ("certificate", "proxy") else Unavailable
        raise kind(
            f"the token endpoint does not answer: {answer.detail}",
            mend=f"look at providers.{name}.token_url, ca_file and proxy, and at the way there",
        )
    if answer.status >= 500:
        raise Unavailable(f"the token endpoint answers HTTP {answer.status}", mend="ask the provider, or wait")
    return f"the token endpoint answers ({'TLS, ' if provider.token_url.startswith('https:') else ''}nothing was spent)"


def _webhooks(plan: Plan) -> list[tuple[str, Target]]:
    return [
        (f"grants.{name}.targets.{target}", one)
        for name, grant in plan.settings.grants.items()
        for target, one in grant.targets.items()
        if one.webhook is not None
    ]


async def _webhook(enrolled: roster.ConfiguredRoster, key: str, target: Target) -> str:
    answer = await enrolled.knock(target, LIMIT)
    if answer.failure is not None:
        kind = Misconfigured if answer.failure == "certificate" else Unavailable
        raise kind(
            f"the webhook is not there: {answer.detail}",
            mend=f"look at {key}.webhook and ca_file, and at the way there",
        )
    return "the receiver is there (nothing was sent)"


async def _postgres(plan: Plan, system_clock: clock.SystemClock) -> list[Finding]:
    """Opened for reading, so that nothing is made; a state that is not there yet is an answer like any other."""
    what = "state"
    try:
        store = states.store(plan, system_clock, clock.SystemDice(), read_only=True)
        from rotator.drivers.postgres import NoState

        try:
            await store.open()
            told = f"{states.described(plan)} answers; {len(await store.grants())} grant(s) stored"
        except NoState:
            told = f"{states.described(plan)} answers; nothing is stored there yet"
        finally:
            await store.close()
    except RotatorError as error:
        return [_failed(what, error)]
    return [Finding(what, told)]


async def _vault(name: str, plan: Plan, system_clock: clock.SystemClock) -> list[Finding]:
    from rotator.assembly import policies, vaults
    from rotator.drivers.vault import rights

    what, needed = f"vault {name}", policies.daemon(plan, name)
    way = vaults.of(name, plan, system_clock)
    try:
        missing = {one.path: one for one in await rights.ask_lacking(way, needed, LIMIT)}
    except RotatorError as error:
        return [_failed(what, error)]
    finally:
        await way.close()
    findings = [Finding(what, "logged in")]
    for one in needed:
        lack = missing.get(one.path)
        if lack is None:
            findings.append(Finding(what, f"{one.path}: {_words(one)}"))
        else:
            told = f"{one.path}: {_words(lack)} not allowed"
            findings.append(Finding(what, told, Refused(told, mend=f"add to the policy: {rights.line(one)}")))
    return findings


def _words(right: Right) -> str:
    from rotator.drivers.vault import rights

    return ", ".join(one for one in rights.ORDER if one in right.capabilities)
