"""Hooks as they are configured."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path

from rotator.assembly.plan import Plan
from rotator.assembly.references import of
from rotator.core.ports import Http, Publisher
from rotator.core.tokens import Secret
from rotator.drivers.processes import CommandHook, SignalHook
from rotator.drivers.secrets import Reference
from rotator.settings import Target

Client = Callable[[Path | None], Http]
Read = Callable[[Reference], Awaitable[Secret]]


def process(plan: Plan, grant: str, name: str, target: Target) -> CommandHook | SignalHook:
    """A hook on this machine."""
    if target.command is not None:
        return CommandHook(grant, name, target.command, timeout=target.patience, environ=plan.environ)
    assert target.signal is not None  # noqa: S101 (the caller has looked)
    return SignalHook(grant, name, target.signal.pid_file, target.signal.name)


def webhook(
    grant: str, name: str, target: Target, *, client: Client, locations: Mapping[str, str],
    key: Callable[[], Awaitable[bytes]], read: Read,
) -> Publisher:  # fmt: skip
    """``locations`` is where the token stands, by target."""
    from rotator.drivers.webhook import Webhook

    assert target.webhook is not None  # noqa: S101 (the caller has looked)
    signing = None
    if target.signing_key is not None:
        reference = of(target.signing_key, f"grants.{grant}.targets.{name}.signing_key")
        signing = _reader(read, reference)
    return Webhook(
        grant, name, target.webhook, client(target.ca_file), source=f"//{os.uname().nodename}/rotator",
        locations=locations, key=key, signing_key=signing, timeout=target.patience,
    )  # fmt: skip


def _reader(read: Read, reference: Reference) -> Callable[[], Awaitable[Secret]]:
    return lambda: read(reference)


def commands(plan: Plan) -> Iterator[tuple[str, CommandHook]]:
    """Every command with its key."""
    for grant, one in plan.settings.grants.items():
        for name, target in one.targets.items():
            if target.command is not None:
                made = process(plan, grant, name, target)
                assert isinstance(made, CommandHook)  # noqa: S101 (it has a command)
                yield f"grants.{grant}.targets.{name}.command", made
