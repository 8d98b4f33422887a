"""What every store promises: `rotator.core.ports.Store`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from rotator.core import lifecycle
from rotator.core.errors import Overtaken, Unavailable
from rotator.core.grants import Doubt, Grant, Latch, OutcomeClass, Trouble
from rotator.core.ports import Delivery, Store
from rotator.core.tokens import Secret
from tests.contracts import stores
from tests.contracts.stores import NOW, Harness, granted, intent, new

LEASE = timedelta(seconds=45)
SECOND = timedelta(seconds=1)


# With FAULTS=all once more on a standby that was promoted.
REMOTE = {"postgres": "database_server"} | (
    {"promoted": "promoted_server"} if os.environ.get("FAULTS") == "all" else {}
)


@pytest.fixture(params=[*stores.HARNESSES, "openbao", *REMOTE])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    if request.param == "openbao":
        yield stores.VaultHarness(request.getfixturevalue("raft_bao"))
        return
    if request.param in REMOTE:
        yield stores.PostgresHarness(request.getfixturevalue(REMOTE[request.param]))
        return
    with stores.HARNESSES[request.param](tmp_path) as made:
        yield made


@asynccontextmanager
async def opened(harness: Harness) -> AsyncIterator[Store]:
    store = harness.store()
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def tell(harness: Harness, story: Callable[[Store], Awaitable[None]]) -> None:
    """Run a story with one open store."""

    async def run() -> None:
        async with opened(harness) as store:
            await story(store)

    asyncio.run(run())


async def enrolled(store: Store, grant: Grant | None = None) -> Grant:
    return await store.enrol(grant or new())


def failed(grant: Grant) -> Grant:
    """The grant after an answer that changed no token."""
    return replace(
        grant, trouble=Trouble(OutcomeClass.BUSY, "the provider is busy", "", NOW, 1), due_at=NOW + timedelta(minutes=1)
    )


def test_everything_in_a_grant_comes_back(harness: Harness) -> None:
    moment = harness.clock.moment()
    first = granted(new())
    full = replace(
        granted(first), intent=intent(first, moment), doubt=Doubt(moment, 2, "a reset"),
        latch=Latch("refused", "mend it", "digest", NOW), trouble=Trouble(OutcomeClass.REFUSED, "no", "mend", NOW, 7),
        debits=(NOW - SECOND, NOW), password_lost=True, unproven=True, previous_refresh=Secret("naïve \ud800 \x00 ✓"),
    )  # fmt: skip

    async def story() -> None:
        async with opened(harness) as store:
            await enrolled(store, full)
        async with opened(harness) as store:
            assert await store.grant("billing") == full
            assert await store.grants() == [full]

    asyncio.run(story())


def test_enrol_keeps_what_is_there(harness: Harness) -> None:
    async def story(store: Store) -> None:
        first = await enrolled(store)
        assert first == new()
        assert await store.enrol(new(lineage="another")) == first
        assert await store.grant("billing") == first
        assert await store.grant("unknown") is None

    tell(harness, story)


def test_grants_come_by_name(harness: Harness) -> None:
    async def story(store: Store) -> None:
        for name in ("c", "a", "b"):
            await enrolled(store, new(name))
        assert [grant.name for grant in await store.grants()] == ["a", "b", "c"]

    tell(harness, story)


def test_key_stays_over_a_reopening(harness: Harness) -> None:
    async def story() -> None:
        async with opened(harness) as store:
            key = await store.key()
        async with opened(harness) as store:
            assert await store.key() == key
        assert len(key) == 32

    asyncio.run(story())


def test_one_daemon_holds_a_state(harness: Harness) -> None:
    async def story(store: Store) -> None:
        second = harness.store()
        if harness.exclusive:
            with pytest.raises(Overtaken):
                await second.open()
        else:
            await second.open()
        await second.close()
        await enrolled(store)

    tell(harness, story)


def test_close_is_idempotent_and_ends_everything(harness: Harness) -> None:
    async def story() -> None:
        store = harness.store()
        await store.close()
        await store.open()
        await store.close()
        await store.close()
        with pytest.raises(Unavailable):
            await store.grants()
        await store.open()
        assert await store.grants() == []
        await store.close()

    asyncio.run(story())


# --- compare-and-set ----------------------------------------------------------------------------------------------


def test_a_granted_answer_is_saved_once(harness: Harness) -> None:
    async def story(store: Store) -> None:
        grant = await enrolled(store)
        lease, _ = await store.lease("billing", "me", harness.clock.moment(), LEASE)
        answer = granted(grant)
        await store.save(answer, expected=0, lease=lease, now=NOW)
        assert await store.grant("billing") == answer
        with pytest.raises(Overtaken):
            await store.save(answer, expected=0, lease=lease, now=NOW)
        assert await store.grant("billing") == answer

    tell(harness, story)


def test_generations_are_compared_within_one_lineage(harness: Harness) -> None:
    async def story(store: Store) -> None:
        await enrolled(store)
        lease, _ = await store.lease("billing", "me", harness.clock.moment(), LEASE)
        stranger = new(lineage="lineage-2")
        for change in (granted(stranger), failed(stranger)):
            for right in (lease, None):
                with pytest.raises(Overtaken):
                    await store.save(change, expected=0, lease=right, now=NOW)
        assert await store.grant("billing") == new()

    tell(harness, story)


def test_a_new_lineage_begins_with_nothing_in_hand(harness: Harness) -> None:
    """Another client or user: `lifecycle.reidentify` starts anew, under a lease, over any generation."""

    async def story(store: Store) -> None:
        answer = granted(await enrolled(store))
        await store.save(answer, expected=0, lease=None, now=NOW)
        fresh = lifecycle.reidentify(answer, "lineage-2", "identity-2", NOW).grant
        lease, _ = await store.lease("billing", "me", harness.clock.moment(), LEASE)
        with pytest.raises(Overtaken):
            await store.save(fresh, expected=0, lease=lease, now=NOW)
        await store.save(fresh, expected=1, lease=lease, now=NOW)
        assert await store.grant("billing") == fresh
        # What was still on its way for the former identity is nobody's any more.
        with pytest.raises(Overtaken):
            await store.save(granted(answer), expected=1, lease=lease, now=NOW)

    tell(harness, story)


def test_a_change_at_the_wrong_generation_is_overtaken(harness: Harness) -> None:
    async def story(store: Store) -> None:
        answer = granted(await enrolled(store))
        await store.save(answer, expected=0, lease=None, now=NOW)
        for change, expected in ((failed(new()), 0), (granted(granted(answer)), 2)):
            with pytest.raises(Overtaken):
                await store.save(change, expected=expected, lease=None, now=NOW)
        assert await store.grant("billing") == answer

    tell(harness, story)


def test_nothing_is_saved_for_a_grant_that_is_not_stored(harness: Harness) -> None:
    async def story(store: Store) -> None:
        with pytest.raises(Overtaken):
            await store.save(granted(new()), expected=0, lease=None, now=NOW)
        assert await store.grants() == []

    tell(harness, story)


# --- leases -------------------------------------------------------------------------------------------------------


def test_a_lease_excludes_others_until_it_is_given_back(harness: Harness) -> None:
    async def story(store: Store) -> None:
        grant = await enrolled(store)
        await enrolled(store, new("other"))
        moment = harness.clock.moment()
        lease, found = await store.lease("billing", "me", moment, LEASE)
        assert found == grant
        assert lease.until.boottime == moment.boottime + LEASE
        with pytest.raises(Overtaken):
            await store.lease("billing", "you", moment, LEASE)
        await store.lease("other", "you", moment, LEASE)
        await store.release(lease)
        await store.release(lease)
        theirs, _ = await store.lease("billing", "you", moment, LEASE)
        assert theirs.fence > lease.fence
        # A lease that is no longer ours gives back nothing of theirs.
        await store.release(lease)
        with pytest.raises(Overtaken):
            await store.lease("billing", "me", moment, LEASE)

    tell(harness, story)


def test_a_lease_runs_out_by_the_boot_time_clock(harness: Harness) -> None:
    async def story(store: Store) -> None:
        await enrolled(store)
        await store.lease("billing", "me", harness.clock.moment(), LEASE)
        harness.clock.step(timedelta(days=1))
        with pytest.raises(Overtaken):
            await store.lease("billing", "you", harness.clock.moment(), LEASE)
        harness.clock.step(-timedelta(days=2))
        harness.clock.pass_time(LEASE - SECOND)
        with pytest.raises(Overtaken):
            await store.lease("billing", "you", harness.clock.moment(), LEASE)
        harness.clock.pass_time(SECOND)
        await store.lease("billing", "you", harness.clock.moment(), LEASE)

    tell(harness, story)


def test_a_lease_of_another_boot_ran_out(harness: Harness) -> None:
    async def story(store: Store) -> None:
        await enrolled(store)
        await store.lease("billing", "me", harness.clock.moment(), LEASE)
        harness.clock.reboot()
        if not harness.exclusive:
            # It may be another machine's, whose clock tells us nothing: it is watched for as long as it was taken for.
            for pause in (timedelta(0), LEASE - SECOND):
                harness.clock.pass_time(pause)
                with pytest.raises(Overtaken):
                    await store.lease("billing", "you", harness.clock.moment(), LEASE)
            harness.clock.pass_time(SECOND)
        await store.lease("billing", "you", harness.clock.moment(), LEASE)

    tell(harness, story)


def test_no_lease_for_a_grant_that_is_not_stored(harness: Harness) -> None:
    async def story(store: Store) -> None:
        with pytest.raises(Overtaken):
            await store.lease("billing", "me", harness.clock.moment(), LEASE)
        # Nor does the attempt stand in the way of anybody.
        await enrolled(store)
        await store.lease("billing", "you", harness.clock.moment(), LEASE)

    tell(harness, story)


def test_the_grant_is_looked_at_under_the_lease(harness: Harness) -> None:
    async def story(store: Store) -> None:
        answer = granted(await enrolled(store))
        # The late answer is handed in first; whoever takes the lease behind it must see it, or he spends it again.
        saving = asyncio.ensure_future(store.save(answer, expected=0, lease=None, now=NOW))
        leasing = asyncio.ensure_future(store.lease("billing", "you", harness.clock.moment(), LEASE))
        _, found = await leasing
        await saving
        assert found == answer

    tell(harness, story)


def test_a_late_owner_saves_his_answer_and_nothing_else(harness: Harness) -> None:
    async def story(store: Store) -> None:
        grant = await enrolled(store)
        late, _ = await store.lease("billing", "me", harness.clock.moment(), LEASE)
        harness.clock.pass_time(LEASE)
        theirs, _ = await store.lease("billing", "you", harness.clock.moment(), LEASE)
        with pytest.raises(Overtaken):
            await store.save(failed(grant), expected=0, lease=late, now=NOW)
        with pytest.raises(Overtaken):
            await store.save(replace(grant, intent=intent(grant, late.until)), expected=0, lease=late, now=NOW)
        assert await store.grant("billing") == grant
        await store.save(granted(grant), expected=0, lease=late, now=NOW)
        # Theirs came to nothing: generation 1 is there, and they looked at 0.
        with pytest.raises(Overtaken):
            await store.save(failed(grant), expected=0, lease=theirs, now=NOW)
        assert await store.grant("billing") == granted(grant)

    tell(harness, story)


def test_a_lease_that_was_given_back_saves_no_failure(harness: Harness) -> None:
    async def story(store: Store) -> None:
        grant = await enrolled(store)
        lease, _ = await store.lease("billing", "me", harness.clock.moment(), LEASE)
        await store.release(lease)
        with pytest.raises(Overtaken):
            await store.save(failed(grant), expected=0, lease=lease, now=NOW)

    tell(harness, story)


def test_a_lease_that_ran_out_still_saves_while_nobody_took_over(harness: Harness) -> None:
    """What is known is kept: dropped, it would be doubt about a refresh token that is not spent."""

    async def story(store: Store) -> None:
        grant = await enrolled(store)
        lease, _ = await store.lease("billing", "me", harness.clock.moment(), LEASE)
        harness.clock.pass_time(10 * LEASE)
        await store.save(failed(grant), expected=0, lease=lease, now=NOW)
        assert await store.grant("billing") == failed(grant)

    tell(harness, story)


def test_a_lease_of_one_grant_is_no_right_to_another(harness: Harness) -> None:
    async def story(store: Store) -> None:
        await enrolled(store)
        other = await enrolled(store, new("other"))
        lease, _ = await store.lease("billing", "me", harness.clock.moment(), LEASE)
        with pytest.raises(Overtaken):
            await store.save(failed(other), expected=0, lease=lease, now=NOW)

    tell(harness, story)


# --- due ----------------------------------------------------------------------------------------------------------


def test_the_longest_overdue_comes_first(harness: Harness) -> None:
    async def story(store: Store) -> None:
        for name, seconds in (("late", 3), ("later", 1), ("latest", 2), ("now", 0), ("soon", -1)):
            await enrolled(store, new(name, due_at=NOW - seconds * SECOND))
        await enrolled(store, new("latched", due_at=None))
        assert await store.due(NOW, 10) == ["late", "latest", "later", "now"]
        assert await store.due(NOW, 2) == ["late", "latest"]
        assert await store.next_due(NOW) == NOW + SECOND
        assert await store.next_due(NOW - timedelta(hours=1)) == NOW - 3 * SECOND
        assert await store.next_due(NOW + SECOND) is None

    tell(harness, story)


def test_due_times_are_exact_to_the_microsecond(harness: Harness) -> None:
    tick = timedelta(microseconds=1)

    async def story(store: Store) -> None:
        await enrolled(store, new(due_at=NOW + tick))
        assert await store.due(NOW, 10) == []
        assert await store.next_due(NOW) == NOW + tick
        assert await store.due(NOW + tick, 10) == ["billing"]
        assert await store.next_due(NOW + tick) is None

    tell(harness, story)


def test_a_save_moves_the_due_time(harness: Harness) -> None:
    async def story(store: Store) -> None:
        answer = granted(await enrolled(store))
        await store.save(answer, expected=0, lease=None, now=NOW)
        assert await store.due(NOW, 10) == []
        assert await store.next_due(NOW) == answer.due_at
        await store.save(replace(answer, due_at=None), expected=1, lease=None, now=NOW)
        assert await store.next_due(NOW) is None

    tell(harness, story)


def test_due_times_outlive_a_restart(harness: Harness) -> None:
    async def story() -> None:
        async with opened(harness) as store:
            await enrolled(store)
        async with opened(harness) as store:
            assert await store.due(NOW, 10) == ["billing"]

    asyncio.run(story())


# --- high water, deliveries, retirement ---------------------------------------------------------------------------


def test_high_water_never_falls(harness: Harness) -> None:
    async def story() -> None:
        async with opened(harness) as store:
            assert await store.high_water() is None
            grant = await enrolled(store)
            assert await store.high_water() == NOW
            for hours, expected in ((2, 2), (1, 2), (3, 3)):
                await store.save(failed(grant), expected=0, lease=None, now=NOW + timedelta(hours=hours))
                assert await store.high_water() == NOW + timedelta(hours=expected)
            # A write without a time of its own (a delivery) counts at the clock, which stands lower.
            await store.delivered(delivery())
            assert await store.high_water() == NOW + timedelta(hours=3)
        async with opened(harness) as store:
            assert await store.high_water() == NOW + timedelta(hours=3)

    asyncio.run(story())


def test_a_save_that_was_refused_leaves_no_high_water(harness: Harness) -> None:
    async def story(store: Store) -> None:
        await enrolled(store)
        with pytest.raises(Overtaken):
            await store.save(failed(new()), expected=7, lease=None, now=NOW + timedelta(days=1))
        assert await store.high_water() == NOW

    tell(harness, story)


def delivery(grant: str = "billing", location: str = "vault:secret/a", *, generation: int = 1) -> Delivery:
    return Delivery(grant, "target", location, "lineage-1", generation, NOW + timedelta(hours=generation), "mark")


def test_a_delivery_is_known_by_grant_and_location(harness: Harness) -> None:
    first, elsewhere, foreign = delivery(), delivery(location="vault:secret/b"), delivery("other")
    renamed = replace(delivery(generation=2), target="renamed")

    async def story() -> None:
        async with opened(harness) as store:
            for one in (foreign, elsewhere, first):
                await store.delivered(one)
            assert await store.deliveries() == [first, elsewhere, foreign]
            await store.delivered(renamed)
        async with opened(harness) as store:
            assert await store.deliveries("billing") == [renamed, elsewhere]
            await store.forget("billing", renamed.location)
            await store.forget("billing", renamed.location)
            assert await store.deliveries() == [elsewhere, foreign]

    asyncio.run(story())


def test_deliveries_of_expired_tokens_are_found_the_longest_ago_first(harness: Harness) -> None:
    late, later, valid = delivery(), delivery("other"), delivery("third")
    late = replace(late, expires_at=NOW - 2 * SECOND)
    later = replace(later, expires_at=NOW)
    valid = replace(valid, expires_at=NOW + SECOND)

    async def story(store: Store) -> None:
        for one in (valid, later, late):
            await store.delivered(one)
        assert await store.expired(NOW, 10) == [late, later]
        assert await store.expired(NOW, 1) == [late]
        # Published again, it is valid again.
        await store.delivered(replace(late, generation=2, expires_at=NOW + SECOND))
        assert await store.expired(NOW, 10) == [later]

    tell(harness, story)


def test_a_retired_grant_leaves_its_deliveries(harness: Harness) -> None:
    async def story(store: Store) -> None:
        await enrolled(store)
        await store.delivered(delivery())
        assert await store.retire("billing") is True
        assert await store.retire("billing") is False
        assert await store.grant("billing") is None
        assert await store.due(NOW, 10) == []
        assert await store.next_due(NOW - SECOND) is None
        assert await store.deliveries("billing") == [delivery()]
        assert await store.enrol(new(lineage="lineage-2")) == new(lineage="lineage-2")

    tell(harness, story)


# --- many at once -------------------------------------------------------------------------------------------------


def test_many_saves_at_once_all_land(harness: Harness) -> None:
    names = [f"grant_{number:02}" for number in range(50)]

    async def story() -> None:
        async with opened(harness) as store:
            await asyncio.gather(*(enrolled(store, new(name)) for name in names))
            # One that was overtaken stands in the middle of the batch and harms nobody.
            stale = store.save(granted(new("grant_25")), expected=3, lease=None, now=NOW)
            saves = [store.save(granted(new(name)), expected=0, lease=None, now=NOW) for name in names]
            results = await asyncio.gather(*saves[:25], stale, *saves[25:], return_exceptions=True)
            assert isinstance(results.pop(25), Overtaken)
            assert results == [None] * 50
        async with opened(harness) as store:
            assert list(await store.grants()) == [granted(new(name)) for name in names]

    asyncio.run(story())


def test_saves_of_one_grant_keep_their_order(harness: Harness) -> None:
    async def story(store: Store) -> None:
        chain = [await enrolled(store)]
        for _ in range(30):
            chain.append(granted(chain[-1]))
        # Handed in without waiting for one another: any other order would be overtaken.
        await asyncio.gather(*(store.save(one, expected=one.generation - 1, lease=None, now=NOW) for one in chain[1:]))
        assert await store.grant("billing") == chain[-1]

    tell(harness, story)


def test_of_two_answers_one_is_saved(harness: Harness) -> None:
    async def story(store: Store) -> None:
        grant = await enrolled(store)
        rivals = [replace(granted(grant), refresh=Secret(f"rival-{number}")) for number in range(2)]
        results = await asyncio.gather(
            *(store.save(rival, expected=0, lease=None, now=NOW) for rival in rivals), return_exceptions=True
        )
        assert sorted(type(result).__name__ for result in results) == ["NoneType", "Overtaken"]
        assert await store.grant("billing") == rivals[results.index(None)]

    tell(harness, story)


def test_a_cancelled_save_is_done_or_not_done(harness: Harness) -> None:
    async def story() -> None:
        async with opened(harness) as store:
            grant = await enrolled(store)
            saving = asyncio.ensure_future(store.save(granted(grant), expected=0, lease=None, now=NOW))
            await asyncio.sleep(0)
            saving.cancel()
            await asyncio.gather(saving, return_exceptions=True)
        async with opened(harness) as store:
            assert await store.grant("billing") in (grant, granted(grant))

    asyncio.run(story())


def test_close_waits_for_writes_that_were_begun(harness: Harness) -> None:
    async def story() -> None:
        store = harness.store()
        await store.open()
        grant = await enrolled(store)
        saving = asyncio.ensure_future(store.save(granted(grant), expected=0, lease=None, now=NOW))
        await asyncio.sleep(0)
        await store.close()
        await saving
        async with opened(harness) as again:
            assert await again.grant("billing") == granted(grant)

    asyncio.run(story())
