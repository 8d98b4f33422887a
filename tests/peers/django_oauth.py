"""A real OAuth server, django-oauth-toolkit under waitress, in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.peers.django_site import GATE, LEDGER

SITE = Path(__file__).with_name("django_site.py")
NEEDED = ("django", "oauth2_provider", "waitress")


@dataclass(frozen=True, slots=True)
class Exchanged:
    """One request at the token endpoint; times are Unix seconds. ``status`` 0: not answered yet."""

    kind: str
    asked_at: float
    status: int = 0
    answered_at: float = 0.0
    access_token: str = field(default="", repr=False)
    # The refresh token that was presented.
    refresh_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class DjangoOAuth:
    """A running server with one confidential client, allowed the password grant, and one user."""

    port: int
    client_id: str
    client_secret: str = field(repr=False)
    username: str
    password: str = field(repr=False)
    ledger: Path

    @property
    def token_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/o/token/"

    @property
    def resource_url(self) -> str:
        """Answers 200 to a good Bearer token and 401 to any other."""
        return f"http://127.0.0.1:{self.port}/api/me"

    @contextmanager
    def holding(self) -> Iterator[None]:
        """What the server commits from now on it answers only once the block has ended."""
        gate = self.ledger.with_name(GATE)
        gate.touch()
        try:
            yield
        finally:
            gate.unlink()

    def exchanges(self) -> list[Exchanged]:
        """Every token request so far, in the order in which they came."""
        found: dict[int, dict[str, Any]] = {}
        # A line that is being written this very moment has no end yet.
        for line in self.ledger.read_text().rpartition("\n")[0].splitlines():
            told = json.loads(line)
            found.setdefault(told.pop("number"), {}).update(told)
        return [Exchanged(**one) for one in found.values()]


def require() -> None:
    """Skip where the server is not installed; fail instead on a CI machine, which has to have it."""
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if absent and os.environ.get("CI"):
        pytest.fail(f"not installed: {', '.join(absent)}")
    if absent:
        pytest.skip(f"not installed: {', '.join(absent)}")


@contextmanager
def serve(
    *, access_seconds: int = 10, grace: int = 0, reuse_protection: bool = False, hold_seconds: float = 0.0
) -> Iterator[DjangoOAuth]:
    """Serve on a free port of loopback. ``grace`` is REFRESH_TOKEN_GRACE_PERIOD_SECONDS, ``reuse_protection``
    REFRESH_TOKEN_REUSE_PROTECTION; refresh tokens always rotate. ``hold_seconds`` lie between what the server has
    committed and its answer."""
    require()
    with tempfile.TemporaryDirectory(prefix="rotator-django-") as folder:
        wishes = {
            "folder": folder,
            "access_seconds": access_seconds,
            "grace": grace,
            "reuse_protection": reuse_protection,
            "hold_seconds": hold_seconds,
        }
        log = Path(folder, "log")
        with (
            log.open("wb") as complaints,
            subprocess.Popen(
                [sys.executable, SITE, json.dumps(wishes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
            ) as process,
        ):
            try:
                assert process.stdout is not None
                told = process.stdout.readline()
                assert told, f"django-oauth-toolkit did not start:\n{log.read_text()}"
                yield DjangoOAuth(**json.loads(told), ledger=Path(folder, LEDGER))
            finally:
                process.kill()
