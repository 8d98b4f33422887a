"""Lean dataclasses are dataclasses: the same to compare, to hash, to show and to replace."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import field

import pytest

from rotator.core import lean


@lean.dataclass(frozen=True, slots=True)
class Place:
    name: str
    number: int = 1
    key: str = field(default="", repr=False)
    found: list[int] = field(default_factory=list, compare=False)


@lean.dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """Holds nothing."""


@lean.dataclass(frozen=True, slots=True)
class Elsewhere:
    name: str
    number: int = 1


def test_what_holds_the_same_is_the_same() -> None:
    assert Place("a", 2) == Place("a", 2)
    assert hash(Place("a", 2, found=[1])) == hash(Place("a", 2, found=[2]))
    assert Place("a", 2, found=[1]) == Place("a", 2, found=[2])
    assert Place("a") != Place("b")
    assert Place("a", key="k") != Place("a")
    assert len({Place("a"), Place("a"), Place("b")}) == 2
    assert Nothing() == Nothing() and len({Nothing(), Nothing()}) == 1


def test_another_kind_is_another() -> None:
    assert Place("a") != Elsewhere("a")
    assert Elsewhere("a") != ("a", 1)


def test_it_shows_what_may_be_shown() -> None:
    assert repr(Place("a", key="k")) == "Place(name='a', number=1, found=[])"
    assert repr(Nothing()) == "Nothing()"


def test_it_is_replaced_copied_and_taken_apart_as_any_dataclass() -> None:
    assert dataclasses.replace(Place("a"), number=3) == Place("a", 3)
    assert copy.copy(Place("a", 3)) == Place("a", 3)
    assert dataclasses.asdict(Elsewhere("a")) == {"name": "a", "number": 1}
    match Elsewhere("a", 4):
        case Elsewhere(name, number):
            assert (name, number) == ("a", 4)


def test_it_has_slots_and_takes_only_what_it_knows() -> None:
    with pytest.raises(AttributeError):
        Place("a").other = 1  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        Place()  # type: ignore[call-arg]
