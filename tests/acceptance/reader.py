"""Applications that use a published token, as processes of their own that know nothing of rotator.

``python -m tests.acceptance.reader``: reads one JSON line from stdin (see `main`), reads tokens without pause until
stdin is closed, and then prints what it saw as one JSON object.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).parents[2] / "docs" / "consumers.md"

# RFC 6750 section 2.1: what a Bearer token is made of.
TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
LONGEST_DISAGREEMENT = 1.0


@dataclass
class Seen:
    """What a reader met. ``tokens`` are the distinct values in the order in which they were first read."""

    reads: int = 0
    missing: int = 0
    torn: int = 0
    expired: int = 0
    unanswered: int = 0
    presented: int = 0
    refused: int = 0
    # Milliseconds from the first refused request to the next good one, each time.
    windows: list[float] = field(default_factory=list)
    disagreed: int = 0
    least_left: float = 1e9
    tokens: list[str] = field(default_factory=list)
    generations: list[int] = field(default_factory=list)
    oddities: list[str] = field(default_factory=list)

    def token(self, value: str) -> None:
        if not TOKEN.fullmatch(value):
            self.tear(f"no token: {len(value)} characters")
        elif value not in self.tokens[-1:]:
            self.tokens.append(value)

    def entry(self, generation: int, left: float) -> None:
        """``left`` is counted from before the read, so that an expired token is one beyond doubt."""
        if generation not in self.generations[-1:]:
            self.generations.append(generation)
        self.least_left = min(self.least_left, left)
        if left <= 0:
            self.expired += 1

    def tear(self, how: str) -> None:
        self.torn += 1
        self.oddities = [*self.oddities, how][:20]


class Resource:
    """A resource of a server over one connection that is kept open, and opened anew where the server closed it."""

    def __init__(self, port: int, path: str, seen: Seen) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._path = path
        self._seen = seen

    def get(self, headers: dict[str, str]) -> tuple[int, bytes]:
        """Status and body; status 0 where none came."""
        try:
            self._connection.request("GET", self._path, headers=headers)
            response = self._connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            self._seen.unanswered += 1
            self._seen.oddities = [*self._seen.oddities, repr(error)][:20]
            return 0, b""

    def close(self) -> None:
        self._connection.close()


@dataclass
class Answer:
    status: int


def documented() -> Callable[..., Answer]:
    """The function that docs/consumers.md gives to its readers, as it stands there."""
    block = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert block, f"no Python in {DOCUMENT}"
    found: dict[str, Any] = {}
    exec(compile(block[1], str(DOCUMENT), "exec"), found)
    call: Callable[..., Answer] = found["call"]
    return call


class Files:
    """Reads a raw and a JSON file of the same grant, or the JSON file alone; presents the raw one's token where there
    is a server.

    ``patient`` does so as the documentation says, else a refusal is only counted and timed."""

    def __init__(self, seen: Seen, raw: Path | None, described: Path, resource: Resource | None, patient: bool) -> None:
        self._seen = seen
        self._raw = raw
        self._described = described
        self._resource = resource
        self._call = documented() if patient else None
        self._refused_since: float | None = None
        self._disagreeing_since: float | None = None

    def read(self) -> None:
        seen, before = self._seen, time.time()
        try:
            token = None if self._raw is None else self._raw.read_text()
            described = self._described.read_text()
        except FileNotFoundError:
            seen.missing += 1
            return
        try:
            told = json.loads(described)
            left = datetime.fromisoformat(told["expires_at"]).timestamp() - before
            seen.entry(int(told["generation"]), left)
            if token is None:
                seen.token(str(told["access_token"]))
            else:
                self._compare(token, str(told["access_token"]))
        except (ValueError, KeyError, TypeError) as error:
            seen.tear(f"JSON: {type(error).__name__}")
        if token is not None:
            seen.token(token)
            if self._resource is not None:
                self._use(token)

    def _compare(self, token: str, described: str) -> None:
        # Two files are two renames; that one is ahead for a moment is in their nature.
        if token == described:
            self._disagreeing_since = None
            return
        now = time.monotonic()
        self._disagreeing_since = self._disagreeing_since or now
        if now - self._disagreeing_since > LONGEST_DISAGREEMENT:
            self._seen.disagreed += 1

    def _use(self, token: str) -> None:
        seen, asked = self._seen, time.monotonic()
        if self._call is not None and self._raw is not None:
            refusals_before = seen.presented
            if self._call(self._present, self._raw).status == 401:
                seen.refused += 1
            if seen.presented > refusals_before + 1:
                seen.windows.append((time.monotonic() - asked) * 1000)
            return
        status = self._present(token).status
        if status == 401:
            seen.refused += 1
            self._refused_since = self._refused_since or asked
        elif status == 200 and self._refused_since is not None:
            seen.windows.append((time.monotonic() - self._refused_since) * 1000)
            self._refused_since = None

    def _present(self, token: str) -> Answer:
        assert self._resource is not None
        self._seen.presented += 1
        self._seen.token(token)
        return Answer(self._resource.get({"Authorization": f"Bearer {token}"})[0])


class Entry:
    """Reads one KV v2 entry."""

    def __init__(self, seen: Seen, resource: Resource, vault_token: str) -> None:
        self._seen = seen
        self._resource = resource
        self._vault_token = vault_token

    def read(self) -> None:
        seen, before = self._seen, time.time()
        status, body = self._resource.get({"X-Vault-Token": self._vault_token})
        if status == 404:
            seen.missing += 1
        elif status != 200:
            seen.unanswered += status != 0
        else:
            try:
                told = json.loads(body)["data"]["data"]
                seen.token(told["access_token"])
                until = datetime.fromisoformat(told["expires_at"]).timestamp()
                if int(told["expires_at_unix"]) != int(until):
                    seen.tear("expires_at and expires_at_unix differ")
                seen.entry(int(told["generation"]), until - before)
            except (ValueError, KeyError, TypeError) as error:
                seen.tear(f"entry: {type(error).__name__}")


def main() -> None:
    """The line on stdin: ``described`` (a file) with perhaps ``raw`` (a file) and ``patient``, or ``vault_token``;
    ``port`` and ``path`` of the server; ``pause`` in seconds."""
    wishes = json.loads(sys.stdin.buffer.readline())
    # What is looked at is the token, not how the scheduler shares two cores with somebody who never rests.
    os.nice(10)
    seen = Seen()
    resource = Resource(wishes["port"], wishes["path"], seen) if "port" in wishes else None
    if "described" in wishes:
        raw = Path(wishes["raw"]) if "raw" in wishes else None
        patient = bool(wishes.get("patient"))
        reader: Files | Entry = Files(seen, raw, Path(wishes["described"]), resource, patient)
    else:
        assert resource is not None
        reader = Entry(seen, resource, wishes["vault_token"])
    print("reading", flush=True)
    while not select.select([sys.stdin], [], [], wishes.get("pause", 0))[0]:
        reader.read()
        seen.reads += 1
    if resource is not None:
        resource.close()
    print(json.dumps(asdict(seen)), flush=True)


if __name__ == "__main__":
    main()
