"""What a spent refresh token costs, by family of providers."""

from __future__ import annotations

import pytest

from rotator.lab.ledger import Reuse
from tests.lab.bench import Bench, granted, is_dead


def test_fos_forgives_reuse_but_does_not_grant_it() -> None:
    bench = Bench(reuse=Reuse.FOS, grace_seconds=60)
    first = bench.password()
    second = granted(bench.refresh(first["refresh_token"]))
    assert is_dead(bench.refresh(first["refresh_token"]))
    granted(bench.refresh(second["refresh_token"]))


def test_grace_same_pair() -> None:
    bench = Bench(reuse=Reuse.GRACE_SAME_PAIR, grace_seconds=60)
    first = bench.password()
    second = granted(bench.refresh(first["refresh_token"]))
    bench.time += 59
    assert granted(bench.refresh(first["refresh_token"])) == second
    bench.time += 1
    assert is_dead(bench.refresh(first["refresh_token"]))
    granted(bench.refresh(second["refresh_token"]))


def test_grace_covers_only_the_token_before_the_newest() -> None:
    bench = Bench(reuse=Reuse.GRACE_SAME_PAIR, grace_seconds=60)
    first = bench.password()
    second = granted(bench.refresh(first["refresh_token"]))
    third = granted(bench.refresh(second["refresh_token"]))
    assert is_dead(bench.refresh(first["refresh_token"]))
    assert granted(bench.refresh(second["refresh_token"])) == third


def test_grace_new_pair() -> None:
    bench = Bench(reuse=Reuse.GRACE_NEW_PAIR, grace_seconds=60)
    first = bench.password()
    second = granted(bench.refresh(first["refresh_token"]))
    bench.login(second["access_token"])
    again = granted(bench.refresh(first["refresh_token"]))
    assert again["refresh_token"] != second["refresh_token"]
    bench.time += 60
    assert is_dead(bench.refresh(first["refresh_token"]))
    assert is_dead(bench.refresh(again["refresh_token"]))
    assert bench.login(again["access_token"]).status == 401


def test_family_revoke_kills_this_family_and_no_other() -> None:
    bench = Bench(reuse=Reuse.FAMILY_REVOKE)
    other = bench.password()
    first = bench.password()
    second = granted(bench.refresh(first["refresh_token"]))
    assert is_dead(bench.refresh(first["refresh_token"]))
    assert is_dead(bench.refresh(second["refresh_token"]))
    assert bench.login(second["access_token"]).status == 401
    assert bench.login(other["access_token"]).status == 200
    granted(bench.refresh(other["refresh_token"]))


@pytest.mark.parametrize("use", ["access", "refresh"])
def test_until_new_used(use: str) -> None:
    bench = Bench(reuse=Reuse.UNTIL_NEW_USED)
    first = bench.password()
    granted(bench.refresh(first["refresh_token"]))
    second = granted(bench.refresh(first["refresh_token"]))
    reply = bench.login(second["access_token"]) if use == "access" else bench.refresh(second["refresh_token"])
    assert reply.status == 200
    assert is_dead(bench.refresh(first["refresh_token"]))


def test_never_revoked() -> None:
    bench = Bench(reuse=Reuse.NEVER_REVOKED)
    first = bench.password()
    answers = [granted(bench.refresh(first["refresh_token"])) for _ in range(3)]
    assert len({answer["refresh_token"] for answer in answers}) == 3
    bench.time += 1_209_601
    assert bench.refresh(first["refresh_token"]).status == 400


def test_sticky_value_changes_after_a_day() -> None:
    bench = Bench(reuse=Reuse.STICKY_VALUE)
    first = bench.password()
    second = granted(bench.refresh(first["refresh_token"]))
    assert second["refresh_token"] == first["refresh_token"]
    assert second["access_token"] != first["access_token"]
    bench.time += 86_400
    third = granted(bench.refresh(first["refresh_token"]))
    assert third["refresh_token"] != first["refresh_token"]
    assert is_dead(bench.refresh(first["refresh_token"]))


def test_no_refresh_token_in_a_refresh() -> None:
    bench = Bench(reuse=Reuse.NO_RT_IN_REFRESH)
    first = bench.password()
    for _ in range(2):
        assert "refresh_token" not in granted(bench.refresh(first["refresh_token"]))


@pytest.mark.parametrize("reuse", [Reuse.FOS, Reuse.STICKY_VALUE, Reuse.NO_RT_IN_REFRESH])
def test_revoking_the_old_access_token_at_refresh(reuse: Reuse) -> None:
    bench = Bench(reuse=reuse, revoke_old_access=True)
    answer = bench.password()
    refresh = answer["refresh_token"]
    for _ in range(2):
        following = granted(bench.refresh(refresh))
        assert bench.login(answer["access_token"]).status == 401
        assert bench.login(following["access_token"]).status == 200
        answer, refresh = following, following.get("refresh_token", refresh)
