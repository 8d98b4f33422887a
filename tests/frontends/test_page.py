"""What the page is made of: what it remembers, which grants it shows, how a day is drawn, what an open page is sent."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from xml.etree import ElementTree

import pytest

from rotator.core import events
from rotator.core.health import GrantHealth, State
from rotator.frontends.http import board, page, rows
from rotator.frontends.http.board import Wish
from rotator.frontends.http.history import History, What
from rotator.frontends.http.stream import Seen
from tests.frontends.test_http import FRESH, HOUR, LATCHED, NOON, Shown, serving, whole

MINUTE = timedelta(minutes=1)


def rotated(at: timedelta, grant: str = "billing") -> events.Rotated:
    now = NOON + at
    return events.Rotated(
        at=now, grant=grant, kind="refresh_token", generation=1, expires_at=now + HOUR, due_at=now + HOUR / 2
    )


def failed(at: timedelta, grant: str = "billing") -> events.ExchangeFailed:
    return events.ExchangeFailed(
        at=NOON + at, grant=grant, kind="password", cls="busy", reason="", mend="", next_at=None, valid_until=None
    )


# --- memory -----------------------------------------------------------------------------------------------------


def test_it_remembers_a_day_and_says_since_when() -> None:
    made = History(NOON - 30 * HOUR)
    for hour in range(-30, 1):
        made(rotated(hour * HOUR))
    assert len(made.marks("billing", NOON)) == 25
    assert made.since(NOON) == NOON - 24 * HOUR
    assert History(NOON - HOUR).since(NOON) == NOON - HOUR


def test_its_memory_has_a_hard_bound_and_it_says_what_it_forgot() -> None:
    made = History(NOON, bound=100, bound_of_one=10)
    for number in range(1000):
        made(rotated(number * timedelta(seconds=1), f"grant_{number % 50}"))
    now = NOON + timedelta(seconds=1000)
    kept = [mark for number in range(50) for mark in made.marks(f"grant_{number}", now)]
    assert len(kept) == 100
    assert made.since(now) == NOON + timedelta(seconds=899)
    assert min(mark.at for mark in kept) > made.since(now)
    # One that fails without end takes nothing from the others but its own share.
    loud = History(NOON, bound=100, bound_of_one=10)
    loud(rotated(timedelta(0), "quiet"))
    for second in range(50):
        loud(failed(timedelta(seconds=second), "loud"))
    assert (len(loud.marks("loud", now)), len(loud.marks("quiet", now))) == (10, 1)


def test_it_rings_for_who_watches_and_forgets_who_is_retired() -> None:
    made, heard = History(NOON), list[int]()
    ring = lambda: heard.append(1)  # noqa: E731
    made.join(ring)
    made(rotated(MINUTE))
    made(events.Warned(at=NOON, text="whatever"))
    assert (len(heard), made.serial("billing"), made.serial("nobody")) == (2, 1, 0)
    made.leave(ring)
    made(events.Retired(at=NOON, grant="billing"))
    assert (len(heard), made.marks("billing", NOON), made.serial("billing")) == (2, [], 0)


# --- which grants -----------------------------------------------------------------------------------------------


def test_what_is_wrong_stands_first_and_the_rest_by_name_over_all_pages() -> None:
    grants = [replace(FRESH, name=f"g{number:03}") for number in range(120)]
    grants[70] = replace(LATCHED, name="g070")
    grants[90] = replace(FRESH, name="g090", state=State.LATCHED, reason="latched")
    grants[10] = replace(FRESH, name="g010", reason="target app is full")
    found = [one.name for number in (1, 2, 3) for one in board.choose(grants, Wish(page=number)).grants]
    assert found[:3] == ["g070", "g090", "g010"]
    assert found[3:] == sorted(set(found) - set(found[:3])) and len(found) == 120
    assert board.choose(grants, Wish(page=99)).page == 3
    assert [one.name for one in board.choose(grants, Wish(state=board.ATTENTION)).grants] == found[:3]
    assert [one.name for one in board.choose(grants, Wish(query="07", state="latched")).grants] == ["g070"]
    assert board.choose(grants, Wish(query="omni")).found == 120
    assert board.choose((), Wish()).pages == 1


@pytest.mark.parametrize(
    ("query", "wish"),
    [
        ({}, Wish()),
        ({"q": " Bill ", "state": "latched", "page": "3"}, Wish("bill", "latched", 3)),
        ({"state": "<script>", "page": "-1"}, Wish()),
        ({"page": "0"}, Wish()),
        ({"page": "9" * 9}, Wish()),
        ({"page": "³"}, Wish()),
        ({"q": "x" * 1000}, Wish("x" * 100)),
    ],
)
def test_a_wish_that_makes_no_sense_counts_as_not_said(query: dict[str, str], wish: Wish) -> None:
    assert Wish.read(query) == wish


# --- drawing ----------------------------------------------------------------------------------------------------


def test_a_day_is_told_in_words_as_well() -> None:
    made = History(NOON - 3 * HOUR)
    for at in (-150 * MINUTE, -105 * MINUTE):
        made(rotated(at))
    for at in (-60 * MINUTE, -50 * MINUTE):
        made(failed(at))
    made(rotated(-30 * MINUTE))
    marks = made.marks("billing", NOON)
    assert rows.told(FRESH, marks, made.since(NOON), NOON) == (
        "since 2026-03-01 09:00:00Z: 3 rotations, 2 failed exchanges, no valid token for 15m"
    )
    drawn = ElementTree.fromstring(rows.day(FRESH, marks, made.since(NOON), NOON))
    kinds = [one.get("class") for one in drawn]
    assert kinds == ["unknown", "axis", "outage", "gap", What.ROTATED.value, What.FAILED.value]
    assert {(one.get("x"), one.get("width")) for one in drawn if one.get("class") == "outage"} == {("1380", "30")}


@pytest.mark.parametrize(
    "grant",
    [
        FRESH, LATCHED,
        replace(FRESH, issued_at=None, expires_at=None, state=State.EMPTY, last_outcome="", targets=()),
        replace(FRESH, state=State.EXPIRED, expires_at=NOON - HOUR, unready="the store holds no valid token"),
        replace(FRESH, passwords_limit=None, passwords_left=None, due_at=NOON),
    ],
)  # fmt: skip
def test_every_row_is_well_formed(grant: GrantHealth) -> None:
    made = History(NOON - HOUR)
    html = page.row(grant, made, whole(grant))
    ElementTree.fromstring(html)
    assert html.count("<td") + html.count("<th") == 8 + bool(grant.reason)


# --- an open page -----------------------------------------------------------------------------------------------


def test_an_open_page_is_sent_what_changed_and_nothing_else() -> None:
    made, seen = History(NOON), Seen(Wish())
    first = seen.look(whole(FRESH, LATCHED), made)
    assert (first["order"], sorted(first["rows"])) == (["crm", "billing"], ["billing", "crm"])  # type: ignore[call-overload]
    assert seen.look(whole(FRESH, LATCHED), made) == {}
    again = replace(FRESH, generation=8)
    told = seen.look(whole(again, LATCHED), made)
    assert sorted(told["rows"]) == ["billing"] and "order" not in told and "verdict" not in told  # type: ignore[call-overload]
    gone = seen.look(whole(again), made)
    assert (gone["order"], gone["title"], gone.get("rows")) == (["billing"], "rotator", None)
    assert json.loads(json.dumps(gone)) == gone


def test_streams_are_bounded_and_end_with_the_server() -> None:
    with serving(Shown()) as ask:
        held = [ask.connection() for _ in range(32)]
        for one in held:
            one.request("GET", "/events")
            assert one.getresponse().readline() == b"retry: 2000\n"
        assert ask("/events").status == 503
        assert ask("/livez").status == 200
        assert ask("/events", "HEAD").status == 503
    for one in held:
        one.close()
