"""A grant as a JSON object and back: exact, whole, and damage is told without quoting it."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import build
import pytest
from build import HOUR, NOON
from hypothesis import given
from hypothesis import strategies as st

from rotator.core import lifecycle, records
from rotator.core.errors import Overtaken, StateDamaged
from rotator.core.grants import Doubt, Grant, Intent, Kind, Latch, OutcomeClass, Source, Trouble
from rotator.core.policy import Moment
from rotator.core.tokens import AccessToken, Secret

TIMES = st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1), timezones=st.just(UTC))
SPANS = st.timedeltas(timedelta(0), timedelta(days=4000))
TEXT = st.text(max_size=20)
SECRETS = (TEXT | st.text(st.characters(categories=["Cs"]), max_size=1)).map(Secret)
COUNTS = st.integers(0, 2**53)
MOMENTS = st.builds(Moment, TIMES, TEXT, SPANS)
GRANTS = st.builds(
    Grant,
    name=TEXT, lineage=TEXT, identity=TEXT, generation=COUNTS,
    access=st.none() | st.builds(AccessToken, SECRETS, TEXT, st.none() | TEXT, TIMES, TIMES, COUNTS),
    refresh=st.none() | SECRETS, previous_refresh=st.none() | SECRETS, refreshed_at=st.none() | TIMES,
    intent=st.none() | st.builds(
        Intent, TEXT, COUNTS, st.sampled_from(Kind), st.sampled_from(Source), COUNTS, MOMENTS, st.booleans()
    ),
    doubt=st.none() | st.builds(Doubt, MOMENTS, COUNTS, TEXT),
    latch=st.none() | st.builds(Latch, TEXT, TEXT, TEXT, TIMES),
    trouble=st.none() | st.builds(Trouble, st.sampled_from(OutcomeClass), TEXT, TEXT, TIMES, COUNTS),
    debits=st.lists(TIMES, max_size=4).map(tuple), password_lost=st.booleans(),
    due_at=st.none() | TIMES, exchanged_at=st.none() | TIMES, unproven=st.booleans(),
    remarks=st.lists(TEXT, max_size=2).map(tuple),
)  # fmt: skip


@given(grant=GRANTS)
def test_what_is_written_is_read_back_exactly(grant: Grant) -> None:
    assert records.read(json.loads(json.dumps(records.write(grant)))) == grant


def test_every_field_of_a_grant_is_kept() -> None:
    assert {field.name for field in dataclasses.fields(Grant)} == set(records.write(build.fresh())) - {"v"}


@given(one=TIMES, other=TIMES)
def test_stamps_are_exact_and_keep_the_order(one: datetime, other: datetime) -> None:
    assert records.time(records.stamp(one)) == one
    assert (records.stamp(one) < records.stamp(other)) is (one < other)


# --- damage -----------------------------------------------------------------------------------------------------

RECORD = records.write(
    build.fresh(
        previous_refresh=build.secret("refresh-0"), intent=build.intent(), doubt=build.doubt(), latch=build.latch(),
        trouble=build.trouble(), debits=(NOON,),
    )
)  # fmt: skip


# What a record may lack because a rotator of before wrote it.
LATER = {"remarks"}


def test_a_record_of_a_rotator_of_before_is_read() -> None:
    before = {name: value for name, value in RECORD.items() if name not in LATER}
    assert records.read(before) == records.read(RECORD)


@pytest.mark.parametrize("key", sorted(set(RECORD) - LATER))
def test_a_record_that_lacks_a_key_is_damaged(key: str) -> None:
    with pytest.raises(StateDamaged, match="state reset"):
        records.read({name: value for name, value in RECORD.items() if name != key})


@pytest.mark.parametrize(
    "changes",
    [
        {"v": "one"}, {"v": None}, {"name": None}, {"generation": "7"}, {"generation": 1.5}, {"refresh": 12345},
        {"access": {**RECORD["access"], "value": None}}, {"access": []}, {"due_at": 10**40}, {"due_at": "noon"},
        {"exchanged_at": -(10**30)}, {"intent": {**RECORD["intent"], "kind": "implicit"}}, {"debits": 5},
        {"remarks": [7]}, {"remarks": None}, {"trouble": {**RECORD["trouble"], "cls": "odd"}}, {"doubt": "yes"},
        {"latch": {}},
    ],
    ids=str,
)  # fmt: skip
def test_a_record_of_other_kinds_is_damaged_and_not_quoted(changes: dict[str, Any]) -> None:
    with pytest.raises(StateDamaged) as raised:
        records.read({**RECORD, **changes})
    assert build.CANARY not in repr(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize("record", [None, [], "record", 5])
def test_what_is_no_record_at_all_is_damaged(record: object) -> None:
    with pytest.raises(StateDamaged):
        records.read(cast(records.Record, record))


def test_a_record_of_a_newer_rotator_asks_for_that_one() -> None:
    with pytest.raises(StateDamaged, match="newer rotator") as raised:
        records.read({**RECORD, "v": records.VERSION + 1})
    assert "billing" in str(raised.value)
    assert "state reset" not in str(raised.value), "nothing is thrown away that another version can read"


# --- what every store must agree on -----------------------------------------------------------------------------


def test_a_tombstone_counts_the_password_budget_as_spent_for_its_window() -> None:
    for rules in (build.FORGIVING, dataclasses.replace(build.FORGIVING, budget=build.policy.Budget(limit=10))):
        charged = records.charge(build.empty(), NOON - HOUR)
        assert build.left(charged, build.moment(), rules) == 0
        assert build.left(charged, build.moment(23 * HOUR), rules) == rules.budget.limit
    assert records.charge(build.empty(), None) == build.empty()


def test_a_save_is_admitted_on_the_generation_that_is_stored() -> None:
    records.admit(("lineage-1", 1), build.fresh(generation=2), 1)
    records.admit(("lineage-1", 1), build.fresh(), 1)
    for found in (None, ("lineage-1", 2), ("lineage-1", 0)):
        with pytest.raises(Overtaken, match="billing"):
            records.admit(found, build.fresh(generation=2), 1)


def test_another_lineage_begins_with_nothing_in_hand() -> None:
    held = build.fresh(debits=(NOON,), password_lost=True)
    anew = lifecycle.reidentify(held, "lineage-2", "identity-2", NOON).grant
    records.admit(("lineage-1", 1), anew, 1)
    with pytest.raises(Overtaken, match="lineage"):
        records.admit(("lineage-2", 1), held, 1)
