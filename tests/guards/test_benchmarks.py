"""The benchmarks are run by hand: that they still fit the house is looked at here."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import benchmarks
from benchmarks import growth

NAMES = sorted(one.name for one in pkgutil.iter_modules(benchmarks.__path__))


@pytest.mark.parametrize("name", NAMES)
def test_it_is_made_of_what_there_is(name: str) -> None:
    importlib.import_module(f"benchmarks.{name}")


def test_growth_is_told_with_its_exponent() -> None:
    shown = growth.row("memory over grants", {10_000: 50.0, 1_000: 40.0, 100_000: 500.0}, "MB")
    assert shown == (
        "growth: memory over grants, 1,000 → 10,000 → 100,000", "40 → 50 → 500 MB; exponent +0.10, +1.00", "–"
    )  # fmt: skip
