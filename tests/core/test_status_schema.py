"""docs/status.schema.json is what `core.health.document` makes: no key more, none less, no state unknown to it."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from build import HOUR, NOON

from rotator.core import health
from rotator.core.health import GrantHealth, Health, State, TargetHealth

PAGE = Path(__file__).parents[2] / "docs" / "status.schema.json"
SCHEMA: dict[str, Any] = json.loads(PAGE.read_text())

FULL = GrantHealth(
    name="billing", provider="omnifund", state=State.FRESH, reason="", generation=7, issued_at=NOON - HOUR,
    expires_at=NOON + HOUR / 3, due_at=NOON, passwords_left=3,
    targets=(TargetHealth("app", "/run/rotator/billing/token", 7), TargetHealth("cluster", "vault:a/b", None, "away")),
    published=True,
)  # fmt: skip
BARE = replace(
    FULL, name="crm", state=State.EMPTY, reason="why", generation=0, issued_at=None, expires_at=None, due_at=None,
    passwords_left=None, targets=(), published=False,
)  # fmt: skip


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The same, but for keys that it does not name: what we write ourselves has none."""
    strict = copy.deepcopy(schema)
    for node in (strict, *(strict["$defs"][name] for name in ("grant", "target"))):
        node["additionalProperties"] = False
    return strict


def valid(document: object, schema: dict[str, Any] = SCHEMA) -> None:
    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(document)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_it_knows_every_state_and_no_other() -> None:
    assert SCHEMA["$defs"]["grant"]["properties"]["state"]["enum"] == [state.value for state in State]


@pytest.mark.parametrize("state", State)
def test_what_a_snapshot_writes_is_what_it_says(state: State) -> None:
    grants = (replace(FULL, state=state), replace(BARE, state=state))
    document = json.loads(json.dumps(health.document(Health(NOON, grants))))
    valid(document, closed(SCHEMA))
    for grant in document["grants"].values():
        assert set(grant) == set(SCHEMA["$defs"]["grant"]["required"]) == set(SCHEMA["$defs"]["grant"]["properties"])
    assert set(document) == set(SCHEMA["required"])
    assert document["schema"] == SCHEMA["properties"]["schema"]["const"]


def test_an_expired_token_and_no_grant_at_all_fit() -> None:
    late = replace(FULL, expires_at=NOON - timedelta(microseconds=1))
    for grants in ((), (late,)):
        valid(json.loads(json.dumps(health.document(Health(NOON, grants)))), closed(SCHEMA))


def test_keys_may_be_added_and_none_may_be_missing() -> None:
    document = json.loads(json.dumps(health.document(Health(NOON, (FULL,)))))
    valid({**document, "new": 1})
    for key in document:
        with pytest.raises(jsonschema.ValidationError):
            valid({name: value for name, value in document.items() if name != key})
    for key in document["grants"]["billing"]:
        broken = copy.deepcopy(document)
        del broken["grants"]["billing"][key]
        with pytest.raises(jsonschema.ValidationError):
            valid(broken)
