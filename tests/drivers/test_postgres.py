"""PostgreSQL as the store: what a server, a network and other daemons do to it. What every store promises is in
`tests/contracts`."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from rotator.core import errors
from rotator.core.ports import Delivery, Entry
from rotator.core.tokens import Secret
from rotator.drivers import seal
from rotator.drivers.postgres import following, schema
from rotator.drivers.postgres.link import Address, Link
from rotator.drivers.postgres.schema import MIGRATIONS, VERSION, Migration
from rotator.drivers.postgres.store import PostgresStore
from tests.contracts.stores import NOW, FakeClock, FakeDice, granted, intent, new
from tests.drivers.test_http_tls import Authorities, Authority, authorities  # noqa: F401 (a fixture)
from tests.peers import ports
from tests.peers import postgres as peers
from tests.peers.openbao import PATIENCE
from tests.peers.postgres import Postgres

LEASE = timedelta(seconds=45)
SECOND = timedelta(seconds=1)
Story = Callable[[PostgresStore], Awaitable[None]]


@pytest.fixture
def url(database_server: Postgres) -> str:
    return database_server.url(database_server.database())


@asynccontextmanager
async def opened(url: str, clock: FakeClock | None = None, **more: object) -> AsyncIterator[PostgresStore]:
    address = Address(url, more.pop("password", None))  # type: ignore[arg-type]
    store = PostgresStore(address, clock=clock or FakeClock(), dice=FakeDice(), host="here", **more)  # type: ignore[arg-type]
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def tell(url: str, story: Story, **more: object) -> None:
    async def run() -> None:
        async with opened(url, **more) as store:  # type: ignore[arg-type]
            await story(store)

    asyncio.run(run())


# --- together ------------------------------------------------------------------------------------------------------


def test_a_herd_shares_round_trips_and_statements(url: str, figures: Callable[[str], None]) -> None:
    names = [f"grant_{number:03}" for number in range(200)]

    async def story(store: PostgresStore) -> None:
        moment = FakeClock().moment()
        grants = await asyncio.gather(*(store.enrol(new(name)) for name in names))
        before = store.counts
        leases = await asyncio.gather(*(store.lease(name, "me", moment, LEASE) for name in names))
        intents = [replace(one, intent=intent(one, moment)) for one in grants]
        for saved in (intents, [granted(one) for one in grants]):
            await asyncio.gather(*(
                store.save(one, expected=0, lease=lease, now=NOW)
                for one, (lease, _) in zip(saved, leases, strict=True)
            ))  # fmt: skip
        await asyncio.gather(*(store.release(lease) for lease, _ in leases))
        statements, trips = (after - now for after, now in zip(store.counts, before, strict=True))
        figures(f"postgres: {len(names)} rotations at once: {statements} statements in {trips} round trips")
        assert (statements, trips) == (4, 4)
        assert [one.generation for one in await store.grants()] == [1] * len(names)

    tell(url, story)


def test_a_lone_rotation_is_four_statements(url: str) -> None:
    async def story(store: PostgresStore) -> None:
        grant, before = await store.enrol(new()), store.counts
        lease, _ = await store.lease("billing", "me", FakeClock().moment(), LEASE)
        await store.save(replace(grant, intent=intent(grant, lease.until)), expected=0, lease=lease, now=NOW)
        await store.save(granted(grant), expected=0, lease=lease, now=NOW)
        await store.release(lease)
        assert tuple(after - now for after, now in zip(store.counts, before, strict=True)) == (4, 4)

    tell(url, story)


# --- connections that break ----------------------------------------------------------------------------------------


class Relay:
    """A way to the server that can break after a request went out and before its answer came back."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.port = 0
        self.swallows = 0
        self.is_shut = False
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[Relay]:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self._server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        if self.is_shut:
            writer.close()
            return
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        armed = False

        async def up() -> None:
            nonlocal armed
            while data := await reader.read(1 << 16):
                # What is a statement of ours, and not a part of the greeting.
                armed = self.swallows > 0 and b"rotator_grants" in data
                up_writer.write(data)
                await up_writer.drain()
            up_writer.close()

        async def down() -> None:
            while data := await up_reader.read(1 << 16):
                if armed:
                    # The server has done it; nobody hears of it.
                    self.swallows -= 1
                    return
                writer.write(data)
                await writer.drain()

        ways = [asyncio.create_task(up()), asyncio.create_task(down())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            writer.close()
            up_writer.close()


def through(relay: Relay, server: Postgres, url: str) -> str:
    return url.replace(f":{server.port}/", f":{relay.port}/") + "?sslmode=disable&gssencmode=disable"


@pytest.mark.parametrize("swallows", [1, 3])
def test_a_commit_whose_answer_is_lost_is_looked_for(database_server: Postgres, url: str, swallows: int) -> None:
    async def run() -> None:
        async with Relay(database_server.port).kept() as relay, opened(through(relay, database_server, url)) as store:
            grant = await store.enrol(new())
            lease, _ = await store.lease("billing", "me", FakeClock().moment(), LEASE)
            relay.swallows = swallows
            await store.save(granted(grant), expected=0, lease=lease, now=NOW)
            assert relay.swallows == 0
            assert await store.grant("billing") == granted(grant)
            # What was meant for the same place and is not ours is overtaken as ever.
            with pytest.raises(errors.Overtaken):
                await store.save(replace(granted(grant), refresh=Secret("rival")), expected=0, lease=lease, now=NOW)

    asyncio.run(run())


def test_a_save_that_stayed_unanswered_is_known_again_later(database_server: Postgres, url: str) -> None:
    clock = FakeClock()

    async def run() -> None:
        async with (
            Relay(database_server.port).kept() as relay,
            opened(through(relay, database_server, url), clock) as store,
        ):
            grant = await store.enrol(new())
            relay.swallows = 1_000
            with pytest.raises(errors.Unavailable):
                await store.save(granted(grant), expected=0, lease=None, now=NOW)
            relay.swallows = 0
            clock.pass_time(timedelta(seconds=10))
            await store.save(granted(grant), expected=0, lease=None, now=NOW)
            assert await store.grant("billing") == granted(grant)

    asyncio.run(run())


def test_leases_and_the_rest_survive_lost_answers(database_server: Postgres, url: str) -> None:
    async def run() -> None:
        async with Relay(database_server.port).kept() as relay, opened(through(relay, database_server, url)) as store:
            relay.swallows = 1
            grant = await store.enrol(new())
            relay.swallows = 1
            lease, found = await store.lease("billing", "me", FakeClock().moment(), LEASE)
            assert found == grant
            await store.save(replace(grant, due_at=None), expected=0, lease=lease, now=NOW)
            relay.swallows = 1
            await store.release(lease)
            await store.lease("billing", "you", FakeClock().moment(), LEASE)
            relay.swallows = 1
            assert await store.retire("billing") is True

    asyncio.run(run())


def test_sessions_that_an_administrator_ends_are_made_anew(database_server: Postgres, url: str) -> None:
    async def story(store: PostgresStore) -> None:
        grant = await store.enrol(new())
        for _ in range(3):
            assert database_server.cut() >= 1
            await store.save(granted(grant), expected=grant.generation, lease=None, now=NOW)
            grant = granted(grant)
            assert await store.grant("billing") == grant

    tell(url, story)


def test_a_server_that_is_away_is_told_once_and_not_hammered(database_server: Postgres, url: str) -> None:
    clock = FakeClock()

    async def run() -> None:
        async with (
            Relay(database_server.port).kept() as relay,
            opened(through(relay, database_server, url), clock) as store,
        ):
            await store.enrol(new())
            relay.is_shut = True
            database_server.cut()
            dialled = len(relay._tasks)
            for _ in range(20):
                with pytest.raises(errors.Unavailable, match="cannot be reached"):
                    await store.enrol(new("other"))
            assert len(relay._tasks) - dialled <= 2
            relay.is_shut = False
            clock.pass_time(timedelta(seconds=10))
            await store.enrol(new("other"))

    asyncio.run(run())


def test_a_save_that_comes_late_over_a_dead_connection_changes_nothing(url: str) -> None:
    """An intent of long ago, in a session that was given up while it stood still, must not follow what came after."""

    async def story(store: PostgresStore) -> None:
        grant = await store.enrol(new())
        lease, _ = await store.lease("billing", "me", FakeClock().moment(), LEASE)
        late = replace(grant, intent=intent(grant, lease.until))
        parts = store._open_parts()
        before = store._steps
        await store.save(late, expected=0, lease=lease, now=NOW)
        after = replace(grant, due_at=NOW + SECOND)
        await store.save(after, expected=0, lease=lease, now=NOW)
        # The same statement once more, with the number that it had.
        store._steps = iter([1])  # type: ignore[assignment]
        with pytest.raises(errors.Overtaken):
            await store.save(late, expected=0, lease=lease, now=NOW)
        store._steps = before
        assert parts is store._open_parts()
        assert await store.grant("billing") == after

    tell(url, story)


# --- refusals, each with the mending step --------------------------------------------------------------------------


def role(server: Postgres, url: str, name: str, *settings: str) -> str:
    """A role of its own that may do what ours may; the URL that it uses."""
    database = url.rpartition("/")[2]
    server.do(f"CREATE ROLE {name} LOGIN")
    for one in settings:
        server.do(f"ALTER ROLE {name} {one}")
    server.do(f"GRANT ALL ON SCHEMA public TO {name}", database)
    return server.url(database, name)


def test_a_statement_that_takes_too_long(database_server: Postgres, url: str) -> None:
    limited = role(database_server, url, "limited")

    async def story(store: PostgresStore) -> None:
        grant = await store.enrol(new())
        database_server.do("ALTER ROLE limited SET statement_timeout = '1s'")
        database_server.cut()
        with psycopg.connect(url) as holder:
            holder.execute("SELECT 1 FROM rotator_grants FOR UPDATE")
            with pytest.raises(errors.Unavailable, match="statement_timeout"):
                await store.save(granted(grant), expected=0, lease=None, now=NOW)
            # A lease does not wait for whoever writes there.
            with pytest.raises(errors.Overtaken) as told:
                await store.lease("billing", "me", FakeClock().moment(), LEASE)
            assert told.value.left is not None
        await store.save(granted(grant), expected=0, lease=None, now=NOW)

    tell(limited, story)


def test_a_server_without_a_connection_to_spare(database_server: Postgres, url: str) -> None:
    lonely = role(database_server, url, "lonely", "CONNECTION LIMIT 1")

    async def story(store: PostgresStore) -> None:
        with pytest.raises(errors.Unavailable, match="no connection to spare; raise max_connections"):
            await store.grants()

    tell(lonely, story)


def test_a_role_without_rights(database_server: Postgres, url: str) -> None:
    async def story(store: PostgresStore) -> None:
        await store.enrol(new())

    tell(url, story)
    poor = role(database_server, url, "poor")
    with pytest.raises(errors.Misconfigured, match=r"permission denied.*; the role may not do that"):
        tell(poor, story)


def test_a_role_that_owns_nothing_will_do(database_server: Postgres, url: str) -> None:
    """The rights of docs/postgresql.md, and no more."""
    database = url.rpartition("/")[2]

    async def made(store: PostgresStore) -> None:
        await store.enrol(new())

    async def used(store: PostgresStore) -> None:
        grant = await store.enrol(new("other"))
        lease, _ = await store.lease("other", "me", FakeClock().moment(), LEASE)
        await store.save(granted(grant), expected=0, lease=lease, now=NOW)
        await store.release(lease)
        await store.delivered(Delivery("other", "app", "vault:a", grant.lineage, 1, NOW, "mark"))
        await store.news(["other"])
        assert await store.fleet("me") == {"me"}
        await store.register.enter([Entry("entered", "p", "{}")])
        await store.register.heard()
        assert await store.register.strike("entered")
        await store.forget("other", "vault:a")
        assert await store.retire("other") is True
        assert await store.high_water() is not None

    tell(url, made)
    database_server.do("CREATE ROLE modest LOGIN")
    page = (Path(__file__).parents[2] / "docs" / "postgresql.md").read_text()
    (rights,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    database_server.do(rights.replace("TO rotator;", "TO modest;"), database)
    tell(database_server.url(database, "modest"), used)


def test_a_database_that_only_reads(database_server: Postgres, url: str) -> None:
    database = url.rpartition("/")[2]

    async def run() -> None:
        async with opened(url) as store:
            grant = await store.enrol(new())
            database_server.do(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
            database_server.cut()
            with pytest.raises(errors.Unavailable, match="read-only standby answered; let state"):
                await store.save(granted(grant), expected=0, lease=None, now=NOW)
            assert await store.grant("billing") == grant
            database_server.do(f"ALTER DATABASE {database} RESET default_transaction_read_only")
            await store.save(granted(grant), expected=0, lease=None, now=NOW)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("wrong", "error", "told"),
    [
        ("postgresql://admin@127.0.0.1:{port}/nowhere", errors.Misconfigured, "create the database"),
        ("postgresql://nobody@127.0.0.1:{port}/postgres", errors.Misconfigured, 'role "nobody" does not exist'),
        ("postgresql://admin@127.0.0.1:{free}/postgres", errors.Unavailable, "cannot be reached"),
        ("postgresql://admin@127.0.0.1:{port}/postgres?colour=blue", errors.Misconfigured, "libpq reads"),
        ("postgresql://admin@127.0.0.1:{port}/postgres?options=-cno.such", errors.RotatorError, "state"),
    ],
)  # fmt: skip
def test_a_way_that_leads_nowhere(database_server: Postgres, wrong: str, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told) as refused:
        tell(wrong.format(port=database_server.port, free=ports.free()), lambda store: asyncio.sleep(0))
    assert "\n" not in str(refused.value)


def test_a_password_is_asked_for_each_connection_and_never_told(database_server: Postgres, url: str) -> None:
    database = url.rpartition("/")[2]
    database_server.do("CREATE ROLE secretive LOGIN PASSWORD 'right-horse'")
    database_server.do("GRANT ALL ON SCHEMA public TO secretive", database)
    hba = database_server.data / "pg_hba.conf"
    before = hba.read_text()
    hba.write_text("host all secretive 127.0.0.1/32 scram-sha-256\n" + before)
    given = ["wrong-horse"]
    asked = 0

    async def password() -> Secret:
        nonlocal asked
        asked += 1
        return Secret(given[0])

    async def story(store: PostgresStore) -> None:
        await store.enrol(new())
        database_server.cut()
        await store.enrol(new("other"))

    try:
        database_server.do("SELECT pg_reload_conf()")
        address = database_server.url(database, "secretive")
        with pytest.raises(errors.Misconfigured, match=r"state\.password") as refused:
            tell(address, story, password=password)
        assert "horse" not in str(refused.value) + repr(refused.value.__cause__)
        given[0] = "right-horse"
        tell(address, story, password=password)
        assert asked >= 3
    finally:
        hba.write_text(before)
        database_server.do("SELECT pg_reload_conf()")


def test_tls_is_verified_in_full(
    database_server: Postgres,
    url: str,
    tmp_path: Path,
    authorities: Authorities,  # noqa: F811
) -> None:
    ours, other = authorities
    server, database = database_server, url.rpartition("/")[2]
    certify(server, ours)

    async def story(store: PostgresStore) -> None:
        await store.enrol(new())
        rows = server.do("SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) "
                         "WHERE application_name = 'rotator'")  # fmt: skip
        assert rows == [(True,)]

    tell(server.url(database, sslmode="verify-full", sslrootcert=str(ours.file)), story)
    for wrong in (
        server.url(database, sslmode="verify-full", sslrootcert=str(other.file)),
        server.url(database, sslmode="verify-full", sslrootcert=str(ours.file)).replace("127.0.0.1", "localhost"),
        server.url(database, sslmode="verify-full", sslrootcert=str(tmp_path / "missing.pem")),
    ):
        with pytest.raises(errors.Misconfigured, match="is not reached over TLS"):
            tell(wrong, story)


def certify(server: Postgres, ca: Authority) -> None:
    ca.server("127.0.0.1")
    pair = server.folder / "server.pem"
    pair.write_bytes((ca.folder / f"{ca.name}-127.0.0.1-1.pem").read_bytes())
    server.own(pair)
    for setting in (f"ssl_cert_file = '{pair}'", f"ssl_key_file = '{pair}'", "ssl = on"):
        server.do(f"ALTER SYSTEM SET {setting}")
    server.do("SELECT pg_reload_conf()")
    peers.wait(lambda: server.do("SHOW ssl") == [("on",)], "TLS")


# --- the tables ----------------------------------------------------------------------------------------------------

NEXT = VERSION + 1
LATER = Migration(NEXT, 1, ("ALTER TABLE rotator_grants ADD COLUMN IF NOT EXISTS colour text NOT NULL DEFAULT 'blue'",))
MUCH_LATER = Migration(NEXT + 1, NEXT + 1, ("ALTER TABLE rotator_grants DROP COLUMN IF EXISTS colour",))


def migrate(url: str, *more: Migration) -> None:
    async def run() -> None:
        link = Link(Address(url), FakeClock(), FakeDice(), writes=True)  # type: ignore[arg-type]
        try:
            await schema.prepare(link, read_only=False, migrations=(*MIGRATIONS, *more))
        finally:
            await link.drop()

    asyncio.run(run())


def test_many_daemons_that_start_together_make_the_tables_once(database_server: Postgres, url: str) -> None:
    async def run() -> None:
        stores = [
            PostgresStore(Address(url), clock=FakeClock(), dice=FakeDice(), host="here")  # type: ignore[arg-type]
            for _ in range(8)
        ]
        await asyncio.gather(*(one.open() for one in stores))
        keys = {await one.key() for one in stores}
        await asyncio.gather(*(one.close() for one in stores))
        assert len(keys) == 1

    asyncio.run(run())
    rows = database_server.do("SELECT version FROM rotator_migrations ORDER BY version", url.rpartition("/")[2])
    assert rows == [(0,), *((one.version,) for one in MIGRATIONS)]


def test_an_older_daemon_works_on_beside_a_newer_one_until_a_step_takes_away_what_it_needs(url: str) -> None:
    async def run() -> None:
        async with opened(url) as older:
            grant = await older.enrol(new())
            await asyncio.to_thread(migrate, url, LATER)
            await older.save(granted(grant), expected=0, lease=None, now=NOW)
        async with opened(url) as older:
            assert await older.grant("billing") == granted(grant)
        await asyncio.to_thread(migrate, url, LATER, MUCH_LATER)
        with pytest.raises(errors.StateDamaged, match=f"needs a rotator that knows {NEXT + 1}"):
            async with opened(url):
                pass

    asyncio.run(run())


def test_a_step_that_was_cut_short_is_run_again(database_server: Postgres, url: str) -> None:
    broken = replace(LATER, statements=(*LATER.statements, "SELECT 1 / 0"))
    with pytest.raises(errors.RotatorError):
        migrate(url, broken)
    migrate(url, LATER)
    rows = database_server.do("SELECT max(version) FROM rotator_migrations", url.rpartition("/")[2])
    assert rows == [(NEXT,)]


def test_a_step_gives_way_to_a_long_reader_so_that_nobody_waits_behind_it(database_server: Postgres, url: str) -> None:
    """Behind pg_dump it would wait for its lock, and all who are at work would wait behind it."""

    async def run() -> None:
        async with opened(url) as older:
            grant = await older.enrol(new())
            with psycopg.connect(url) as reader:
                reader.execute("SELECT 1 FROM rotator_grants")
                waits = f"SELECT 1 FROM pg_stat_activity WHERE {reader.info.backend_pid} = ANY(pg_blocking_pids(pid))"
                step = asyncio.create_task(asyncio.to_thread(migrate, url, LATER))
                await asyncio.to_thread(peers.wait, lambda: database_server.do(waits), "the step")
                # While the reader still reads; without an end, where the step waited like anybody else.
                async with asyncio.timeout(PATIENCE):
                    await older.save(granted(grant), expected=0, lease=None, now=NOW)
            await step

    asyncio.run(run())
    rows = database_server.do("SELECT max(version) FROM rotator_migrations", url.rpartition("/")[2])
    assert rows == [(NEXT,)]


def test_who_only_reads_makes_nothing(database_server: Postgres, url: str) -> None:
    async def story(store: PostgresStore) -> None:
        with pytest.raises(errors.Unavailable, match="for reading only"):
            await store.enrol(new())

    with pytest.raises(errors.Unavailable, match="no state"):
        tell(url, story, read_only=True)
    assert database_server.do("SELECT 1 FROM pg_tables WHERE tablename LIKE 'rotator%'", url.rpartition("/")[2]) == []

    async def made(store: PostgresStore) -> None:
        await store.enrol(new())

    tell(url, made)
    tell(url, story, read_only=True)


def test_what_somebody_else_wrote_there_is_damage(database_server: Postgres, url: str) -> None:
    async def story(store: PostgresStore) -> None:
        await store.enrol(new())
        database_server.do("UPDATE rotator_grants SET record = 'nonsense'", url.rpartition("/")[2])
        with pytest.raises(errors.StateDamaged, match="billing in PostgreSQL was not written by rotator"):
            await store.grant("billing")

    tell(url, story)


# --- sealed --------------------------------------------------------------------------------------------------------


def by_key(number: int, former: int | None = None) -> seal.Seal:
    def reads(one: int) -> seal.Read:
        async def read() -> Secret:
            return Secret(base64.b64encode(bytes([one]) * 32).decode())

        return read

    return seal.with_key(reads(number), None if former is None else reads(former))


def test_sealed_records_tell_no_token(database_server: Postgres, url: str) -> None:
    answer = granted(new())

    async def write(store: PostgresStore) -> None:
        await store.save(granted(await store.enrol(new())), expected=0, lease=None, now=NOW)

    async def read(store: PostgresStore) -> None:
        assert await store.grant("billing") == answer

    async def anew(store: PostgresStore) -> None:
        assert await store.seal_anew() == 1

    tell(url, write, seal=by_key(7))
    assert answer.refresh is not None
    dump = str(database_server.do("SELECT * FROM rotator_grants", url.rpartition("/")[2]))
    assert answer.refresh.reveal() not in dump and '"sealed"' in dump
    tell(url, read, seal=by_key(7))
    for wrong in (None, by_key(9)):
        with pytest.raises(errors.Misconfigured):
            tell(url, read, seal=wrong)
    tell(url, anew, seal=by_key(9, 7))
    tell(url, read, seal=by_key(9))


def test_daemons_that_start_together_share_a_data_key(url: str) -> None:
    made = 0

    async def make() -> tuple[bytes, str]:
        nonlocal made
        made += 1
        return bytes([made]) * 32, f"wrapped-{made}"

    async def unwrap(wrapped: str) -> bytes:
        return bytes([int(wrapped.rpartition("-")[2])]) * 32

    async def run() -> None:
        async with (
            opened(url, seal=seal.with_data_key(make, unwrap, None)) as one,
            opened(url, seal=seal.with_data_key(make, unwrap, None)) as two,
        ):
            await one.enrol(new())
            await two.enrol(new("other"))
            assert [grant.name for grant in await one.grants()] == ["billing", "other"]
            assert [grant.name for grant in await two.grants()] == ["billing", "other"]

    asyncio.run(run())


# --- beside others -------------------------------------------------------------------------------------------------


def test_what_another_daemon_wrote_is_news_once(url: str) -> None:
    async def run() -> None:
        clock = FakeClock()
        async with opened(url, clock) as one, opened(url, clock) as two:
            grant = await one.enrol(new())
            await two.enrol(new())
            await two.enrol(new("other"))
            names = ["billing", "other"]
            await one.news(names)
            await two.news(names)
            await one.save(granted(grant), expected=0, lease=None, now=NOW)
            assert await one.news(["billing"]) == {}
            # Whoever works on it now looks itself; it is news for later.
            assert await two.news(["other"]) == {}
            assert await two.news(names) == {"billing": granted(grant)}
            assert await two.news(names) == {}

    asyncio.run(run())


def test_news_come_with_the_look_that_finds_them_and_cost_no_round_trip_more(url: str) -> None:
    """Also of what was news a moment ago: an intent, and what it brought. What we wrote ourselves is not sent back."""
    names = [f"grant_{number:03}" for number in range(20)]

    async def run() -> None:
        clock = FakeClock()
        async with opened(url, clock) as one, opened(url, clock) as two:
            grants = [await one.enrol(new(name)) for name in names]
            for name in names:
                await two.enrol(new(name))
            await one.news(names)
            await two.news(names)
            for _ in range(3):
                before = two.counts
                grants = [granted(grant) for grant in grants]
                for grant in grants:
                    await one.save(grant, expected=grant.generation - 1, lease=None, now=NOW)
                assert await two.news(names) == {grant.name: grant for grant in grants}
                statements, trips = (after - now for after, now in zip(two.counts, before, strict=True))
                assert (statements, trips) == (3, 1)
                assert await one.news(names) == {}

    asyncio.run(run())


def test_an_intent_is_no_news_before_it_has_ended_or_all_are_compared(url: str) -> None:
    """Whoever takes the lease over reads the record anyway; all others would read it for nothing."""

    async def run() -> None:
        clock = FakeClock()
        async with opened(url, clock) as one, opened(url, clock) as two:
            grant = await one.enrol(new())
            await two.enrol(new())
            await two.news(["billing"])
            lease, grant = await one.lease("billing", "me", clock.moment(), LEASE)
            meant = replace(grant, intent=intent(grant, clock.moment()))
            await one.save(meant, expected=0, lease=lease, now=NOW)
            assert await two.news(["billing"]) == {}
            failed = replace(grant, due_at=NOW + LEASE)
            await one.save(failed, expected=0, lease=lease, now=NOW)
            assert await two.news(["billing"]) == {}
            await one.release(lease)
            assert await two.news(["billing"]) == {"billing": failed}
            lease, grant = await one.lease("billing", "me", clock.moment(), LEASE)
            await one.save(granted(grant), expected=0, lease=lease, now=NOW)
            assert await two.news(["billing"]) == {"billing": granted(grant)}, "before its lease is given back"
            meant = replace(granted(grant), intent=intent(grant, clock.moment()))
            await one.save(meant, expected=1, lease=lease, now=NOW)
            clock.pass_time(2 * following.COMPARED_EVERY)
            assert await two.news(["billing"]) == {"billing": meant}, "its owner is gone, perhaps"

    asyncio.run(run())


def test_what_was_brought_back_from_a_backup_is_news_too(database_server: Postgres, url: str) -> None:
    database = url.rpartition("/")[2]

    async def run() -> None:
        clock = FakeClock()
        async with opened(url, clock) as store:
            grant = await store.enrol(new())
            await store.enrol(new("other"))
            await store.news(["billing", "other"])
            database_server.do("CREATE TABLE backup AS SELECT * FROM rotator_grants WHERE name = 'billing'", database)
            for _ in range(2):
                await store.save(grant := granted(grant), expected=grant.generation - 1, lease=None, now=NOW)
            database_server.do("DELETE FROM rotator_grants", database)
            database_server.do("INSERT INTO rotator_grants SELECT * FROM backup", database)
            # A server that was restored has ended its sessions; the next look compares everything.
            database_server.cut()
            assert await store.news(["billing", "other"]) == {"billing": new(), "other": None}

    asyncio.run(run())


def test_the_fleet_knows_who_is_at_work(url: str) -> None:
    async def run() -> None:
        clock = FakeClock()
        async with opened(url, clock) as one:
            assert await one.fleet("one") == {"one"}
            async with opened(url, clock) as two:
                assert await two.fleet("two") == {"one", "two"}
                clock.pass_time(SECOND)
                assert await one.fleet("one") == {"one", "two"}
            # It said goodbye.
            clock.pass_time(SECOND)
            assert await one.fleet("one") == {"one"}
            async with opened(url, clock) as three:
                await three.fleet("three")
                for _ in range(6):
                    clock.pass_time(SECOND)
                    present = await one.fleet("one")
                # It beats no more.
                assert present == {"one"}

    asyncio.run(run())


def test_the_lease_of_a_dead_machine_is_taken_over_once_it_was_watched_for_its_length(url: str) -> None:
    async def run() -> None:
        clock, elsewhere = FakeClock(), FakeClock()
        elsewhere.reboot()
        async with opened(url, clock) as one, opened(url, elsewhere) as two:
            await one.enrol(new())
            late, _ = await one.lease("billing", "one", clock.moment(), LEASE)
            # A look at what is new shows it, long before anybody wants it.
            await two.news([])
            elsewhere.pass_time(LEASE - SECOND)
            with pytest.raises(errors.Overtaken) as told:
                await two.lease("billing", "two", elsewhere.moment(), LEASE)
            assert told.value.left == SECOND
            elsewhere.pass_time(SECOND)
            lease, _ = await two.lease("billing", "two", elsewhere.moment(), LEASE)
            assert lease.fence == late.fence + 1

    asyncio.run(run())


# --- a standby that takes over -------------------------------------------------------------------------------------


def test_a_standby_that_is_promoted_is_found_and_nothing_confirmed_is_lost() -> None:
    with peers.replicated() as (primary, standby):
        with pytest.raises(errors.Unavailable, match="read-only standby answered"):
            tell(standby.url(), lambda store: asyncio.sleep(0))
        hosts = f"postgresql://admin@127.0.0.1:{standby.port},127.0.0.1:{primary.port}/postgres"
        clock = FakeClock()

        async def run() -> None:
            async with opened(hosts, clock) as store:
                grant = await store.enrol(new())
                lease, _ = await store.lease("billing", "me", clock.moment(), LEASE)
                for _ in range(5):
                    await store.save(grant := granted(grant), expected=grant.generation - 1, lease=lease, now=NOW)
                answer = granted(grant)
                primary.kill()
                with pytest.raises(errors.Unavailable):
                    await store.save(answer, expected=grant.generation, lease=lease, now=NOW)
                standby.do("ALTER SYSTEM RESET synchronous_standby_names")
                standby.promote()
                clock.pass_time(timedelta(seconds=10))
                await store.save(answer, expected=grant.generation, lease=lease, now=NOW)
                assert await store.grant("billing") == answer
                # The lease went over with everything else.
                with pytest.raises(errors.Overtaken):
                    await store.lease("billing", "you", clock.moment(), LEASE)

        asyncio.run(run())
