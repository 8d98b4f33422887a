"""What happened: every event has a stable dotted name, a level and a sentence, and never a secret."""

from __future__ import annotations

import dataclasses
import re
from datetime import datetime, timedelta
from typing import Any

import build
import pytest
from build import DAY, HOUR, MINUTE, NOON, SECOND

from rotator.core import events
from rotator.core.events import Event, Level

ABSTRACT = {"Event", "GrantEvent", "TargetEvent", "ExchangeEnded", "TargetSettled"}
EVENTS = [
    kind
    for kind in vars(events).values()
    if isinstance(kind, type) and issubclass(kind, Event) and kind.__name__ not in ABSTRACT
]

SAMPLES: dict[str, Any] = {
    "int": 3,
    "str": "a word",
    "bool": False,
    "timedelta": HOUR,
    "datetime": NOON + HOUR,
    "datetime | None": NOON + HOUR,
    "timedelta | None": HOUR / 60,
    "str | None": "a word",
    "tuple[str, ...]": ("billing", "crm"),
}


def sample(kind: type[Event], **changes: Any) -> Event:
    values = {field.name: SAMPLES[str(field.type)] for field in dataclasses.fields(kind)}
    return kind(**{**values, "at": NOON, **changes})


def test_names_are_unique_and_dotted() -> None:
    told = [kind.name for kind in EVENTS]
    assert len(told) == len(set(told)) > 20
    assert all(re.fullmatch(r"[a-z]+\.[a-z_]+", name) for name in told)


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.name)
def test_every_event_has_a_level_and_a_sentence_that_shows_its_words(kind: type[Event]) -> None:
    event = sample(kind)
    assert isinstance(event.level, Level)
    assert event.sentence
    assert "\n" not in event.sentence
    if isinstance(event, events.GrantEvent):
        assert event.sentence.startswith("a word: ")
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.at = NOON  # type: ignore[misc]


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.name)
def test_an_event_is_what_it_was_made_of(kind: type[Event]) -> None:
    event, again, later = sample(kind), sample(kind), sample(kind, at=NOON + HOUR)
    assert event == again and hash(event) == hash(again) and event != later and event != NOON
    assert dataclasses.replace(later, at=NOON) == event
    with pytest.raises(dataclasses.FrozenInstanceError):
        del event.at
    with pytest.raises(TypeError):
        kind()
    with pytest.raises(TypeError):
        sample(kind, password="hidden")


def test_what_is_not_said_is_as_it_was_declared() -> None:
    said = events.ClockJumped(at=NOON, by=HOUR, slept=False)
    assert events.ClockJumped(at=NOON, by=HOUR) == said and hash(events.ClockJumped(at=NOON, by=HOUR)) == hash(said)


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.name)
def test_no_event_can_carry_a_secret(kind: type[Event]) -> None:
    assert {str(field.type) for field in dataclasses.fields(kind)} <= set(SAMPLES)


def test_an_event_that_says_nothing_is_a_defect() -> None:
    with pytest.raises(NotImplementedError):
        _ = Event(at=NOON).sentence


def test_graver_levels_have_the_smaller_numbers_of_syslog() -> None:
    assert [level.value for level in Level] == [2, 3, 4, 5, 6, 7]
    assert events.Latched.level < events.ChainLost.level < events.ExchangeFailed.level < events.Rotated.level


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (sample(events.Started, grants=1), "with 1 grant"),
        (sample(events.Started, grants=2), "with 2 grants"),
        (sample(events.Stopping, in_flight=0), "stopping"),
        (sample(events.Stopping, in_flight=2), "2 exchange(s) in flight are saved first"),
        (sample(events.Reloaded, added=(), changed=(), removed=()), "nothing changed"),
        (sample(events.Reloaded, changed=(), removed=()), "added billing, crm"),
        (sample(events.ExchangeStarted, attempt=1), "exchange of generation 3 started"),
        (sample(events.ExchangeStarted, attempt=2), "attempt 2"),
        (sample(events.Rotated, due_at=None), "next rotation when a person acts"),
        (sample(events.Rotated, due_at=NOON + 45 * MINUTE), "next rotation in 45m"),
        (sample(events.ExchangeFailed, valid_until=NOON), "no valid token is published"),
        (sample(events.ExchangeFailed, valid_until=None), "no valid token is published"),
        (sample(events.ExchangeFailed, valid_until=NOON + HOUR), "the published token holds for 60m"),
        (sample(events.ExchangeFailed, next_at=None), "tried again when a person acts"),
        (sample(events.ExchangeFailed, mend="turn it off and on"), "turn it off and on"),
        (sample(events.Latched, mend=""), "no further exchange: a word"),
        (sample(events.BudgetSpent), "in 60m, or at once by `rotator rotate --force a word`"),
    ],
)
def test_sentences(event: Event, says: str) -> None:
    assert says in event.sentence
    assert not event.sentence.endswith(("; ", ": "))


@pytest.mark.parametrize(
    ("span", "said"),
    [
        (-HOUR, "0s"), (timedelta(0), "0s"), (SECOND / 2, "0s"), (89 * SECOND, "89s"), (90 * SECOND, "1m"),
        (89 * MINUTE, "89m"), (90 * MINUTE, "1h30m"), (47 * HOUR + 5 * MINUTE, "47h05m"), (2 * DAY, "2d"),
        (400 * DAY, "400d"),
    ],
)  # fmt: skip
def test_brief(span: timedelta, said: str) -> None:
    assert events.brief(span) == said


def test_the_clock_says_how_far_it_is_behind() -> None:
    assert "1h30m behind" in events.ClockBehind(at=NOON, high_water=NOON + 90 * MINUTE).sentence
    assert "set back by 1h30m" in events.ClockJumped(at=NOON, by=-90 * MINUTE).sentence
    assert "set forward by 1h30m" in events.ClockJumped(at=NOON, by=90 * MINUTE).sentence
    assert "slept for 1h30m" in events.ClockJumped(at=NOON, by=90 * MINUTE, slept=True).sentence
    assert isinstance(NOON, datetime)
    assert build.CANARY not in repr(SAMPLES)
