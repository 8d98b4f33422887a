"""What must hold after every fault, judged from outside: by a reader, the provider's own log and the state on disk."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tests.acceptance.house import House
from tests.acceptance.reader import TOKEN, Seen
from tests.acceptance.stage import wait_for
from tests.peers.django_oauth import DjangoOAuth, Exchanged


@dataclass(frozen=True, slots=True)
class Account:
    """The provider's own log, added up. ``reused`` counts refresh tokens presented after they had been spent."""

    exchanges: list[Exchanged]
    passwords: int
    rotations: int
    reused: int
    refused: int

    def __str__(self) -> str:
        return (
            f"{len(self.exchanges)} exchanges: {self.passwords} by password, {self.rotations} rotations, "
            f"{self.reused} spent tokens presented, {self.refused} refused"
        )


def account(peer: DjangoOAuth) -> Account:
    exchanges, spent = peer.exchanges(), set[str]()
    reused = 0
    for one in exchanges:
        if one.kind == "refresh_token":
            reused += one.refresh_token in spent
            if one.status == 200:
                spent.add(one.refresh_token)
    return Account(
        exchanges,
        passwords=sum(one.kind == "password" for one in exchanges),
        rotations=sum(one.kind == "refresh_token" and one.status == 200 for one in exchanges),
        reused=reused,
        refused=sum(one.status >= 400 for one in exchanges),
    )


def check_chain(peer: DjangoOAuth) -> Account:
    """One login at the beginning, and since then only refreshes that spend each token once: nothing was lost."""
    told = account(peer)
    assert (told.passwords, told.reused, told.refused) == (1, 0, 0), told
    assert told.exchanges[0].kind == "password"
    return told


def check_reader(seen: Seen, peer: DjangoOAuth) -> None:
    """It never met a torn, a missing or an expired token, nor one that nobody issued, nor an older one again."""
    assert seen.reads > 20, "the reader hardly read"
    assert (seen.torn, seen.missing, seen.expired) == (0, 0, 0), seen
    issued = [one.access_token for one in peer.exchanges() if one.access_token]
    strangers = [token for token in seen.tokens if token not in issued]
    assert not strangers, f"{len(strangers)} values that the provider never gave"
    assert seen.generations == sorted(seen.generations), "an older generation came back"


def described(seen: Seen) -> str:
    return (
        f"reader: {seen.reads} reads, {len(seen.tokens)} tokens; torn {seen.torn}, missing {seen.missing}, "
        f"expired {seen.expired}; least time left {seen.least_left:.1f} s"
    )


def forget(peer: DjangoOAuth) -> None:
    """Begin the provider's log anew: what it wrote so far belongs to another story."""
    wait_for(lambda: all(one.status for one in peer.exchanges()), "the end of what an earlier story asked")
    peer.ledger.write_text("")


@dataclass(frozen=True, slots=True)
class Published:
    """What stands in the two files of a house; generation 0 where nothing does."""

    raw: str
    described: str
    generation: int


def published(place: House) -> Published:
    """Fails where a file is there and is not whole."""
    raw = place.raw.read_text() if place.raw.exists() else ""
    text = place.described.read_text() if place.described.exists() else ""
    assert not raw or TOKEN.fullmatch(raw), f"a torn token file: {len(raw)} characters"
    told = json.loads(text) if text else {}
    return Published(raw, str(told.get("access_token", "")), int(told.get("generation", 0)))


def stored_generation(place: House, aside: Path) -> int:
    """The generation that the state on disk holds, 0 where it holds none, read from a copy while nobody writes.

    Fails where SQLite finds it damaged."""
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(place.folder / "state" / "state", aside, ignore=shutil.ignore_patterns("control", "*-shm"))
    with closing(sqlite3.connect(aside / "state.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = connection.execute("SELECT generation FROM grants WHERE name = 'billing'").fetchone()
    return 0 if found is None else int(found[0])
