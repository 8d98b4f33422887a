"""What closes records at rest, as every store sees it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from rotator.core.errors import Misconfigured


class Seal(Protocol):
    """See `rotator.drivers.seal.Seal`."""

    async def prepare(self, records: Iterable[str], *, anew: bool = False) -> None: ...

    def close(self, record: str, about: str) -> str: ...

    def open(self, record: str, about: str) -> str: ...


class Unsealed:
    """Records as they are. What was sealed is not taken for damage."""

    async def prepare(self, records: Iterable[str], *, anew: bool = False) -> None:
        pass

    def close(self, record: str, about: str) -> str:
        return record

    def open(self, record: str, about: str) -> str:
        if record.startswith('{"sealed":'):
            raise Misconfigured("the state is sealed", mend="set state.seal to the key that sealed it")
        return record
