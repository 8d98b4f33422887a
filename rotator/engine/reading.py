"""Entries of the register, read so that one that cannot be read keeps no other out."""

from __future__ import annotations

from collections.abc import Collection

from rotator.core.errors import Misconfigured
from rotator.core.ports import Entry, Register


async def entries(register: Register, names: Collection[str]) -> tuple[list[Entry], dict[str, Misconfigured]]:
    """The entries of these names, and by name why one cannot be read. Raises what is no fault of an entry."""
    try:
        return list(await register.entries(names)), {}
    except Misconfigured as error:
        some = sorted(names)
        if len(some) == 1:
            return [], {some[0]: error}
    # By halves: one among a hundred is found by a dozen questions.
    found, unreadable = await entries(register, some[: len(some) // 2])
    more, others = await entries(register, some[len(some) // 2 :])
    return [*found, *more], {**unreadable, **others}


async def standing(register: Register, names: Collection[str]) -> set[str]:
    """Those of these that stand in it, also where what stands there cannot be read."""
    found, unreadable = await entries(register, names)
    return {entry.name for entry in found} | unreadable.keys()
