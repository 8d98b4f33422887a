"""Frozen dataclasses that cost a start little: making a hundred of the usual ones was a fifth of it.

They are what `dataclasses` says but for two things. Comparing, hashing and printing is a function for all of them,
where each of the usual ones has code of its own, written and compiled when it is imported. And that they never change
is what mypy holds: at run time nothing stands in the way, and so each new one is cheaper, too.
"""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, frozen: bool, slots: bool, **others: bool):
        """As `dataclasses.dataclass`, of what is frozen and has slots."""

        def make(kind: type) -> type:
            made = dataclasses.dataclass(slots=slots, eq=False, repr=False, **others)(kind)
            compared = [field.name for field in dataclasses.fields(made) if field.compare]
            made.__eq__, made.__hash__ = _comparing(attrgetter(*compared) if compared else type)
            made.__repr__ = _shown
            return made

        return make


def _comparing(held: Any) -> tuple[Any, Any]:
    def __eq__(self: object, other: object) -> bool:  # noqa: N807
        return held(self) == held(other) if type(self) is type(other) else NotImplemented

    def __hash__(self: object) -> int:  # noqa: N807
        return hash(held(self))

    return __eq__, __hash__


def _shown(self: Any) -> str:
    held = (f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self) if field.repr)
    return f"{type(self).__qualname__}({', '.join(held)})"
