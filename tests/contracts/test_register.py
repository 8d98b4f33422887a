"""What every store with a register promises: `rotator.core.ports.Register`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from rotator.core.grants import OutcomeClass, Trouble
from rotator.core.health import Census, Listed
from rotator.core.ports import Entry, Heard, Register, Store
from rotator.core.pressure import Line
from tests.contracts import stores
from tests.contracts.stores import NOW, Harness, granted, new

MINUTE = timedelta(minutes=1)
LEASE = timedelta(seconds=45)
ENTRIES = [Entry(name, "p", f'{{"client_id": "{name}"}}') for name in ("a", "b", "c", "d", "e")]


@pytest.fixture(params=[*stores.HARNESSES, "postgres"])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    if request.param == "postgres":
        yield stores.PostgresHarness(request.getfixturevalue("database_server"))
        return
    with stores.HARNESSES[request.param](tmp_path) as made:
        yield made


@asynccontextmanager
async def opened(harness: Harness) -> AsyncIterator[tuple[Store, Register]]:
    store = harness.store()
    await store.open()
    try:
        assert store.register is not None
        yield store, store.register
    finally:
        await store.close()


def tell(harness: Harness, story: Callable[[Store, Register], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(harness) as (store, register):
            await story(store, register)

    asyncio.run(run())


def test_what_was_entered_is_there_after_a_restart_and_prints_nothing(harness: Harness) -> None:
    async def story() -> None:
        async with opened(harness) as (_, register):
            await register.enter(ENTRIES)
        async with opened(harness) as (_, register):
            assert await register.entries(["a", "c", "unknown"]) == [ENTRIES[0], ENTRIES[2]]
            assert await register.entries([]) == []

    asyncio.run(story())
    assert "client_id" not in repr(ENTRIES[0])


def test_an_entry_is_replaced_and_struck(harness: Harness) -> None:
    async def story(_: Store, register: Register) -> None:
        await register.enter(ENTRIES)
        changed = Entry("b", "p", '{"client_id": "other"}')
        await register.enter([changed])
        assert await register.entries(["b"]) == [changed]
        assert await register.strike("b")
        assert not await register.strike("b")
        assert await register.entries(["b"]) == []

    tell(harness, story)


def test_it_is_read_page_by_page_with_what_is_known_of_each(harness: Harness) -> None:
    async def story(store: Store, register: Register) -> None:
        await register.enter(ENTRIES)
        grant = await store.enrol(new("b"))
        lease, _ = await store.lease("b", "owner", harness.clock.moment(), LEASE)
        saved = granted(grant)
        await store.save(saved, expected=0, lease=lease, now=NOW)
        await store.enrol(new("c"))
        assert saved.access is not None
        assert await register.page("", 3) == [
            Listed("a", "p", 0, None, None),
            Listed("b", "p", 1, saved.access.expires_at, saved.due_at),
            Listed("c", "p", 0, None, NOW),
        ]
        assert [one.name for one in await register.page("c", 3)] == ["d", "e"]
        assert await register.page("e", 3) == []

    tell(harness, story)


def test_its_census_counts_those_in_it_and_nobody_else(harness: Harness) -> None:
    async def story(store: Store, register: Register) -> None:
        await register.enter(ENTRIES)
        for name, due_at in (("a", NOW), ("b", NOW - 2 * MINUTE), ("c", None), ("stranger", NOW - 2 * MINUTE)):
            await store.enrol(new(name, due_at=due_at))
        lease, grant = await store.lease("a", "owner", harness.clock.moment(), LEASE)
        await store.save(granted(grant), expected=0, lease=lease, now=NOW)
        assert await register.census(NOW) == Census(total=5, valid=1, resting=1, overdue=1)
        assert await register.census(NOW + timedelta(hours=2)) == Census(total=5, valid=0, resting=1, overdue=2)
        # A person is needed although a token is valid still.
        lease, grant = await store.lease("a", "owner", harness.clock.moment(), LEASE)
        await store.save(replace(grant, due_at=None), expected=1, lease=lease, now=NOW)
        assert await register.census(NOW) == Census(total=5, valid=1, resting=2, overdue=1)

    tell(harness, story)


def test_of_each_provider_and_line_those_longest_overdue_are_due_as_many_as_there_is_room(harness: Harness) -> None:
    """Neither can ten thousand new ones keep out one that is in order, nor one provider another."""

    async def story(store: Store, register: Register) -> None:
        async def put(name: str, provider: str, due_at: datetime, *, held: bool = False, failing: bool = False) -> None:
            await register.enter([Entry(name, provider, "{}")])
            grant = await store.enrol(new(name, due_at=due_at))
            if held:
                lease, _ = await store.lease(name, "owner", harness.clock.moment(), LEASE)
                grant = replace(granted(grant), due_at=due_at)
                if failing:
                    grant = replace(grant, trouble=Trouble(OutcomeClass.BUSY, "busy", "", NOW, 1))
                await store.save(grant, expected=0, lease=lease, now=NOW)

        for number in range(4):
            await put(f"new{number}", "p", NOW - number * MINUTE)
        await put("held", "p", NOW, held=True)
        await put("soon", "p", NOW + MINUTE, held=True)
        await put("failing", "p", NOW - 9 * MINUTE, held=True, failing=True)
        await put("other", "q", NOW - MINUTE, held=True)
        await store.enrol(new("resident", due_at=NOW - 5 * MINUTE))
        rooms = {("p", Line.HELD): 2, ("p", Line.MISSING): 3, ("p", Line.FAILING): 0, ("q", Line.HELD): 9}
        assert stores.in_line(await register.due(NOW, rooms)) == {
            ("p", Line.HELD): ["held"], ("p", Line.MISSING): ["new3", "new2", "new1"], ("q", Line.HELD): ["other"],
        }  # fmt: skip
        assert stores.in_line(await register.due(NOW, {("p", Line.FAILING): 9})) == {("p", Line.FAILING): ["failing"]}
        assert stores.in_line(await register.due(NOW, {})) == {}
        assert await register.next_due(NOW - 9 * MINUTE, []) is None
        assert await store.due(NOW, 99) == ["resident"], "who keeps to the configuration does not see the register"
        assert await store.next_due(NOW - 9 * MINUTE) == NOW - 5 * MINUTE
        assert await register.next_due(NOW, ["p", "q"]) == NOW + MINUTE
        assert await register.next_due(NOW - 2 * MINUTE, ["q"]) == NOW - MINUTE
        assert await register.next_due(NOW, ["q"]) is None
        assert await register.strike("other")
        assert await store.due(NOW, 99) == ["resident", "other"]
        # Entered although it has a record already: it is one of the register from then on.
        await register.enter([Entry("resident", "q", "{}")])
        assert await store.due(NOW, 99) == ["other"]
        missing = "q", Line.MISSING
        assert stores.in_line(await register.due(NOW, {missing: 9})) == {missing: ["resident"]}

    tell(harness, story)


def test_a_grant_is_not_retired_while_it_stands_in_it(harness: Harness) -> None:
    async def story(store: Store, register: Register) -> None:
        await register.enter(ENTRIES[:1])
        await store.enrol(new("a"))
        assert await store.retire("a") is False
        assert await register.page("", 9) == [Listed("a", "p", 0, None, NOW)]
        assert await register.strike("a")
        assert await store.retire("a") is True
        assert await register.page("", 9) == await store.grants() == []

    tell(harness, story)


def test_of_one_name_in_an_order_the_last_counts_and_nobody_is_told_of_his_own_doing(harness: Harness) -> None:
    async def story(store: Store, register: Register) -> None:
        await register.heard()
        changed = Entry("a", "p", '{"client_id": "other"}')
        await register.enter([*ENTRIES, changed])
        assert await register.entries(["a"]) == [changed]
        await store.save(granted(await store.enrol(new("a"))), expected=0, lease=None, now=NOW)
        await register.strike("b")
        assert await register.heard() == Heard()

    tell(harness, story)


def test_who_is_entered_once_more_after_it_was_struck_is_in_it(harness: Harness) -> None:
    async def story(store: Store, register: Register) -> None:
        await register.enter(ENTRIES[:1])
        await store.enrol(new("a"))
        assert await register.strike("a")
        missing = "p", Line.MISSING
        assert stores.in_line(await register.due(NOW, {missing: 9})) == {}
        await register.enter(ENTRIES[:1])
        assert stores.in_line(await register.due(NOW, {missing: 9})) == {missing: ["a"]}
        assert await store.due(NOW, 9) == []

    tell(harness, story)
