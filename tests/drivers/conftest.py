"""Real peers that are started once for all tests of the drivers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.peers import openbao, postgres
from tests.peers.openbao import OpenBao
from tests.peers.postgres import Postgres


@pytest.fixture(scope="session")
def bao() -> Iterator[OpenBao]:
    """An unsealed OpenBao that all tests share: each takes a mount and roles of its own."""
    with openbao.dev() as server:
        yield server


@pytest.fixture(scope="session")
def sealable_bao() -> Iterator[OpenBao]:
    """An OpenBao on disk; a test that seals it unseals it."""
    with openbao.raft() as server:
        yield server


@pytest.fixture
def kv(bao: OpenBao) -> str:
    """A fresh KV v2 mount of `bao`."""
    return bao.mount_kv()


@pytest.fixture(scope="session")
def database_server() -> Iterator[Postgres]:
    """A PostgreSQL that all tests share: each takes a database of its own."""
    with postgres.cluster() as server:
        yield server
