"""The server that stores and publishers under contract share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.peers import openbao, postgres
from tests.peers.openbao import OpenBao
from tests.peers.postgres import Postgres


@pytest.fixture(scope="session")
def raft_bao() -> Iterator[OpenBao]:
    """An OpenBao with integrated storage and an audit log; each story takes a mount of its own."""
    with openbao.raft() as server:
        yield server


@pytest.fixture(scope="session")
def promoted_server() -> Iterator[Postgres]:
    """A standby that took over from a primary that died; whoever dials tries the dead one first."""
    with postgres.replicated() as (primary, standby):
        primary.do("CREATE TABLE before (failover int)")
        primary.kill()
        standby.do("ALTER SYSTEM RESET synchronous_standby_names")
        standby.promote()
        assert standby.do("SELECT count(*) FROM before") == [(0,)]
        standby.former = primary.port
        yield standby


@pytest.fixture(scope="session")
def database_server() -> Iterator[Postgres]:
    """A PostgreSQL; each story takes a database of its own."""
    with postgres.cluster() as server:
        yield server
