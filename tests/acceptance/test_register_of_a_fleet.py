"""A register in PostgreSQL that two daemons share: entered at one and published by both, taken over where one dies,
taken out at one and gone at both."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.acceptance.stage import wait_for
from tests.peers import crowd, fleet, postgres
from tests.peers.crowd import Served
from tests.peers.fleet import Machine, Wish
from tests.peers.postgres import Postgres

COUNT, HOLD, PATIENCE = 60, 0.05, 60.0
WISH = Wish(grants=0, lifetime=10.0, deadline=2.0, budget=8, rotate_at=0.5)
NAMES = [f"g{number:03}" for number in range(COUNT)]
Figures = Callable[[str], None]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres.cluster() as running:
        yield running


def table(machine: Machine, name: str, file: str | None = None) -> dict[str, Any]:
    return {
        "name": name, "provider": "crowd", "client_id": crowd.CLIENT, "username": name,
        "client_secret": {"file": f"{machine.folder}/secret"}, "password": {"file": f"{machine.folder}/password"},
        "budget": {"limit": 8, "window": "24h", "apart": "0s"},
        "targets": {"app": {"file": file or name, "format": "json"}},
    }  # fmt: skip


def enter(machine: Machine, *tables: dict[str, Any]) -> None:
    path = machine.folder / "grants.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in tables))
    done = machine.rotator("grants", "import", str(path))
    assert done.returncode == 0, done.stderr
    assert f"{len(tables)} grants entered" in done.stderr


def generation(machine: Machine, name: str) -> int:
    """What its readers see; 0 where they see nothing."""
    try:
        return int(json.loads((machine.run / name).read_text())["generation"])
    except FileNotFoundError:
        return 0


def never_together(served: Served) -> None:
    log = sorted(served.log(), key=lambda one: (one.grant, one.asked_at))
    for one, two in pairwise(log):
        assert one.grant != two.grant or two.asked_at >= (one.answered_at or one.asked_at + HOLD), (one, two)


def test_two_daemons_share_a_register(tmp_path: Path, server: Postgres, figures: Figures) -> None:
    state = server.url(server.database())
    with (
        crowd.serve(WISH.lifetime, HOLD) as served,
        fleet.fleet(tmp_path, 2, WISH, served, state, named=True) as (here, there),
    ):
        for one in (here, there):
            wait_for(one.health, "the daemon", PATIENCE)
        enter(here, *(table(here, name) for name in NAMES))
        for one in (here, there):
            wait_for(lambda: one.published() == COUNT, f"every token: {one.told()}", PATIENCE)  # noqa: B023
        # Each stays at its place for a few rotations, at both alike.
        for one in (here, there):
            wait_for(lambda: min(generation(one, name) for name in NAMES) >= 3, "rotations", PATIENCE)  # noqa: B023
        logins = sum(one.kind == "password" for one in served.log())
        assert logins == COUNT
        health = there.health()
        assert health is not None and health["register"]["total"] == COUNT

        # One is killed under its leases: the other goes on with all of them.
        wait_for(lambda: held(state), "a lease", PATIENCE)
        here.popen.kill()  # type: ignore[union-attr]
        here.popen.wait()  # type: ignore[union-attr]
        killed, before = time.time(), {name: generation(there, name) for name in NAMES}
        ends = fleet.watch_orphans(state, killed, WISH.lease + 30)
        figures(
            f"register of a fleet: {len(ends)} leases of the dead were taken over after {max(ends, default=0):.1f} s"
        )
        wait_for(lambda: all(generation(there, name) > before[name] for name in NAMES), "the others' share", PATIENCE)
        here.start()
        wait_for(
            lambda: all(generation(here, name) >= before[name] + 1 for name in NAMES),
            f"all files: {here.told()}",
            PATIENCE,
        )

        # Changed at one, it is published elsewhere by both; taken out at one, it is gone at both.
        enter(there, table(there, NAMES[0], "moved"))
        for one in (here, there):
            wait_for(lambda: generation(one, "moved") > 0, "the new place", PATIENCE)  # noqa: B023
        done = there.rotator("grants", "retire", NAMES[1])
        assert done.returncode == 0, done.stderr
        for one in (here, there):
            wait_for(lambda: not (one.run / NAMES[1]).exists(), "the file is gone", PATIENCE)  # noqa: B023
        refused = here.rotator("token", NAMES[1])
        assert refused.returncode == 64, refused.stderr
        assert [one.end() for one in (here, there)] == [0, 0]
        never_together(served)
        told = here.told() + there.told()
        assert "A defect" not in told and "Traceback" not in told, told


def held(state: str) -> bool:
    with psycopg.connect(f"{state}?application_name=witness", autocommit=True) as eye:
        return eye.execute("SELECT 1 FROM rotator_grants WHERE owner <> ''").fetchone() is not None


def test_without_a_daemon_they_are_entered_and_taken_out_as_well(tmp_path: Path, server: Postgres) -> None:
    state = server.url(server.database())
    with (
        crowd.serve(WISH.lifetime, HOLD) as served,
        fleet.fleet(tmp_path, 2, WISH, served, state, named=True) as (here, there),
    ):
        wait_for(here.health, "the daemon", PATIENCE)
        assert here.end() == 0
        enter(here, *(table(here, name) for name in NAMES[:5]))
        wait_for(lambda: there.published() == 5, "what was entered elsewhere", PATIENCE)
        listed = here.rotator("grants", "list").stdout.splitlines()[1:]
        assert [line.split("\t")[0] for line in listed] == NAMES[:5]
        assert here.rotator("grants", "retire", NAMES[0]).returncode == 0
        wait_for(lambda: not (there.run / NAMES[0]).exists(), "the file is gone", PATIENCE)
        assert here.rotator("status").returncode == 0
        assert there.end() == 0
        never_together(served)
