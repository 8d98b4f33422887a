"""What every table of the configuration is."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Part(BaseModel):
    """A table. Errors of pydantic would quote sibling secrets, hence ``hide_input_in_errors`` on every model."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)


TABLE: Any = Field(default_factory=dict, validate_default=True)
"""The default of a table that need not be written: an empty one. Its class is not called for that, for it would first
build a validator of its own, where the configuration's has all of them: 7 ms of every start for a dozen."""
