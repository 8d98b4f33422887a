"""A token endpoint for thousands of grants, as a process of its own: little per request, and a log of every exchange.

``python -m tests.peers.crowd LIFETIME HOLD``: prints its port, serves on loopback until it is ended. A refresh token is
spent when it is used (reuse answers ``invalid_grant`` and revokes nothing); each exchange is held for HOLD seconds
between its commit and its answer, so that two of one grant are seen to overlap. ``GET /log`` is the log.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import parse_qs

CLIENT, SECRET, PASSWORD = "crowd", "crowd-secret", "crowd-password"
ROOT = Path(__file__).parents[2]


@dataclass(slots=True)
class Exchanged:
    """One exchange of a grant. Times are seconds since the epoch; ``answered_at`` is when the answer left, or when it
    was seen that nobody would read it. ``newest``: the refresh token was the one issued last."""

    grant: str
    kind: str
    asked_at: float
    status: int = 0
    newest: bool = True
    committed_at: float = 0.0
    answered_at: float = 0.0
    token: str = ""
    expires_at: float = 0.0


class Crowd:
    def __init__(self, lifetime: float, hold: float) -> None:
        self._lifetime = lifetime
        self._hold = hold
        self._refresh: dict[str, str] = {}
        self.log: list[Exchanged] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET"):
                self._say(writer, 200, [asdict(one) for one in self.log])
            else:
                length = next(
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length")
                )
                await self._exchange((await reader.readexactly(length)).decode(), writer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _exchange(self, body: str, writer: asyncio.StreamWriter) -> None:
        form = {key: values[0] for key, values in parse_qs(body).items()}
        kind, given = form["grant_type"], form.get("refresh_token", "")
        name = form.get("username") or given.partition(".")[0]
        told = Exchanged(name, kind, time.time())
        self.log.append(told)
        good = form.get("password") == PASSWORD if kind == "password" else self._refresh.get(name) == given
        told.newest = good
        answer: dict[str, object] = {"error": "invalid_grant"}
        if good:
            refresh = self._refresh[name] = f"{name}.{secrets.token_urlsafe(24)}"
            told.token = secrets.token_urlsafe(24)
            told.committed_at = time.time()
            told.expires_at = told.committed_at + self._lifetime
            answer = {
                "access_token": told.token, "refresh_token": refresh, "expires_in": int(self._lifetime),
                "token_type": "bearer",
            }  # fmt: skip
        told.status = 200 if good else 400
        await asyncio.sleep(self._hold)
        self._say(writer, told.status, answer)
        told.answered_at = time.time()

    def _say(self, writer: asyncio.StreamWriter, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)


@dataclass
class Served:
    """The running endpoint, from outside."""

    port: int
    popen: subprocess.Popen[str]

    @property
    def token_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/token"

    def log(self) -> list[Exchanged]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", "/log")
            return [Exchanged(**one) for one in json.loads(connection.getresponse().read())]
        finally:
            connection.close()


@contextmanager
def serve(lifetime: float, hold: float) -> Iterator[Served]:
    popen = subprocess.Popen(
        [sys.executable, "-m", "tests.peers.crowd", str(lifetime), str(hold)], cwd=ROOT, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert popen.stdout is not None
    try:
        yield Served(int(popen.stdout.readline()), popen)
    finally:
        popen.kill()
        popen.wait()
        popen.stdout.close()


async def main(lifetime: float, hold: float) -> None:
    server = await asyncio.start_server(Crowd(lifetime, hold).serve, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]), float(sys.argv[2])))
