"""A real HTTP server on loopback that answers what a test scripts, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """One answer. ``wait`` is called between the head and the body, to keep somebody waiting."""

    status: int = 200
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    wait: Callable[[], object] | None = None


@dataclass
class Wire:
    """``answer`` decides; ``asked`` is what came so far."""

    port: int
    answer: Callable[[Asked], Reply]
    asked: list[Asked] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def count(self, path: str) -> int:
        return sum(one.path == path for one in self.asked)


@contextmanager
def serve(answer: Callable[[Asked], Reply]) -> Iterator[Wire]:
    """Serve until the end of the block; answers that still wait are waited for."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = Asked(self.command, self.path, dict(self.headers), body)
            wire.asked.append(asked)
            reply = wire.answer(asked)
            content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            content = b"" if reply.status == 204 else content
            self.send_response(reply.status)
            for name, value in {"Content-Type": reply.content_type, **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            try:
                self.end_headers()
                if reply.wait is not None:
                    reply.wait()
                self.wfile.write(content)
            except OSError:
                # The client gave up first, which is what some tests want.
                self.close_connection = True

        do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815 (names of http.server)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = False

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        wire = Wire(server.server_port, answer)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield wire
        finally:
            server.shutdown()
            thread.join()
