"""Hooks on this machine: a command, or a signal to a process of the same user."""

from __future__ import annotations

from datetime import datetime

from rotator.core.errors import Misconfigured
from rotator.core.publication import Publication, Settled
from rotator.drivers.processes.command import CommandHook
from rotator.drivers.processes.signals import SignalHook

__all__ = ["CommandHook", "Forgotten", "SignalHook"]


class Forgotten:
    """A hook that nobody configures any more: there is nothing to take away. See `ports.Publisher`."""

    local = False
    judged_by_mark = True

    def __init__(self, location: str) -> None:
        self.location = location

    async def settle(self, wanted: Publication, now: datetime) -> Settled:
        raise Misconfigured(f"{self.location} is not configured any more")

    async def remove(self, mark: str) -> bool:
        """What was told cannot be taken back."""
        return False
