"""What the engine works with."""

from __future__ import annotations

from rotator.core import lean
from rotator.core.ports import Clock, Dice, Store
from rotator.engine.bus import Bus


@lean.dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What the engine works with, handed from the daemon to every part of it."""

    clock: Clock
    dice: Dice
    store: Store
    bus: Bus
    owner: str
    key: bytes
