"""The verdict: one word, one reason, and whether a valid token is published, as every page and probe shows it."""

from __future__ import annotations

import json
from dataclasses import replace

import build
import pytest
from build import DAY, HOUR, MINUTE, NOON
from hypothesis import given
from hypothesis import strategies as st

from rotator.core import health
from rotator.core.errors import Transient
from rotator.core.grants import Grant, OutcomeClass
from rotator.core.health import GrantHealth, Health, Startup, State, TargetHealth
from rotator.core.policy import Budget

DEAD = build.trouble(OutcomeClass.REFRESH_DEAD)
HERE = TargetHealth("app", "/run/rotator/token", 1)
AWAY = replace(HERE, generation=None)


def seen(grant: Grant, *targets: TargetHealth, at: build.timedelta = MINUTE) -> GrantHealth:
    return health.examine(grant, "omnifund", Budget(), targets or (HERE,), NOON + at)


@pytest.mark.parametrize(
    ("grant", "at", "state", "reason"),
    [
        (build.fresh(), MINUTE, State.FRESH, ""),
        (build.fresh(trouble=build.trouble()), MINUTE, State.RETRYING, "not sent: no route"),
        (build.fresh(unproven=True), MINUTE, State.RETRYING, "nobody knows whether the token is still valid"),
        (build.fresh(doubt=build.doubt()), MINUTE, State.DOUBT, "the answer was lost"),
        (build.fresh(), HOUR, State.EXPIRED, "expired; the exchange is on its way"),
        (build.fresh(doubt=build.doubt(), trouble=build.trouble()), HOUR, State.EXPIRED, "no route"),
        (build.empty(), MINUTE, State.EMPTY, "the first exchange is on its way"),
        (build.empty(trouble=DEAD), MINUTE, State.EMPTY, "no route"),
        (build.fresh(due_at=None), MINUTE, State.PERSON_NEEDED, "waits for a person"),
        (build.fresh(due_at=None, trouble=DEAD), 2 * HOUR, State.PERSON_NEEDED, "no route"),
        (build.fresh(due_at=None, latch=build.latch(), doubt=build.doubt()), 2 * HOUR, State.LATCHED,
         "the provider refused the password, latched since 2026-03-01 12:00:00Z; change it"),
    ],
)  # fmt: skip
def test_one_word_and_why(grant: Grant, at: build.timedelta, state: State, reason: str) -> None:
    one = seen(grant, at=at)
    assert one.state is state
    assert reason in one.reason
    assert bool(one.reason) is (state is not State.FRESH)


def test_a_reason_ends_with_the_mending_step() -> None:
    mended = replace(DEAD, mend="run `rotator authorize billing`")
    assert seen(build.fresh(due_at=None, trouble=mended)).reason == "no route; run `rotator authorize billing`"


@pytest.mark.parametrize(
    ("grant", "targets", "at", "published"),
    [
        (build.fresh(), (HERE,), MINUTE, True),
        (build.fresh(), (HERE, replace(HERE, name="cluster")), MINUTE, True),
        (build.fresh(trouble=build.trouble()), (HERE,), MINUTE, True),
        (build.fresh(due_at=None, latch=build.latch()), (HERE,), MINUTE, True),
        (build.fresh(), (HERE, AWAY), MINUTE, False),
        (build.fresh(), (replace(HERE, trouble="the disk is full"),), MINUTE, False),
        (build.fresh(), (HERE,), HOUR, False),
        (build.fresh(unproven=True), (HERE,), MINUTE, False),
        (build.empty(), (AWAY,), MINUTE, False),
    ],
)
def test_published_means_a_valid_token_in_every_target(
    grant: Grant, targets: tuple[TargetHealth, ...], at: build.timedelta, published: bool
) -> None:
    assert seen(grant, *targets, at=at).published is published


def test_a_token_kept_through_a_partial_answer_is_still_published() -> None:
    assert seen(build.fresh(generation=2)).published, "the target holds the generation of the access token"


def test_a_target_that_is_behind_is_the_reason() -> None:
    assert seen(build.fresh(), AWAY).reason == "target app is not written yet"
    assert seen(build.fresh(), replace(HERE, trouble="is full")).reason == "target app is full"


def test_passwords_left_are_shown_where_there_is_a_password() -> None:
    held = build.fresh(debits=(NOON, NOON - 2 * DAY))
    assert seen(held).passwords_left == 2
    assert health.examine(held, "omnifund", None, (), NOON).passwords_left is None


# --- readiness --------------------------------------------------------------------------------------------------


def ready(grant: Grant, *targets: TargetHealth, at: build.timedelta = MINUTE, was_short: bool = False) -> GrantHealth:
    return health.examine(grant, "omnifund", Budget(), targets or (HERE,), NOON + at, was_short=was_short)


@pytest.mark.parametrize(
    ("grant", "targets", "at", "unready"),
    [
        (build.fresh(), (HERE,), MINUTE, ""),
        (build.fresh(), (), MINUTE, ""),
        (build.fresh(trouble=build.trouble()), (HERE,), 59 * MINUTE, ""),
        (build.fresh(due_at=None, latch=build.latch()), (HERE,), MINUTE, ""),
        (build.fresh(generation=2, access=build.access(2)), (replace(HERE, generation=None, valid_until=NOON + HOUR),),
         MINUTE, ""),
        (build.fresh(), (HERE, replace(AWAY, name="extra", required=False)), MINUTE, ""),
        (build.fresh(), (HERE, replace(AWAY, name="two")), MINUTE, "target two holds no valid token"),
        (build.fresh(), (AWAY, replace(AWAY, name="two")), MINUTE, "target app and target two hold no valid token"),
        (build.fresh(), (replace(HERE, trouble="is full"),), MINUTE, "target app holds no valid token; target app"),
        (build.fresh(), (replace(HERE, trouble="the Vault is away", valid_until=NOON + HOUR),), MINUTE, ""),
        (build.fresh(), (HERE,), HOUR, "target app holds no valid token; expired; the exchange is on its way"),
        (build.fresh(unproven=True), (HERE,), MINUTE, "target app holds no valid token; nobody knows"),
        (build.empty(), (AWAY,), MINUTE, "target app holds no valid token; the first exchange is on its way"),
        (build.empty(), (), MINUTE, "the store holds no valid token"),
    ],
)  # fmt: skip
def test_ready_means_that_every_required_target_holds_a_valid_token(
    grant: Grant, targets: tuple[TargetHealth, ...], at: build.timedelta, unready: str
) -> None:
    one = health.examine(grant, "omnifund", Budget(), targets, NOON + at)
    assert one.unready.startswith(unready) and one.ready is (not unready), one.unready


def test_a_target_that_is_not_required_holds_up_nothing_and_is_told_all_the_same() -> None:
    one = ready(build.fresh(), HERE, replace(AWAY, name="extra", required=False))
    assert (one.published, one.decided, one.ready) == (True, True, True)
    assert one.reason == "target extra is not written yet"


def test_readiness_has_two_thresholds_on_what_is_left() -> None:
    second = build.SECOND
    assert ready(build.fresh(), at=HOUR - 31 * second).ready
    short = ready(build.fresh(), at=HOUR - 30 * second)
    assert (short.unready, short.short) == ("its token holds for 30s only, 30s are wanted", True)
    assert not ready(build.fresh(), at=HOUR - 100 * second, was_short=True).ready
    back = ready(build.fresh(), at=HOUR - 121 * second, was_short=True)
    assert (back.ready, back.short) == (True, False)
    # None on “no valid token”: the next valid one, long enough, is ready at once.
    assert ready(build.empty(), AWAY, was_short=True).short
    assert ready(build.fresh(), was_short=True).ready


def test_tokens_that_live_for_a_minute_have_thresholds_of_their_own() -> None:
    brief = build.fresh(access=build.access(lifetime=MINUTE))
    second = build.SECOND
    assert ready(brief, at=53 * second).ready
    assert not ready(brief, at=54 * second).ready
    assert not ready(brief, at=48 * second, was_short=True).ready
    assert ready(brief, at=47 * second, was_short=True).ready


@given(
    at=st.timedeltas(-HOUR, 30 * HOUR),
    later=st.timedeltas(build.ZERO, 30 * HOUR),
    rests=st.timedeltas(-HOUR, 2 * DAY),
    lifetime=st.timedeltas(MINUTE, DAY),
    held=st.one_of(st.none(), st.timedeltas(-HOUR, DAY)),
    was_short=st.booleans(),
)
def test_a_judgement_stands_until_it_says(
    at: build.timedelta, later: build.timedelta, rests: build.timedelta, lifetime: build.timedelta,
    held: build.timedelta | None, was_short: bool,
) -> None:  # fmt: skip
    """What is kept instead of being judged anew is what would be judged, in everything that is no duration in words."""
    grant = build.fresh(access=build.access(lifetime=lifetime), due_at=NOON + rests, debits=(NOON, NOON - 7 * HOUR))
    other = replace(AWAY, name="two", valid_until=None if held is None else NOON + held)
    kept = ready(grant, HERE, other, at=at, was_short=was_short)
    now = NOON + at + later
    if kept.stands_until is not None and now >= kept.stands_until:
        return
    anew = ready(grant, HERE, other, at=at + later, was_short=kept.short)
    for key in ("state", "published", "ready", "rests", "short", "passwords_left", "decided"):
        assert getattr(anew, key) == getattr(kept, key), key


def test_a_pulse_beats_for_as_long_as_it_may_be_quiet() -> None:
    beats = health.Pulse(NOON, 30 * build.SECOND, 30 * build.SECOND)
    assert (beats.beats, beats.reason) == (True, "")
    late = replace(beats, quiet=31 * build.SECOND)
    assert late.reason == "the last sweep ended 31s ago (2026-03-01T12:00:00Z); 30s are allowed"
    assert (Health(NOON, (), beats).alive, Health(NOON, (), late).alive, Health(NOON, ()).alive) == (True, False, False)


def test_probes_ask_what_they_are_named_for() -> None:
    bad = replace(LATCHED, unready="target app holds no valid token")
    late = health.Pulse(NOON, HOUR, MINUTE)
    snapshot = Health(NOON, (FRESH, bad), late, started=False)
    told = {question.value: health.probes.answer(snapshot, question) for question in health.probes.Question}
    assert [one.line for one in told["readyz"][1]] == ["[+]billing ok", f"[-]crm failed: {bad.unready}"]
    assert told["livez"][1][0].line.startswith("[-]loop failed: the last sweep ended 60m ago")
    assert told["startupz"][1][0].line.startswith("[-]start failed: 1/2 grants published")
    for question, (passed, _) in zip(health.probes.Question, told.values(), strict=True):
        assert passed is health.probes.passes(snapshot, question) is False
    ready_one = health.probes.Question.READY
    assert health.probes.answer(snapshot, ready_one, exclude=("crm",))[0]
    assert health.probes.answer(snapshot, ready_one, only="crm")[0] is False
    assert health.probes.answer(snapshot, ready_one, only="nobody") == (True, [])
    well = Health(NOON, (FRESH,), replace(late, quiet=MINUTE), started=True)
    assert all(health.probes.passes(well, question) for question in health.probes.Question)
    assert [one.line for one in health.probes.checks(Health(NOON, ()), health.probes.Question.LIVE)] == [
        "[-]loop failed: the daemon does not run"
    ]


# --- the whole --------------------------------------------------------------------------------------------------

FRESH = seen(build.fresh())
LATCHED = seen(build.empty(name="crm", due_at=None, latch=build.latch()), AWAY)
WAITING = seen(build.empty(name="mail"), AWAY)


def whole(*grants: GrantHealth) -> Health:
    return Health(NOON + MINUTE, grants)


@pytest.mark.parametrize(
    ("grants", "require", "settled"),
    [
        ((), Startup.ALL, True),
        ((FRESH, LATCHED), Startup.ALL, True),
        ((FRESH, WAITING), Startup.ALL, False),
        ((FRESH, WAITING), Startup.ANY, True),
        ((WAITING, WAITING), Startup.ANY, False),
        ((LATCHED,), Startup.ANY, True),
        ((WAITING,), Startup.NONE, True),
    ],
)
def test_ready_when_every_grant_is_published_or_decided(
    grants: tuple[GrantHealth, ...], require: Startup, settled: bool
) -> None:
    assert whole(*grants).settled(require) is settled


@pytest.mark.parametrize(("waits", "decided"), [(MINUTE, False), (6 * MINUTE, False), (15 * MINUTE, True), (DAY, True)])
def test_a_start_is_not_held_up_by_a_grant_for_which_nothing_is_tried_for_long(
    waits: build.timedelta, decided: bool
) -> None:
    """A spent budget is a matter of a day; a supervisor that waits for it kills and starts us for ever."""
    assert seen(build.empty(due_at=NOON + MINUTE + waits)).decided is decided
    # What is published is decided anyway, whenever it is due.
    assert seen(build.fresh()).decided


def test_well_is_only_what_is_published() -> None:
    assert whole(FRESH).well
    assert not whole(FRESH, LATCHED).well


def test_the_line_names_what_is_wrong_and_what_comes_next() -> None:
    assert whole().line() == "no grants are configured"
    assert whole(FRESH).line() == "1/1 grants published; next rotation in 44m (billing)"
    line = whole(FRESH, LATCHED).line()
    assert line.startswith("1/2 grants published; crm: credentials refused: the provider refused the password")
    assert "and 2 more" in whole(*(replace(LATCHED, name=f"crm{number}") for number in range(5))).line()
    assert "next rotation" not in whole(LATCHED).line()
    assert whole(FRESH, LATCHED).lead() == "1/2 grants published; next rotation in 44m (billing)"


def test_the_document_is_json_and_says_the_same() -> None:
    said = health.document(whole(FRESH, LATCHED))
    assert json.loads(json.dumps(said)) == said
    assert said["schema"] == 1
    assert said["published"] is False
    grants = said["grants"]
    assert isinstance(grants, dict)
    assert grants["billing"]["state"] == "fresh"
    assert grants["billing"]["expires_in"] == 59 * 60
    assert grants["billing"]["lifetime"] == 3600
    assert grants["billing"]["due_at"] == "2026-03-01T12:45:00Z"
    assert grants["billing"]["targets"]["app"]["generation"] == 1
    assert (grants["crm"]["expires_in"], grants["crm"]["lifetime"], grants["crm"]["due_at"]) == (None, None, None)
    assert grants["crm"]["decided"] is True
    assert build.CANARY not in json.dumps(said)
    assert health.document(Health(NOON + 2 * HOUR, (FRESH,)))["grants"]["billing"]["expires_in"] == 0  # type: ignore[index]


def test_the_token_itself_is_given_only_while_it_is_valid() -> None:
    said = health.token(build.fresh(), NOON)
    assert said == {
        "grant": "billing",
        "access_token": build.access().value.reveal(),
        "token_type": "Bearer",
        "expires_at": "2026-03-01T13:00:00Z",
        "generation": 1,
    }
    for grant, at in ((build.empty(), NOON), (build.fresh(), NOON + HOUR), (build.fresh(unproven=True), NOON)):
        with pytest.raises(Transient, match="billing"):
            health.token(grant, at)
