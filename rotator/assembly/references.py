"""Secret references of the configuration, as what reads them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from rotator.assembly.plan import Plan
from rotator.core.tokens import Secret
from rotator.drivers import secrets
from rotator.drivers.secrets import Reference
from rotator.settings import SecretReference

Read = Callable[[], Awaitable[Secret]]


def of(shape: SecretReference, key: str) -> Reference:
    """``key`` is the dotted key of the configuration, for messages."""
    return Reference(shape.kind, Secret(shape.value.get_secret_value()), key)


def reader(plan: Plan, reference: Reference) -> Read:
    """Reads it anew each time, on a thread."""
    return lambda: secrets.fetch(reference, plan.environ)
