"""The benchmarks are run by hand: that they still fit the house is looked at here."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import benchmarks

NAMES = sorted(one.name for one in pkgutil.iter_modules(benchmarks.__path__))


@pytest.mark.parametrize("name", NAMES)
def test_it_is_made_of_what_there_is(name: str) -> None:
    importlib.import_module(f"benchmarks.{name}")
