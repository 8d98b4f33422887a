"""How a key is read: by functions of ours, and by them alone.

pydantic's own PlainValidator and PlainSerializer would make a schema of the type behind them first, twice for each key,
and look at what the functions take and give: half of the time that the models took at every start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from rotator.core import lean


@lean.dataclass(frozen=True, slots=True)
class By:
    """``read`` makes the value of what is written, or raises ValueError; ``show`` makes something like what is written
    of the value, which else is shown as it is."""

    read: Callable[[Any], object]
    show: Callable[[Any], object] | None = None

    def __get_pydantic_core_schema__(self, kind: object, of: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read, serialization=_written(self.show))


@lean.dataclass(frozen=True, slots=True)
class Then:
    """As `By`, once pydantic has found the type to be right."""

    read: Callable[[Any], object]
    show: Callable[[Any], object] | None = None

    def __get_pydantic_core_schema__(self, kind: object, of: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.read, of(kind), serialization=_written(self.show))


def _written(show: Callable[[Any], object] | None) -> core_schema.SerSchema | None:
    return None if show is None else core_schema.plain_serializer_function_ser_schema(show)
