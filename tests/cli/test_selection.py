"""Which grants of a snapshot are shown, in which order, and whose exit code it is."""

from __future__ import annotations

from typing import Any

import pytest

from rotator.cli import selection
from rotator.cli.selection import Wish
from rotator.core.errors import BadUsage
from rotator.core.health import State


def grant(state: str = "fresh", published: bool = True, expires_in: float | None = 60.0) -> dict[str, Any]:
    return {"state": state, "published": published, "expires_in": expires_in}


GRANTS = {
    "c_late": grant(expires_in=5.0),
    "a_well": grant(),
    "b_behind": grant(published=False),
    "d_latched": grant("latched", published=False),
    "e_retrying": grant("retrying"),
    "f_empty": grant("no token yet", published=False, expires_in=None),
}


def names(wish: Wish) -> list[str]:
    return [name for name, _ in selection.pick({"grants": GRANTS}, wish).rows]


@pytest.mark.parametrize(
    ("wish", "shown"),
    [
        (Wish(), ["a_well", "b_behind", "c_late", "d_latched", "e_retrying", "f_empty"]),
        (Wish(names=["c_late", "a_*"]), ["a_well", "c_late"]),
        (Wish(names=["?_e*", "d_latched"]), ["d_latched", "f_empty"]),
        (Wish(states=["no-token-yet", "Latched"]), ["d_latched", "f_empty"]),
        (Wish(states=["expired"]), []),
        (Wish(limit=2), ["a_well", "b_behind"]),
        (Wish(worst_first=True), ["d_latched", "f_empty", "e_retrying", "b_behind", "c_late", "a_well"]),
        (Wish(worst_first=True, limit=1), ["d_latched"]),
    ],
)
def test_what_is_shown(wish: Wish, shown: list[str]) -> None:
    selection.check(wish)
    assert names(wish) == shown


def test_where_there_is_no_room_for_all_the_worst_are_shown() -> None:
    def shown(most: int, **wish: Any) -> list[str]:
        return [name for name, _ in selection.pick({"grants": GRANTS}, Wish(**wish), most).rows]

    assert shown(2) == ["d_latched", "f_empty"]
    assert shown(6) == shown(100) == sorted(GRANTS)
    assert shown(4, limit=2) == ["a_well", "b_behind"], "who says how many has said which"


def test_a_state_of_a_newer_daemon_stands_first() -> None:
    grants = {**GRANTS, "z": grant("on fire")}
    assert selection.pick({"grants": grants}, Wish(worst_first=True)).rows[0][0] == "z"


def test_the_verdict_is_of_all_that_are_named_shown_or_not() -> None:
    assert not selection.pick({"grants": GRANTS}, Wish()).well
    assert not selection.pick({"grants": GRANTS}, Wish(limit=1)).well
    assert not selection.pick({"grants": GRANTS}, Wish(states=["fresh"])).well
    assert selection.pick({"grants": GRANTS}, Wish(names=["a_well", "e_*"])).well
    assert selection.pick({"grants": {}}, Wish()).well


def test_what_is_left_out_is_counted() -> None:
    document = {"grants": GRANTS, "at": "x"}
    assert selection.narrowed(document, selection.pick(document, Wish())) == document
    narrow = selection.narrowed(document, selection.pick(document, Wish(names=["a_well"])))
    assert narrow == {"grants": {"a_well": GRANTS["a_well"]}, "at": "x", "left_out": 5}


@pytest.mark.parametrize(("wish", "told"), [(Wish(states=["odd"]), "no state"), (Wish(limit=0), "--limit")])
def test_a_wish_that_cannot_be_is_refused(wish: Wish, told: str) -> None:
    with pytest.raises(BadUsage, match=told):
        selection.check(wish)


def test_of_thousands_of_grants_only_some_are_named_to_who_mistypes_one() -> None:
    many = {f"g{number:04}": grant() for number in range(5000)}
    with pytest.raises(BadUsage) as caught:
        selection.pick({"grants": many}, Wish(names=["nobody"]))
    assert caught.value.mend.endswith("g0009 and 4990 more")


def test_every_state_has_a_rank_and_a_style() -> None:
    from rotator.cli import drawing

    assert set(selection.RANKS) == set(drawing.STYLES) == {state.value for state in State}
