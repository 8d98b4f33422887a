"""A stand-in for a Kubernetes API server that knows Secrets: server-side apply with field managers, resource versions,
tokens, refusals; every object that it is given is judged by the schema of a real version."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

VERSION = "1.33"


@dataclass
class Apiserver:
    """``refuse`` is the next answers' status, one each; ``before_write`` is called before a PATCH is looked at."""

    port: int = 0
    token: str = "first-token"
    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)
    managed: dict[str, set[str]] = field(default_factory=dict)
    refuse: list[int] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    before_write: list[Any] = field(default_factory=list)
    version: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self, name: str, document: dict[str, Any]) -> None:
        self.version += 1
        document["metadata"]["resourceVersion"] = str(self.version)
        self.secrets[name] = document

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> tuple[int, dict[str, Any]]:
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        self.asked.append((method, target))
        if headers.get("Authorization") != f"Bearer {self.token}":
            return 401, status(401, "Unauthorized")
        if self.refuse:
            code = self.refuse.pop(0)
            return code, status(code, "as the test wants it")
        parts = path.split("/")
        assert parts[:4] == ["", "api", "v1", "namespaces"] and parts[5] == "secrets", path
        if parts[4] != "shop":
            return 404, status(404, "namespace not found")
        name = parts[6]
        if method == "GET":
            return (200, self.secrets[name]) if name in self.secrets else (404, status(404, "not found"))
        if method == "DELETE":
            return self._delete(name, json.loads(body))
        assert method == "PATCH", method
        assert headers["Content-Type"] == "application/apply-patch+yaml"
        assert query == {"fieldManager": ["rotator"], "force": ["true"]}
        if self.before_write:
            self.before_write.pop(0)()
        return self._apply(name, json.loads(body))

    def _delete(self, name: str, options: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if name not in self.secrets:
            return 404, status(404, "not found")
        wanted = options["preconditions"]["resourceVersion"]
        if wanted != self.secrets[name]["metadata"]["resourceVersion"]:
            return 409, status(409, "Conflict")
        del self.secrets[name]
        return 200, status(200, "deleted")

    def _apply(self, name: str, wanted: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        import kubernetes_validate

        kubernetes_validate.validate(wanted, VERSION, strict=True)
        assert wanted["metadata"]["name"] == name
        there = self.secrets.get(name)
        version = wanted["metadata"].pop("resourceVersion", None)
        if there is None and version is not None:
            return 404, status(404, "not found")
        if there is not None and version is not None and version != there["metadata"]["resourceVersion"]:
            return 409, status(409, "Conflict")
        if there is not None and there.get("immutable"):
            return 422, status(422, "immutable")
        made = {**wanted, "data": dict(wanted["data"])}
        if there is not None:
            # What another manager owns stays; what we owned and do not send any more goes.
            kept = {
                key: value for key, value in there.get("data", {}).items() if key not in self.managed.get(name, set())
            }
            made["data"] = {**kept, **made["data"]}
        self.managed[name] = set(wanted["data"])
        self.put(name, made)
        return (200 if there else 201), made


def status(code: int, message: str) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "code": code, "message": message}


@contextmanager
def serve() -> Iterator[Apiserver]:
    served = Apiserver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            code, document = served.answer(self.command, self.path, self.headers, body)
            raw = json.dumps(document).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_PATCH = do_DELETE = _do  # noqa: N815 (the names that http.server calls)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
