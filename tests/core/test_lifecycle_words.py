"""What is told names the plan that is then followed: a person reads it at night."""

from __future__ import annotations

import build
import pytest
from build import HOUR, MINUTE, NOON, Story, names

from rotator.core import events
from rotator.core.grants import Grant, Kind
from rotator.core.policy import Rules

DUE = build.fresh(due_at=NOON)


@pytest.mark.parametrize(
    ("rules", "plan", "kind"),
    [
        (build.FORGIVING, "the resend follows in 2s", Kind.REFRESH),
        (build.STRICT, "the budgeted password exchange follows in 30m", Kind.PASSWORD),
        (build.STRICT_ALONE, "the resend follows in 60m", Kind.REFRESH),
    ],
)
def test_a_doubt_tells_what_follows_and_when(rules: Rules, plan: str, kind: Kind) -> None:
    story = Story(DUE, rules)
    story.exchange(build.DOUBTFUL)
    (raised,) = (event for event in story.told if isinstance(event, events.DoubtRaised))
    assert raised.plan == plan
    assert story.exchange(build.granted()).kind is kind


@pytest.mark.parametrize(
    ("grant", "rules", "plan"),
    [
        (DUE, build.FORGIVING, "next: password exchange"),
        (
            build.fresh(due_at=NOON, previous_refresh=build.secret("refresh-0")), build.FORGIVING,
            "the token before it is tried once",
        ),
        (DUE, build.FORGIVING_ALONE, "run `rotator authorize billing`"),
    ],
)  # fmt: skip
def test_a_lost_chain_tells_what_follows(grant: Grant, rules: Rules, plan: str) -> None:
    story = Story(grant, rules)
    story.exchange(build.DEAD)
    lost = story.told[-1]
    assert isinstance(lost, events.ChainLost)
    assert lost.plan == plan


def test_that_a_person_is_needed_is_told_once_with_the_command_to_type() -> None:
    story = Story(DUE, build.FORGIVING_ALONE)
    story.exchange(build.DEAD)
    for _ in range(3):
        story.look(HOUR, asked=True)
    assert names(story.told).count("grant.person_needed") == 1
    assert "rotator authorize billing" in story.told[-1].sentence
    assert story.grant.trouble is not None
    assert "authorize billing" in story.grant.trouble.mend


def test_a_failure_tells_when_it_is_tried_again_and_what_readers_have() -> None:
    story = Story(build.fresh(), build.FORGIVING, 45 * MINUTE)
    story.exchange(build.BUSY)
    assert story.told[-1].sentence.endswith("tried again in 60s, the published token holds for 15m")


@pytest.mark.parametrize(
    ("grant", "why"),
    [
        (build.fresh(refresh=None), "the refresh token is dead and no password is configured"),
        (build.empty(), "no token yet and no password is configured"),
    ],
)
def test_why_nothing_happens_is_said_to_who_asked(grant: Grant, why: str) -> None:
    assert build.rests(Story(grant, build.FORGIVING_ALONE, MINUTE).look(asked=True)).why == why


def test_a_latch_says_why_to_who_asked() -> None:
    held = build.fresh(due_at=None, latch=build.latch())
    assert (
        build.rests(Story(held, build.FORGIVING).look(asked=True)).why == "latched: the provider refused the password"
    )
