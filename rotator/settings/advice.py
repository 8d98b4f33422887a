"""What works but has a better way."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

from rotator.core.policy import Reuse
from rotator.settings import checks, sharing
from rotator.settings.models import Settings
from rotator.settings.problems import Problem
from rotator.settings.values import written


def warnings(settings: Settings) -> Iterator[Problem]:
    """One for each key that has a better value."""
    for path, reference in checks.references(settings):
        if reference.kind == "literal":
            name = f"{path[1]}.{path[-1]}"
            yield Problem(
                path,
                "is written out where others may read it; "
                f'better: {path[-1]} = {{ credential = "{name}" }} or {{ file = "/run/secrets/{name}" }}',
            )
    for path, target in sharing.targets(settings):
        if target.webhook is not None and target.signing_key is None:
            yield Problem((*path, "signing_key"), "is missing: the receiver cannot tell who sends; better: sign it")
        if target.place is not None and target.file_mode & 0o004:
            yield Problem((*path, "mode"), 'lets everybody on this machine read the token; better: "0640" and a group')
    address = settings.http.address
    if address is not None and not address.is_local and settings.http.token is None:
        yield Problem(
            ("http", "address"),
            "shows names, times and places of all grants to whoever reaches it; better: http.token, or an address of "
            "this machine alone",
        )
    yield from _too_slow(settings)
    for name, provider in settings.providers.items():
        if provider.token_url.startswith("http:") and not checks.is_loopback(provider.token_url):
            yield Problem(("providers", name, "token_url"), "is not encrypted: credentials and tokens travel in clear")
        if provider.reuse is Reuse.KILLS_FAMILY and timedelta(0) < provider.grace <= provider.deadline:
            yield Problem(
                ("providers", name, "grace"),
                f"is over when an answer that never comes is given up at providers.{name}.deadline, so the one "
                "forgiven resend comes too late; make deadline shorter than grace",
            )
    for name, vault in settings.vault.items():
        if vault.address.startswith("http:") and not checks.is_loopback(vault.address):
            yield Problem(("vault", name, "address"), "is not encrypted: tokens travel in clear text")


def _too_slow(settings: Settings) -> Iterator[Problem]:
    """A rate that keeps up with its grants, but could not catch up within a lifetime after an outage."""
    counts = Counter(grant.provider for grant in settings.grants.values())
    for name, provider in settings.providers.items():
        least = 2 * counts[name] / (provider.default_lifetime.total_seconds() * provider.rotate_at)
        if provider.limits.per_second < least:
            lifetime, better = written(provider.default_lifetime), math.ceil(least * 10) / 10
            yield Problem(
                ("providers", name, "limits", "per_second"),
                f"is slow for {counts[name]} grants with tokens of {lifetime}: after an outage they expire before "
                f"their turn; better: {better:g} or more, if it is allowed",
            )
