"""The register on PostgreSQL: what other daemons do to it, older ones too. What every register promises is in
`tests/contracts`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest

from rotator.core import errors, records
from rotator.core.errors import Unavailable
from rotator.core.ports import Delivery, Entry, Heard
from rotator.core.pressure import Line
from rotator.drivers.postgres import changes, entering, following, register, schema
from rotator.drivers.postgres.forms import Forms
from rotator.drivers.postgres.link import Address, Link, Statement
from rotator.drivers.postgres.schema import MIGRATIONS
from rotator.drivers.postgres.store import PostgresStore
from tests.contracts.stores import NOW, FakeClock, FakeDice, granted, in_line, intent, new
from tests.drivers.test_postgres import Relay, by_key, opened, tell, through
from tests.peers import postgres as peers
from tests.peers.postgres import Postgres

LEASE = timedelta(seconds=45)
MINUTE = timedelta(minutes=1)
ENTRIES = [Entry(name, "p", f'{{"client_id": "secret of {name}"}}') for name in ("a", "b", "c")]
EVERY_LINE = {("p", line): 9 for line in Line}


@pytest.fixture
def url(database_server: Postgres) -> str:
    return database_server.url(database_server.database())


def database(url: str) -> str:
    return url.rpartition("/")[2]


@asynccontextmanager
async def pair(url: str) -> AsyncIterator[tuple[PostgresStore, PostgresStore, FakeClock]]:
    """Two daemons that have looked once."""
    clock = FakeClock()
    async with opened(url, clock) as one, opened(url, clock) as two:
        for store in (one, two):
            await store.register.heard()
        yield one, two, clock


def test_a_store_that_refuses_us_for_a_while_is_no_fault_of_an_entry(database_server: Postgres, url: str) -> None:
    """Misconfigured would leave the entry out for good."""
    database_server.do("CREATE ROLE passing LOGIN SUPERUSER")
    theirs = database_server.url(database(url), user="passing")

    async def run() -> None:
        clock = FakeClock()
        async with opened(theirs, clock) as store:
            await store.register.enter(ENTRIES)
            database_server.do("ALTER ROLE passing NOLOGIN")
            database_server.cut()
            with pytest.raises(Unavailable, match="is not permitted to log in"):
                while True:
                    await store.register.entries(["a"])
            database_server.do("ALTER ROLE passing LOGIN")
            clock.pass_time(timedelta(minutes=1))
            assert [entry.name for entry in await store.register.entries(["a"])] == ["a"]

    try:
        asyncio.run(run())
    finally:
        database_server.do("ALTER ROLE passing NOLOGIN")


def test_a_record_that_cannot_be_read_keeps_no_other_news(database_server: Postgres, url: str) -> None:
    async def run() -> None:
        async with pair(url) as (one, two, clock):
            grants = [await one.enrol(new(name)) for name in ("a", "b", "c")]
            await two.news([grant.name for grant in grants])
            for grant in grants:
                await one.save(granted(grant), expected=0, lease=None, now=clock.now())
            database_server.do("UPDATE rotator_grants SET record = '{}' WHERE name = 'b'", database(url))
            heard = await two.news([grant.name for grant in grants])
            assert sorted(heard) == ["a", "c"]
            assert await two.news([grant.name for grant in grants]) == {}, "it is not asked for again and again"

    asyncio.run(run())


# --- what others did -----------------------------------------------------------------------------------------------


def test_what_another_did_is_heard_once_and_what_we_did_ourselves_never(url: str) -> None:
    async def run() -> None:
        async with pair(url) as (one, two, _):
            await one.register.enter(ENTRIES)
            assert await one.register.heard() == Heard()
            assert await two.register.heard() == Heard(entered=frozenset("abc"))
            assert await two.register.heard() == Heard()
            grant = await one.enrol(new("a"))
            lease, _ = await one.lease("a", "one", FakeClock().moment(), LEASE)
            await one.save(replace(grant, intent=intent(grant, lease.until)), expected=0, lease=lease, now=NOW)
            assert await two.register.heard() == Heard(), "nobody publishes an intent"
            await one.save(granted(grant), expected=0, lease=lease, now=NOW)
            assert await two.register.heard() == Heard(granted=frozenset("a"))
            await one.save(replace(granted(grant), due_at=NOW), expected=1, lease=lease, now=NOW)
            assert await two.register.heard() == Heard()
            assert await one.register.strike("b")
            assert await two.register.heard() == Heard(struck=frozenset("b"))
            # Its entry changed: what it holds may belong elsewhere by now.
            await two.register.enter([Entry("a", "p", "{}")])
            assert await one.register.heard() == Heard(entered=frozenset("a"), granted=frozenset("a"))
            assert await two.register.heard() == Heard()

    asyncio.run(run())


def test_who_comes_back_hears_who_was_struck_meanwhile_where_something_is_left_of_him(
    database_server: Postgres, url: str
) -> None:
    async def run() -> None:
        async with opened(url) as one:
            await one.register.enter(ENTRIES)
            await one.delivered(Delivery("a", "app", "file:/run/a", "lineage", 1, NOW, "mark"))
        async with opened(url) as other:
            assert await other.register.strike("a") and await other.register.strike("b")
        database_server.do("UPDATE rotator_struck SET struck_at = struck_at - interval '5 minutes'", database(url))
        async with opened(url) as one:
            assert (await one.register.heard()).struck == {"a"}
            assert (await one.register.heard()).struck == frozenset()
            # Nobody is remembered for ever.
            database_server.do("UPDATE rotator_struck SET struck_at = struck_at - interval '2 days'", database(url))
            assert await one.register.strike("c")
        assert database_server.do("SELECT name FROM rotator_struck", database(url)) == [("c",)]

    asyncio.run(run())


def test_a_look_is_one_round_trip_with_all_others_and_needs_no_table_scan(database_server: Postgres, url: str) -> None:
    async def run() -> None:
        async with pair(url) as (one, _, _):
            await one.news(["a"])
            before = one.counts
            await asyncio.gather(one.fleet("me"), one.news(["a"]), one.register.heard())
            assert one.counts[1] - before[1] == 1

    asyncio.run(run())
    since = NOW, timedelta(seconds=2)
    with psycopg.connect(url, autocommit=True) as eye:
        # What no index serves is scanned even so.
        eye.execute("SET enable_seqscan = off")
        for sql, values in (
            (changes.Changes.GRANTED, (*since, *since)), (changes.Changes.ENTERED, since),
            (register.PostgresRegister.IN_LINE, (["p", "q"], [0, 1], 1, 9)),
            (register.PostgresRegister.NEXT_IN_LINE, (["p", "q"], [0, 1], 1)),
            (changes.Changes.STRUCK, since), (following.Following.WRITTEN, (NOW, [], timedelta(seconds=2))),
        ):  # fmt: skip
            plan = "\n".join(row[0] for row in eye.execute(b"EXPLAIN " + sql.encode(), values).fetchall())
            assert "Seq Scan" not in plan, plan


def test_what_is_due_is_one_question_however_many_providers_there_are(url: str) -> None:
    """And a crowd at one of them keeps nobody of another out."""
    rooms = {(f"p{number}", line): 3 for number in range(300) for line in Line}
    crowd = [f"crowd{number}" for number in range(9)]

    async def run() -> None:
        async with opened(url) as store:
            await store.register.enter([Entry(name, "p0", "{}") for name in crowd] + [Entry("late", "p299", "{}")])
            for name in (*crowd, "late"):
                await store.enrol(new(name))
            before = store.counts
            found, first = await asyncio.gather(
                store.register.due(NOW, rooms),
                store.register.next_due(NOW - MINUTE, {provider: None for provider, _ in rooms}),
            )
            assert [after - now for after, now in zip(store.counts, before, strict=True)] == [2, 1]
            missing = Line.MISSING
            assert in_line(found) == {("p0", missing): crowd[:3], ("p299", missing): ["late"]}
            assert first == NOW

    asyncio.run(run())


def test_what_is_known_of_the_register_follows_what_was_done_lately(database_server: Postgres, url: str) -> None:
    names = [f"g{number:03}" for number in range(300)]

    async def run() -> None:
        async with pair(url) as (one, two, clock):
            await one.register.enter([Entry(name, "p", "{}") for name in names])
            grants = await asyncio.gather(*(one.enrol(new(name)) for name in names))
            await asyncio.gather(*(one.save(granted(each), expected=0, lease=None, now=NOW) for each in grants))
            assert (await two.register.heard()).granted == set(names)
            for table, column in (("register", "entered_at"), ("grants", "written_at"), ("grants", "granted_at")):
                past = f"UPDATE rotator_{table} SET {column} = {column} - interval '10 minutes'"
                database_server.do(past, database(url))
            for _ in range(3):
                clock.pass_time(2 * MINUTE)
                assert await one.register.heard() == await two.register.heard() == Heard()
            for store in (one, two):
                known = store._open_parts().known
                assert not any(known.get(name) for name in names)

    asyncio.run(run())


def test_who_only_waits_to_be_followed_by_configuration_is_not_taken_for_deleted(url: str) -> None:
    """A grant that one configures and another enters in the register stands in both, and nobody took it away."""

    async def run() -> None:
        async with pair(url) as (one, two, clock):
            grant = await one.enrol(new("a"))
            await one.news(["a"])
            await two.register.enter(ENTRIES[:1])
            await one.save(granted(grant), expected=0, lease=None, now=NOW)
            for _ in range(3):
                clock.pass_time(MINUTE)
                assert await one.news(["a"]) == {}

    asyncio.run(run())


def test_lost_answers_cost_nothing(database_server: Postgres, url: str) -> None:
    async def run() -> None:
        async with Relay(database_server.port).kept() as relay, opened(through(relay, database_server, url)) as store:
            await store.enrol(new("a"))
            relay.swallows = 1
            await store.register.enter(ENTRIES)
            assert relay.swallows == 0
            assert [one.name for one in await store.register.entries("abc")] == ["a", "b", "c"]
            relay.swallows = 1
            assert await store.register.strike("a") is True
            assert await store.due(NOW, 9) == ["a"]

    asyncio.run(run())


def test_a_record_that_does_not_know_where_it_belongs_is_put_right_by_the_walk(
    database_server: Postgres, url: str
) -> None:
    async def run() -> None:
        async with opened(url) as store:
            await store.register.enter(ENTRIES[:1])
            await store.enrol(new("a"))
            # Enrolled by one while another entered it: neither saw what the other wrote.
            database_server.do("UPDATE rotator_grants SET provider = NULL, due_at = visit_at, visit_at = NULL",
                               database(url))  # fmt: skip
            assert in_line(await store.register.due(NOW, EVERY_LINE)) == {}
            assert [one.due_at for one in await store.register.page("", 9)] == [NOW]
            assert [*in_line(await store.register.due(NOW, EVERY_LINE)).values()] == [["a"]]
            assert await store.due(NOW, 9) == []

    asyncio.run(run())


def test_what_a_server_lost_of_what_it_had_committed_is_told_once_by_who_had_seen_it(
    database_server: Postgres, url: str
) -> None:
    async def run() -> None:
        async with pair(url) as (one, two, _):
            await one.register.enter(ENTRIES)
            for name in ("a", "b"):
                await one.save(granted(await one.enrol(new(name))), expected=0, lease=None, now=NOW)
            await two.register.heard()
            past = "UPDATE rotator_grants SET generation = 0, granted_at = NULL, written_at = '2020-01-01'"
            database_server.do(f"{past} WHERE name = 'a'", database(url))
            # Another server, for all that is known: that is when it is looked at.
            database_server.cut()
            for store in (one, two):
                assert (await store.register.heard()).lost == {"a"}
                assert (await store.register.heard()).lost == frozenset()

    asyncio.run(run())


# --- entered and struck at the same instant ------------------------------------------------------------------------


@asynccontextmanager
async def writing(url: str, *statements: Statement) -> AsyncIterator[Callable[[], bool]]:
    """Another daemon wrote these and has not committed yet; it does at the end. Tells whether anybody waits for it."""
    other = await psycopg.AsyncConnection.connect(url)
    try:
        for sql, values in statements:
            await other.execute(sql, values)
        with psycopg.connect(url, autocommit=True) as eye:
            blocked = "SELECT 1 FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
            yield lambda: bool(eye.execute(blocked, (other.info.backend_pid,)).fetchall())
        await other.commit()
    finally:
        await other.close()


async def until(is_so: Callable[[], bool]) -> None:
    await asyncio.to_thread(peers.wait, is_so, "somebody who waits")


def test_who_is_entered_at_the_instant_of_its_retirement_keeps_its_record(url: str) -> None:
    async def run() -> None:
        async with pair(url) as (one, _, _):
            await one.register.enter(ENTRIES[:1])
            await one.enrol(new("a"))
            assert await one.register.strike("a")
            async with writing(url, *entering.enter(ENTRIES[:1], Forms(None))) as is_awaited:
                retiring = asyncio.create_task(one.retire("a"))
                await until(is_awaited)
            assert await retiring is False
            assert await one.grant("a") == new("a")
            assert [*in_line(await one.register.due(NOW, EVERY_LINE)).values()] == [["a"]]

    asyncio.run(run())


@pytest.mark.parametrize("how", ["enrol", "claim"])
def test_who_is_struck_at_the_instant_of_its_enrolment_is_none_of_the_register(
    database_server: Postgres, url: str, how: str
) -> None:
    """It would be due for ever to those who have no entry for it, and nobody could retire it."""

    async def run() -> None:
        async with pair(url) as (one, _, _):
            await one.register.enter(ENTRIES[:1])
            if how == "claim":
                await one.enrol(new("a"))
                strayed = "UPDATE rotator_grants SET provider = NULL, due_at = visit_at, visit_at = NULL"
                database_server.do(strayed, database(url))
            async with writing(url, *entering.strike("a")) as is_awaited:
                works = one.enrol(new("a")) if how == "enrol" else one.register.page("", 9)
                work = asyncio.ensure_future(works)
                await until(lambda: is_awaited() or work.done())
            await work
            assert database_server.do("SELECT provider FROM rotator_grants", database(url)) == [(None,)]
            assert await one.retire("a")

    asyncio.run(run())


def test_a_record_whose_entry_is_gone_takes_nobodys_room(database_server: Postgres, url: str) -> None:
    async def story(store: PostgresStore) -> None:
        await store.register.enter(ENTRIES)
        for entry in ENTRIES:
            await store.enrol(new(entry.name))
        database_server.do("DELETE FROM rotator_register WHERE name <> 'c'", database(url))
        missing = "p", Line.MISSING
        assert in_line(await store.register.due(NOW, {missing: 1})) == {missing: ["c"]}
        # Whoever strikes it, though it is gone, makes an ordinary record of it, that may be retired.
        assert await store.register.strike("a") is False
        assert await store.retire("a") is True

    tell(url, story)  # type: ignore[arg-type]


def test_a_census_counts_piece_by_piece(url: str) -> None:
    async def story(store: PostgresStore) -> None:
        await store.register.enter([Entry(f"g{number:05}", "p", "{}") for number in range(12_000)])
        assert (await store.register.census(NOW)).total == 12_000

    tell(url, story)  # type: ignore[arg-type]


# --- beside older daemons ------------------------------------------------------------------------------------------

# As the version before the register wrote and asked.
OLD_ENROL = """INSERT INTO rotator_grants (name, lineage, generation, due_at, record, at, written_at)
    VALUES (%s, %s, 0, %s, %s, 1, clock_timestamp())"""
OLD_SAVE = "UPDATE rotator_grants SET generation = %s, due_at = %s, record = %s, written_at = clock_timestamp()"
OLD_DUE = "SELECT name FROM rotator_grants WHERE due_at <= %s ORDER BY due_at LIMIT 99"


def old_tables(url: str) -> None:
    async def run() -> None:
        link = Link(Address(url), FakeClock(), FakeDice(), writes=True)  # type: ignore[arg-type]
        try:
            await schema.prepare(link, read_only=False, migrations=MIGRATIONS[:1])
        finally:
            await link.drop()

    asyncio.run(run())
    with psycopg.connect(url, autocommit=True) as older:
        older.execute("INSERT INTO rotator_meta (id, key) VALUES (1, 'key')")


def test_tables_without_a_register_are_brought_on_with_what_stands_in_them(url: str) -> None:
    old_tables(url)

    async def read(store: PostgresStore) -> None:
        assert await store.grants() == []

    tell(url, read, read_only=True)  # type: ignore[arg-type]

    async def story(store: PostgresStore) -> None:
        with psycopg.connect(url, autocommit=True) as older:
            record = store._forms.write(new("a"))
            older.execute(OLD_ENROL, ("a", "lineage-1", records.stamp(NOW), record))
        assert await store.due(NOW, 9) == ["a"]
        await store.register.enter(ENTRIES)
        assert await store.due(NOW, 9) == []
        assert [*in_line(await store.register.due(NOW, EVERY_LINE)).values()] == [["a"]]

    tell(url, story)  # type: ignore[arg-type]


def test_an_older_daemon_sees_nobody_of_the_register_as_due_and_what_it_saves_is_put_right(url: str) -> None:
    async def story(store: PostgresStore) -> None:
        await store.register.enter(ENTRIES)
        grant = await store.enrol(new("a"))
        lease, _ = await store.lease("a", "me", FakeClock().moment(), LEASE)
        with psycopg.connect(url, autocommit=True) as older:
            due = records.stamp(NOW + timedelta(hours=9))
            assert older.execute(OLD_DUE, (due,)).fetchall() == []
            await store.save(granted(grant), expected=0, lease=lease, now=NOW)
            assert older.execute(OLD_DUE, (due,)).fetchall() == []
            # It has the same one in its configuration.
            later = replace(granted(granted(grant)), due_at=NOW + 3 * MINUTE)
            older.execute(OLD_SAVE, (2, records.stamp(NOW + 3 * MINUTE), store._forms.write(later)))
        assert await store.due(NOW + 3 * MINUTE, 9) == []
        await store.release(lease)
        # Due here by what was known before; whoever looks again under the lease leaves it as it is stored.
        _, found = await store.lease("a", "me", FakeClock().moment(), LEASE)
        assert found == later
        assert in_line(await store.register.due(NOW + 2 * MINUTE, EVERY_LINE)) == {}
        assert [*in_line(await store.register.due(NOW + 3 * MINUTE, EVERY_LINE)).values()] == [["a"]]

    tell(url, story)  # type: ignore[arg-type]


# --- sealed --------------------------------------------------------------------------------------------------------


def test_entries_are_sealed_and_sealed_anew(database_server: Postgres, url: str) -> None:
    async def write(store: PostgresStore) -> None:
        await store.register.enter(ENTRIES)
        await store.enrol(new("a"))

    async def read(store: PostgresStore) -> None:
        assert await store.register.entries(["a", "b", "c"]) == ENTRIES

    async def anew(store: PostgresStore) -> None:
        assert await store.seal_anew() == 1 + len(ENTRIES)

    tell(url, write, seal=by_key(7))  # type: ignore[arg-type]
    dump = str(database_server.do("SELECT * FROM rotator_register", database(url)))
    assert "secret" not in dump and '"sealed"' in dump
    tell(url, read, seal=by_key(7))  # type: ignore[arg-type]
    tell(url, anew, seal=by_key(9, 7))  # type: ignore[arg-type]
    tell(url, read, seal=by_key(9))  # type: ignore[arg-type]
    # One in the place of another.
    database_server.do(
        "UPDATE rotator_register SET text = (SELECT text FROM rotator_register WHERE name = 'b') WHERE name = 'a'",
        database(url),
    )
    with pytest.raises(errors.StateDamaged):
        tell(url, read, seal=by_key(9))  # type: ignore[arg-type]
