"""What every publisher promises: `rotator.core.ports.Publisher`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from rotator.core.ports import Publisher
from rotator.core.publication import Found, Publication, Settled
from tests.contracts import publishers
from tests.contracts.publishers import NOW, Harness, publication


@pytest.fixture(params=[*publishers.HARNESSES, "vault-kv1"])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    if request.param == "vault-kv1":
        yield publishers.Kv1Harness(request.getfixturevalue("raft_bao"))
        return
    with publishers.HARNESSES[request.param](tmp_path) as made:
        yield made


def settle(publisher: Publisher, wanted: Publication, *, later: timedelta = timedelta(0)) -> Settled:
    return asyncio.run(publisher.settle(wanted, NOW + later))


def remove(publisher: Publisher, mark: str) -> bool:
    return asyncio.run(publisher.remove(mark))


def test_absent_becomes_current(harness: Harness) -> None:
    assert harness.read() is None

    settled = settle(harness.publisher(), publication(1))

    assert settled.found is Found.ABSENT
    assert settled.mark
    assert harness.read() == publication(1).value.reveal()


def test_settling_again_writes_nothing(harness: Harness) -> None:
    publisher = harness.publisher()
    first = settle(publisher, publication(1))
    stamp = harness.stamp()

    again = settle(publisher, publication(1), later=timedelta(minutes=7))
    restarted = settle(harness.publisher(), publication(1), later=timedelta(minutes=9))

    assert [again.found, restarted.found] == [Found.CURRENT, Found.CURRENT]
    assert again.mark == restarted.mark == first.mark
    assert harness.stamp() == stamp


def test_an_older_generation_is_replaced(harness: Harness) -> None:
    first = settle(harness.publisher(), publication(1))

    second = settle(harness.publisher(), publication(2))

    assert second.found is (Found.OLDER if harness.tells_generation else Found.ALTERED)
    assert second.mark != first.mark
    assert harness.read() == publication(2).value.reveal()


def test_a_newer_generation_of_our_lineage_is_left_alone(harness: Harness) -> None:
    settle(harness.publisher(), publication(5))
    stamp = harness.stamp()

    settled = settle(harness.publisher(), publication(4))

    if harness.tells_generation:
        assert settled.found is Found.AHEAD
        assert settled.generation == 5
        assert settled.expires_at is not None
        assert settled.expires_at.replace(microsecond=0) == publication(5).access.expires_at.replace(microsecond=0)
        assert harness.read() == publication(5).value.reveal()
        assert harness.stamp() == stamp
    else:
        assert settled.found is Found.ALTERED
        assert harness.read() == publication(4).value.reveal()


def test_another_lineage_is_overwritten_once_whatever_its_generation(harness: Harness) -> None:
    settle(harness.publisher(), publication(9, lineage="lineage-0"))

    first = settle(harness.publisher(), publication(1))
    second = settle(harness.publisher(), publication(1))

    assert first.found is (Found.FOREIGN if harness.tells_generation else Found.ALTERED)
    assert second.found is Found.CURRENT
    assert harness.read() == publication(1).value.reveal()


def test_what_a_stranger_wrote_is_put_right(harness: Harness) -> None:
    publisher = harness.publisher()
    settle(publisher, publication(1))
    harness.scribble()

    settled = settle(publisher, publication(1))

    assert settled.found in (Found.ALTERED, Found.FOREIGN)
    assert harness.read() == publication(1).value.reveal()


def test_what_a_stranger_deleted_comes_back(harness: Harness) -> None:
    publisher = harness.publisher()
    settle(publisher, publication(1))
    harness.clear()

    assert settle(publisher, publication(1)).found is Found.ABSENT
    assert harness.read() == publication(1).value.reveal()


def test_remove_deletes_what_its_mark_names_also_after_a_restart(harness: Harness) -> None:
    mark = settle(harness.publisher(), publication(1)).mark

    assert remove(harness.publisher(), mark)
    assert harness.read() is None
    assert not remove(harness.publisher(), mark)


def test_the_mark_of_a_current_target_removes_it_too(harness: Harness) -> None:
    settle(harness.publisher(), publication(1))
    mark = settle(harness.publisher(), publication(1), later=timedelta(minutes=7)).mark

    assert remove(harness.publisher(), mark)
    assert harness.read() is None


def test_remove_leaves_a_later_generation(harness: Harness) -> None:
    old = settle(harness.publisher(), publication(1)).mark
    settle(harness.publisher(), publication(2))
    stamp = harness.stamp()

    assert not remove(harness.publisher(), old)
    assert harness.read() == publication(2).value.reveal()
    assert harness.stamp() == stamp


def test_remove_leaves_what_a_stranger_wrote(harness: Harness) -> None:
    mark = settle(harness.publisher(), publication(1)).mark
    harness.scribble()
    stamp = harness.stamp()

    assert not remove(harness.publisher(), mark)
    assert harness.stamp() == stamp


def test_a_deleted_target_can_be_published_again(harness: Harness) -> None:
    mark = settle(harness.publisher(), publication(1)).mark
    remove(harness.publisher(), mark)

    assert settle(harness.publisher(), publication(2)).found is Found.ABSENT
    assert harness.read() == publication(2).value.reveal()


def test_a_cancelled_settle_never_lands_behind_the_next_one(harness: Harness) -> None:
    publisher = harness.publisher()

    async def hurry() -> list[str | None]:
        seen = []
        for generation in range(2, 40, 2):
            overtaken = asyncio.create_task(publisher.settle(publication(generation), NOW))
            for _ in range(generation % 3):
                await asyncio.sleep(0)
            overtaken.cancel()
            await publisher.settle(publication(generation + 1), NOW)
            await asyncio.gather(overtaken, return_exceptions=True)
            seen.append(harness.read())
        return seen

    wanted = [publication(generation).value.reveal() for generation in range(3, 41, 2)]
    assert asyncio.run(hurry()) == wanted
    assert harness.read() == wanted[-1]


def test_one_place_has_one_location_for_ever(harness: Harness) -> None:
    one, other = harness.publisher(), harness.publisher()
    before = one.location
    settle(one, publication(1))

    assert one.location == other.location == before
    assert one.local == other.local


def test_a_publisher_prints_no_token(harness: Harness) -> None:
    publisher = harness.publisher()
    settled = settle(publisher, publication(1))

    assert publication(1).value.reveal() not in f"{publisher!r} {publisher} {settled!r} {publisher.location}"
