"""A token endpoint that costs next to nothing, in a process of its own: so that it is never what limits a figure.

Run by its path; prints its port and serves until its standard input ends. It reads the length of the form and nothing
else of it, and answers with a fresh pair of the size that FOSOAuthServerBundle makes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ssl
import sys
from email.utils import formatdate

HEAD_END = b"\r\n\r\n"


class Conversation(asyncio.Protocol):
    """One connection, kept open unless the client declines."""

    count = 0

    def __init__(self, lifetime: int) -> None:
        self._lifetime = lifetime
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (at := self._buffer.find(HEAD_END)) >= 0:
            head = self._buffer[:at].lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            whole = at + len(HEAD_END) + length
            if len(self._buffer) < whole:
                return
            self._buffer = self._buffer[whole:]
            self._answer(b"connection: close" in head)

    def _answer(self, closes: bool) -> None:
        Conversation.count += 1
        number = f"{Conversation.count:012d}"
        body = (
            f'{{"access_token":"{number}{"A" * 74}","expires_in":{self._lifetime},"token_type":"bearer","scope":null,'
            f'"refresh_token":"{number}{"R" * 74}"}}'
        )
        kept = "close" if closes else "keep-alive"
        self._transport.write(  # type: ignore[attr-defined]
            f"HTTP/1.1 200 OK\r\nDate: {formatdate(usegmt=True)}\r\nContent-Type: application/json\r\n"
            f"Cache-Control: no-store, private\r\nPragma: no-cache\r\nContent-Length: {len(body)}\r\n"
            f"Connection: {kept}\r\n\r\n{body}".encode()
        )
        if closes:
            self._transport.close()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pair", help="certificate and key in PEM; plain where it is missing")
    parser.add_argument("--lifetime", type=int, default=3600)
    asked = parser.parse_args()
    tls = None
    if asked.pair:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(asked.pair)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Conversation(asked.lifetime), "127.0.0.1", 0, ssl=tls, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = loop.create_future()
    loop.add_reader(sys.stdin.fileno(), lambda: ended.done() or ended.set_result(None))
    with contextlib.suppress(asyncio.CancelledError):
        await ended


if __name__ == "__main__":
    asyncio.run(main())
