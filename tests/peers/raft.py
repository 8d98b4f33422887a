"""A real OpenBao of three nodes on loopback: integrated storage, TLS under a CA of its own, an audit log on each node,
and a load balancer before them that knows the active one, as an operator would have it."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import os
import select
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.peers import ports
from tests.peers.openbao import binary, wait

NODES = 3
PROBE = 0.3


@dataclass
class Node:
    """One server. It can be killed, stopped and started again on what it has on disk."""

    name: str
    home: Path
    port: int
    cluster_port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def audit(self) -> Path:
        return self.home / "audit.log"

    def start(self) -> None:
        with (self.home / "server.log").open("ab") as output:
            self.process = subprocess.Popen(
                [binary(), "server", f"-config={self.home / 'config.hcl'}"], cwd=self.home, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, env={"HOME": str(self.home), "PATH": os.environ.get("PATH", "")},
            )  # fmt: skip

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


# No answer, or that of a node which is about to go, is sealed, or sends its callers to another.
_LEADS_NO_MORE = frozenset({0, 307, 500, 503})


@dataclass
class Cluster:
    """The three nodes. ``ask`` goes to one node; ``do`` to the active one, which must take it."""

    nodes: list[Node]
    ca_file: Path
    token: str = field(default="", repr=False)
    unseal_key: str = field(default="", repr=False)
    front: Front = field(init=False)

    def ask(self, node: Node, method: str, path: str, body: object = None, *, timeout: float = 5.0) -> tuple[int, Any]:
        """Status and JSON (or bytes); 0 where there is no answer."""
        content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{node.url}/v1/{path}", content, method=method)
        request.add_header("X-Vault-Token", self.token)
        try:
            context = ssl.create_default_context(cafile=str(self.ca_file))
            with urllib.request.urlopen(request, timeout=timeout, context=context) as answer:
                return answer.status, _read(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, _read(error.read())
        except OSError:
            return 0, None

    @property
    def voters(self) -> int:
        told = self.do("GET", "sys/storage/raft/configuration")["data"]["config"]["servers"]
        return sum(one["voter"] for one in told)

    @property
    def active(self) -> Node | None:
        return next((one for one in self.nodes if self.ask(one, "GET", "sys/health", timeout=PROBE)[0] == 200), None)

    def wait_active(self, but: Node | None = None) -> Node:
        found: list[Node] = []

        def is_there() -> bool:
            one = self.active
            if one is not None and one is not but:
                found.append(one)
            return bool(found)

        wait(is_there, "an active node")
        return found[0]

    def do(self, method: str, path: str, body: object = None) -> Any:
        """Asked again where the node that was active a moment ago leads no more."""
        told: list[tuple[int, Any]] = []

        def answered() -> bool:
            told.append(self.ask(self.wait_active(), method, path, body))
            return told[-1][0] not in _LEADS_NO_MORE

        wait(answered, f"an answer to {method} {path}")
        status, answer = told[-1]
        assert status < 300, (method, path, status, answer)
        return answer

    def mount_kv(self, name: str) -> None:
        """A fresh KV v2 mount that answers: for a moment after it was made, everything in it is refused with 400."""
        self.do("POST", f"sys/mounts/{name}", {"type": "kv", "options": {"version": "2"}})
        wait(lambda: self.ask(self.wait_active(), "GET", f"{name}/data/none")[0] == 404, f"the mount {name}")

    def unseal(self, node: Node) -> None:
        wait(lambda: self.ask(node, "GET", "sys/health")[0] in (200, 429, 501, 503), f"{node.name} to listen")
        # A node that joins needs the key again until the others have taken it in.
        wait(
            lambda: (
                self.ask(node, "GET", "sys/health")[0] in (200, 429)
                or not self.ask(node, "POST", "sys/unseal", {"key": self.unseal_key})
            ),
            f"{node.name} unsealed",
        )

    def restart(self, node: Node) -> None:
        node.start()
        self.unseal(node)

    def app_role(self, name: str, policy: str, **settings: object) -> tuple[str, str]:
        """A role with the given policy text; its role_id and a fresh secret_id."""
        if "approle/" not in self.do("GET", "sys/auth")["data"]:
            self.do("POST", "sys/auth/approle", {"type": "approle"})
        self.do("POST", f"sys/policies/acl/{name}", {"policy": policy})
        self.do("POST", f"auth/approle/role/{name}", {"token_policies": [name], "token_ttl": "1h", **settings})
        role_id = self.do("GET", f"auth/approle/role/{name}/role-id")["data"]["role_id"]
        return role_id, str(self.do("POST", f"auth/approle/role/{name}/secret-id")["data"]["secret_id"])

    def audited(self) -> str:
        return "".join(node.audit.read_text() for node in self.nodes if node.audit.exists())


class Front:
    """A load balancer: every connection to the active node, and none is kept to one that is active no more.

    ``turned_away`` counts connections that came while there was no active node."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.taken = 0
        self.turned_away = 0
        self._active: Node | None = None
        self._links: set[socket.socket] = set()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=one, daemon=True) for one in (self._probe, self._accept)]

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._stop.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._drop()
        for thread in self._threads:
            thread.join()

    def _probe(self) -> None:
        while not self._stop.wait(0.1):
            found = self._cluster.active
            if found is not self._active:
                self._active = found
                self._drop()

    def _drop(self) -> None:
        for link in list(self._links):
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.taken += 1
            active = self._active
            if active is None:
                self.turned_away += 1
                client.close()
                continue
            threading.Thread(target=self._carry, args=(client, active), daemon=True).start()

    def _carry(self, client: socket.socket, node: Node) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", node.port), timeout=5)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        pair = {client: server, server: client}
        self._links |= set(pair)
        with contextlib.suppress(OSError):
            while True:
                for ready in select.select(list(pair), [], [])[0]:
                    data = ready.recv(1 << 16)
                    if not data:
                        raise OSError
                    pair[ready].sendall(data)
        self._links -= set(pair)
        for link in pair:
            link.close()


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Three nodes, initialised, unsealed and joined, behind a started `Front`."""
    with tempfile.TemporaryDirectory(prefix="openbao-raft-") as folder:
        base = Path(folder)
        ca_file = _certify(base)
        nodes = [Node(f"node-{number}", base / f"node-{number}", ports.free(), ports.free()) for number in range(NODES)]
        made = Cluster(nodes, ca_file)
        for node in nodes:
            _furnish(node, nodes, base)
        try:
            first, *others = nodes
            first.start()
            wait(lambda: made.ask(first, "GET", "sys/health")[0] == 501, "the first node")
            told = made.ask(first, "POST", "sys/init", {"secret_shares": 1, "secret_threshold": 1}, timeout=30)[1]
            made.token, made.unseal_key = told["root_token"], told["keys_base64"][0]
            made.unseal(first)
            made.wait_active()
            # A node that joined votes after ten seconds by default: until then there are not three.
            made.do("POST", "sys/storage/raft/autopilot/configuration", {"server_stabilization_time": "1s"})
            for node in others:
                node.start()
            for node in others:
                made.unseal(node)
            wait(lambda: made.voters == NODES, "all nodes to vote")
            made.front = Front(made)
            made.front.start()
            try:
                yield made
            finally:
                made.front.close()
        finally:
            for node in nodes:
                if node.process is not None:
                    node.signal(signal.SIGCONT)
                node.kill()


def _furnish(node: Node, nodes: list[Node], base: Path) -> None:
    # The audit device must be the same on all nodes, or no other becomes active: each writes to where it runs.
    (node.home / "data").mkdir(parents=True)
    joins = "".join(
        f'retry_join {{ leader_api_addr = "{one.url}"\n leader_ca_cert_file = "{base}/ca.pem" }}\n'
        for one in nodes if one is not node
    )  # fmt: skip
    (node.home / "config.hcl").write_text(
        f"""
        storage "raft" {{
          path    = "{node.home}/data"
          node_id = "{node.name}"
          performance_multiplier = 1
          {joins}
        }}
        listener "tcp" {{
          address         = "127.0.0.1:{node.port}"
          cluster_address = "127.0.0.1:{node.cluster_port}"
          tls_cert_file   = "{base}/server.pem"
          tls_key_file    = "{base}/server.key"
        }}
        api_addr      = "{node.url}"
        cluster_addr  = "https://127.0.0.1:{node.cluster_port}"
        audit "file" "everything" {{
          options {{ file_path = "audit.log" }}
        }}
        """
    )


def _certify(base: Path) -> Path:
    """A CA, and one certificate for all nodes."""
    now = datetime.datetime.now(datetime.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a CA of the tests")])

    def made(name: x509.Name, public: ec.EllipticCurvePublicKey, is_ca: bool) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder().subject_name(name).issuer_name(ca_name).public_key(public)
            .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )  # fmt: skip
        if not is_ca:
            names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(ca_key, hashes.SHA256())

    authority = made(ca_name, ca_key.public_key(), is_ca=True)
    server = made(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "openbao")]), key.public_key(), is_ca=False)
    pem = serialization.Encoding.PEM
    (base / "ca.pem").write_bytes(authority.public_bytes(pem))
    (base / "server.pem").write_bytes(server.public_bytes(pem))
    (base / "server.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return base / "ca.pem"


def _read(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw else None
    except ValueError:
        return raw


def wait_seconds(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Let a daemon work for a while; that it goes on is part of what is asked."""
    until = time.monotonic() + seconds
    with contextlib.suppress(subprocess.TimeoutExpired):
        code = process.wait(max(0.0, until - time.monotonic()))
        raise AssertionError(f"the daemon ended with {code}")
