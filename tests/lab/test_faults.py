"""The provider's faults, and the journal that counts what it was asked."""

from __future__ import annotations

import json

import pytest

from rotator.core import errors
from rotator.lab.faults import Mishap
from tests.lab.bench import INVALID_REFRESH, USER_AND_PASSWORD, Bench, granted, is_dead, refusal

BAD_PASSWORD = refusal("invalid_grant", "Invalid username and password combination")


def test_lost_before_the_commit_the_refresh_token_lives() -> None:
    bench = Bench()
    token = str(bench.password()["refresh_token"])
    bench.provider.faults.plan(Mishap.LOST_BEFORE_COMMIT)
    assert bench.lose("refresh_token", refresh_token=token) is None
    assert not bench.provider.journal.entries[-1].committed
    granted(bench.refresh(token))


def test_lost_after_the_commit_the_refresh_token_is_spent() -> None:
    bench = Bench()
    token = str(bench.password()["refresh_token"])
    bench.provider.faults.plan(Mishap.LOST_AFTER_COMMIT)
    assert bench.lose("refresh_token", refresh_token=token) is None
    assert bench.provider.journal.entries[-1].committed
    assert is_dead(bench.refresh(token))


@pytest.mark.parametrize(
    ("mishap", "survives"),
    [(Mishap.CRASH_AFTER_ACCESS, True), (Mishap.CRASH_AFTER_REFRESH, True), (Mishap.CRASH_AFTER_DELETE, False)],
)
def test_a_crash_spends_the_refresh_token_only_after_the_delete(mishap: Mishap, survives: bool) -> None:
    bench = Bench()
    token = bench.password()["refresh_token"]
    bench.provider.faults.plan(mishap)
    crashed = bench.refresh(token)
    assert (crashed.status, crashed.header("Content-Type")) == (500, "text/html; charset=UTF-8")
    assert (bench.refresh(token).status == 200) is survives


def test_a_planned_crash_waits_for_a_request_that_gets_so_far() -> None:
    bench = Bench()
    bench.provider.faults.plan(Mishap.CRASH_AFTER_DELETE)
    token = bench.password()["refresh_token"]
    assert bench.refresh("unknown").status == 400
    assert bench.refresh(token).status == 500


def test_busy_for_the_next_requests_with_any_retry_after() -> None:
    bench = Bench()
    faults = bench.provider.faults
    faults.plan(Mishap.BUSY, 2, retry_after="7")
    faults.plan(Mishap.BUSY, status=429, retry_after="soon")
    faults.plan(Mishap.BUSY, status=429)
    answers = [bench.ask("password", **USER_AND_PASSWORD) for _ in range(5)]
    seen = [(answer.status, answer.header("Retry-After")) for answer in answers]
    assert seen == [(503, "7"), (503, "7"), (429, "soon"), (429, None), (200, None)]


def test_html_in_a_200_leaves_the_refresh_token() -> None:
    bench = Bench()
    token = bench.password()["refresh_token"]
    bench.provider.faults.plan(Mishap.HTML)
    page = bench.refresh(token)
    assert (page.status, page.header("Content-Type")) == (200, "text/html; charset=UTF-8")
    granted(bench.refresh(token))


def test_a_truncated_answer_is_committed() -> None:
    bench = Bench()
    token = bench.password()["refresh_token"]
    bench.provider.faults.plan(Mishap.TRUNCATED)
    cut = bench.refresh(token)
    assert not cut.complete
    with pytest.raises(json.JSONDecodeError):
        cut.json()
    assert is_dead(bench.refresh(token))


def test_an_outage_answers_nobody_and_spends_no_planned_mishap() -> None:
    bench = Bench()
    bench.provider.faults.plan(Mishap.HTML)
    bench.provider.faults.outage = True
    assert bench.lose("password", **USER_AND_PASSWORD) is None
    assert bench.provider.login("POST", {}) is None
    bench.provider.faults.outage = False
    assert bench.ask("password", **USER_AND_PASSWORD).header("Content-Type") == "text/html; charset=UTF-8"


def test_a_locked_account_refuses_the_right_password_until_the_time_is_over() -> None:
    bench = Bench()
    bench.provider.faults.set({"lockout_after": 3, "lockout_seconds": 1800})
    for _ in range(2):
        assert bench.ask("password", username="anna", password="wrong").body == BAD_PASSWORD
    refresh = bench.password()["refresh_token"]
    for _ in range(3):
        assert bench.ask("password", username="anna", password="wrong").body == BAD_PASSWORD
    bench.time += 1799
    assert bench.ask("password", **USER_AND_PASSWORD).body == BAD_PASSWORD
    granted(bench.refresh(refresh))
    bench.time += 1
    bench.password()
    assert bench.provider.journal.count("password", "invalid_grant") == 5
    assert bench.provider.journal.count("password", "locked out") == 1


def test_errors_under_another_status() -> None:
    bench = Bench()
    bench.provider.faults.error_statuses = {"invalid_grant": 403}
    assert (bench.refresh("x").status, bench.refresh("x").body) == (403, INVALID_REFRESH)
    assert bench.ask("refresh_token", secret="wrong", refresh_token="x").status == 400
    bench.provider.faults.error_statuses = {"*": 200}
    assert (bench.refresh("x").status, bench.refresh("x").body) == (200, INVALID_REFRESH)


def test_members_of_the_answer_replaced_and_taken_away() -> None:
    bench = Bench()
    bench.provider.faults.set({"overrides": {"token_type": "mac", "expires_in": "3600"}, "omitted": ["scope"]})
    answer = bench.password()
    assert (answer["token_type"], answer["expires_in"], "scope" in answer) == ("mac", "3600", False)
    assert bench.login(answer["access_token"]).status == 200
    bench.provider.faults.clear()
    assert bench.password()["token_type"] == "bearer"


@pytest.mark.parametrize(
    "wanted",
    [
        {"outrage": True},
        {"outage": 1},
        {"meet": True},
        {"latency_seconds": "1"},
        {"queue": [{"mishap": "html", "color": "red"}]},
        {"queue": [{"mishap": "unheard of"}]},
        {"queue": "html"},
    ],
)
def test_switches_that_cannot_be_read_change_nothing(wanted: dict[str, object]) -> None:
    faults = Bench().provider.faults
    before = faults.describe()
    with pytest.raises(errors.BadUsage, match=next(iter(wanted))):
        faults.set({"omitted": ["scope"], **wanted})
    assert faults.describe() == before


# --- the journal -----------------------------------------------------------------------------------------------------


def test_the_journal_counts_and_keeps_no_secret() -> None:
    bench = Bench()
    first = bench.password()
    second = granted(bench.refresh(first["refresh_token"]))
    bench.refresh(first["refresh_token"])
    bench.refresh("stranger")
    bench.ask("password", username="hunter2", password="typed-in-the-wrong-field")
    bench.login(second["access_token"])
    journal = bench.provider.journal
    assert [(e.number, e.kind, e.outcome, e.token) for e in journal.entries] == [
        (1, "password", "granted", None),
        (2, "refresh_token", "granted", "newest"),
        (3, "refresh_token", "invalid_grant", "old"),
        (4, "refresh_token", "invalid_grant", "unknown"),
        (5, "password", "invalid_grant", None),
        (6, "login", "granted", None),
    ]
    assert (journal.password_attempts, journal.refreshes) == (2, 3)
    shown = json.dumps(journal.describe()) + repr(list(journal.entries)) + repr(bench.provider.ledger.refresh.values())
    secrets = [*first.values(), *second.values(), "stranger", "hunter2", "typed-in-the-wrong-field", "secret", "right"]
    assert [secret for secret in secrets if isinstance(secret, str) and secret != "bearer" and secret in shown] == []
