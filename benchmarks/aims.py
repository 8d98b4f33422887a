"""How a row of the table tells of its aim."""

from __future__ import annotations


def told(words: str, met: bool) -> str:
    return f"{words}: {'met' if met else 'missed'}"
