"""The server that stores and publishers under contract share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.peers import openbao
from tests.peers.openbao import OpenBao


@pytest.fixture(scope="session")
def raft_bao() -> Iterator[OpenBao]:
    """An OpenBao with integrated storage and an audit log; each story takes a mount of its own."""
    with openbao.raft() as server:
        yield server
