"""Records sealed at rest: what a thief of the disk finds, and what somebody who moves records about achieves."""

from __future__ import annotations

import asyncio
import base64
import os
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from rotator.core import errors
from rotator.core.tokens import Secret
from rotator.drivers import seal, sqlite, vault
from rotator.drivers.clock import SystemClock
from rotator.drivers.seal import Seal
from rotator.drivers.vault import transit
from tests.contracts.stores import NOW, FakeClock, FakeDice, granted, new
from tests.peers.openbao import OpenBao

KEY, OTHER = (base64.b64encode(bytes([number]) * 32).decode() for number in (7, 9))


def reads(value: str) -> seal.Read:
    async def read() -> Secret:
        return Secret(value)

    return read


def by_key(value: str = KEY, former: str | None = None) -> Seal:
    return seal.with_key(reads(value), None if former is None else reads(former))


def store(folder: Path, closed: Seal | None) -> sqlite.SqliteStore:
    return sqlite.SqliteStore(folder / "state.db", clock=FakeClock(), dice=FakeDice(), seal=closed)


def work(folder: Path, closed: Seal | None, do: Callable[[sqlite.SqliteStore], Awaitable[None]]) -> None:
    async def run() -> None:
        opened = store(folder, closed)
        await opened.open()
        try:
            await do(opened)
        finally:
            await opened.close()

    asyncio.run(run())


async def rotated(opened: sqlite.SqliteStore) -> None:
    """Two generations, so that an older record was replaced."""
    first = await opened.enrol(new())
    second = granted(first)
    await opened.save(second, expected=0, lease=None, now=NOW)
    await opened.save(granted(second), expected=1, lease=None, now=NOW)


async def is_whole(opened: sqlite.SqliteStore) -> None:
    grant = await opened.grant("billing")
    assert grant is not None and grant.refresh == Secret("refresh-billing-2")
    assert [one.name for one in await opened.grants()] == ["billing"]


def on_disk(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in (folder / "state").iterdir() if file.is_file())


def change(folder: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(folder / "state" / "state.db")) as connection, connection:
        connection.execute(statement, values)


def test_the_disk_tells_no_token(tmp_path: Path) -> None:
    work(tmp_path, by_key(), rotated)
    found = on_disk(tmp_path)
    assert b"billing" in found and b"sealed" in found
    assert b"refresh-billing" not in found and b"access-billing" not in found
    work(tmp_path, by_key(), is_whole)


def test_without_a_seal_the_disk_does_tell(tmp_path: Path) -> None:
    """What the test above looks for is really there otherwise."""
    work(tmp_path, None, rotated)
    assert b"refresh-billing-2" in on_disk(tmp_path)


def test_a_state_in_clear_is_read_and_sealed_anew_whole(tmp_path: Path) -> None:
    work(tmp_path, None, rotated)
    work(tmp_path, by_key(), is_whole)

    async def rekey(opened: sqlite.SqliteStore) -> None:
        assert await opened.seal_anew() == 1
        await is_whole(opened)

    work(tmp_path, by_key(), rekey)
    assert b"refresh-billing" not in on_disk(tmp_path)


def test_another_key_opens_nothing_and_changes_nothing(tmp_path: Path) -> None:
    work(tmp_path, by_key(), rotated)
    before = on_disk(tmp_path)
    for wrong, words in (
        (by_key(OTHER), r"sealed with another key .*state\.seal\.former"),
        (None, r"the state is sealed; set state\.seal"),
    ):
        with pytest.raises(errors.Misconfigured, match=words):
            work(tmp_path, wrong, is_whole)
    assert b"refresh" not in before
    work(tmp_path, by_key(), is_whole)


def test_a_key_is_changed_while_the_former_is_known(tmp_path: Path) -> None:
    work(tmp_path, by_key(), rotated)

    async def rekey(opened: sqlite.SqliteStore) -> None:
        await is_whole(opened)
        await opened.seal_anew()

    work(tmp_path, by_key(OTHER, former=KEY), rekey)
    work(tmp_path, by_key(OTHER), is_whole)


@pytest.mark.parametrize("value", ["", "short", "00" * 31, base64.b64encode(b"x" * 33).decode(), "canary" * 9])
def test_a_key_that_is_none_is_told_without_its_value(tmp_path: Path, value: str) -> None:
    with pytest.raises(errors.Misconfigured, match=r"32 bytes .*openssl rand -base64 32") as caught:
        work(tmp_path, by_key(value), rotated)
    assert "canary" not in str(caught.value)


def test_records_cannot_be_swapped_or_given_another_number(tmp_path: Path) -> None:
    async def both(opened: sqlite.SqliteStore) -> None:
        await rotated(opened)
        await opened.enrol(new("other"))

    work(tmp_path, by_key(), both)

    async def read(opened: sqlite.SqliteStore) -> None:
        await opened.grant("other")

    change(tmp_path, "UPDATE grants SET record = (SELECT record FROM grants WHERE name = 'billing')")
    with pytest.raises(errors.StateDamaged, match="does not open under its seal"):
        work(tmp_path, by_key(), read)
    change(tmp_path, "DELETE FROM grants WHERE name = 'other'")
    change(tmp_path, "UPDATE grants SET generation = 9")
    with pytest.raises(errors.StateDamaged, match="does not open under its seal"):
        work(tmp_path, by_key(), is_whole)


# --- a data key that a Vault wraps --------------------------------------------------------------------------------


class Wrapping:
    """A transit key of a real OpenBao, and how often it was asked."""

    def __init__(self, bao: OpenBao) -> None:
        self._bao = bao
        self._mount = f"transit-{os.urandom(4).hex()}"
        self.asked = 0
        bao.do("POST", f"sys/mounts/{self._mount}", {"type": "transit"})
        bao.do("POST", f"{self._mount}/keys/rotator")

    def seal(self, url: str = "") -> Seal:
        async def asked(do: Callable[[vault.Vault], Awaitable[object]]) -> object:
            self.asked += 1
            address = vault.Address(url=url or self._bao.url, timeout=timedelta(seconds=2))
            way = vault.Vault("default", address, vault.TokenLogin(reads(self._bao.token)), SystemClock())
            try:
                return await do(way)
            finally:
                await way.close()

        return seal.with_data_key(
            lambda: asked(lambda way: transit.make(way, self._mount, "rotator")),  # type: ignore[arg-type,return-value]
            lambda one: asked(lambda way: transit.unwrap(way, self._mount, "rotator", one)),  # type: ignore[arg-type,return-value]
            None,
        )


def test_a_vault_is_asked_at_the_start_and_never_for_a_save(tmp_path: Path, bao: OpenBao) -> None:
    wrapping = Wrapping(bao)
    work(tmp_path, wrapping.seal(), rotated)
    assert wrapping.asked == 1
    assert b"refresh-billing" not in on_disk(tmp_path)
    assert b"vault:v1:" in on_disk(tmp_path)
    work(tmp_path, wrapping.seal(), is_whole)
    assert wrapping.asked == 2

    async def rekey(opened: sqlite.SqliteStore) -> None:
        await opened.seal_anew()

    before = on_disk(tmp_path).count(b"vault:v1:")
    work(tmp_path, wrapping.seal(), rekey)
    assert before
    work(tmp_path, wrapping.seal(), is_whole)


def test_a_vault_that_is_away_at_the_start_means_no_start(tmp_path: Path, bao: OpenBao) -> None:
    """Not a record in clear, nor a new key: nothing was spent, and a supervisor tries again."""
    wrapping = Wrapping(bao)
    with pytest.raises(errors.Unavailable):
        work(tmp_path, wrapping.seal("http://127.0.0.1:9"), rotated)
    work(tmp_path, wrapping.seal(), rotated)
    with pytest.raises(errors.Unavailable):
        work(tmp_path, wrapping.seal("http://127.0.0.1:9"), is_whole)
    work(tmp_path, wrapping.seal(), is_whole)


def test_another_transit_key_is_no_key(tmp_path: Path, bao: OpenBao) -> None:
    work(tmp_path, Wrapping(bao).seal(), rotated)
    with pytest.raises(errors.Misconfigured, match=r"did not wrap the key of the state; .*state\.seal\.transit"):
        work(tmp_path, Wrapping(bao).seal(), is_whole)
