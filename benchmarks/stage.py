"""Processes at work on loopback, and the instant at which their file appears. Everything ends with its context."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from asyncinotify import Inotify, Mask

from benchmarks.provider import Provider
from rotator.frontends.control import Client
from tests.peers import openbao

PATIENCE = 30.0
ARRIVED = Mask.MOVED_TO | Mask.CLOSE_WRITE


class Appearance:
    """Waits for a file to arrive whole under its name, by rename or by a closed write, without polling.

    What stands there is taken away first, as a reboot empties /run, unless it is to be ``keep``-t."""

    def __init__(self, path: Path, *, keep: bool = False) -> None:
        self._path = path
        self._keep = keep

    def __enter__(self) -> Self:
        if not self._keep:
            self._path.unlink(missing_ok=True)
        self._inotify = Inotify(sync_timeout=0)
        self._inotify.add_watch(self._path.parent, ARRIVED)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inotify.close()

    def wait(self, process: subprocess.Popen[bytes]) -> int:
        """The moment (`time.monotonic_ns`). Fails where the process ends first or `PATIENCE` runs out."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            readable, _, _ = select.select([self._inotify.fd], [], [], 0.5)
            moment = time.monotonic_ns()
            names = [str(event.name) for event in self._inotify] if readable else []
            if self._path.name in names and self._path.stat().st_size:
                return moment
            if process.poll() is not None:
                raise RuntimeError(f"the process ended with {process.returncode} before {self._path.name} appeared")
        raise RuntimeError(f"{self._path.name} did not appear within {PATIENCE:g} s")


@dataclass(frozen=True)
class Daemon:
    """`rotator run` with one grant and one file target, as an installed service would run it, and what ``more`` adds
    to its configuration ({home} is its folder)."""

    home: Path
    provider: Provider
    more: str = field(default="", kw_only=True)

    @property
    def token(self) -> Path:
        return self.home / "run" / "billing" / "token"

    @property
    def client(self) -> Client:
        return Client(self.home / "state" / "state" / "control")

    def prepare(self) -> None:
        account = self.provider.account
        for folder in (self.home / "state", self.token.parent):
            folder.mkdir(parents=True)
        for name, secret in (("client_secret", account.client_secret), ("password", account.password)):
            private = self.home / name
            private.touch(0o600)
            private.write_text(secret)
        (self.home / "rotator.toml").write_text(
            f"""
            [providers.emulated]
            token_url = "{self.provider.token_url}"
            reuse = "harmless"

            [grants.billing]
            provider = "emulated"
            client_id = "{account.client_id}"
            client_secret = {{ file = "{self.home}/client_secret" }}
            username = "{account.username}"
            password = {{ file = "{self.home}/password" }}

            [grants.billing.targets.app]
            file = "billing/token"
            """
            + self.more.format(home=self.home)
        )

    @property
    def directories(self) -> dict[str, str]:
        """Where it keeps its state and publishes, as a supervisor tells it in the environment."""
        return {"STATE_DIRECTORY": str(self.home / "state"), "RUNTIME_DIRECTORY": str(self.home / "run")}

    def spawn(self) -> subprocess.Popen[bytes]:
        command = [*rotator(), "run", "--config", str(self.home / "rotator.toml")]
        return spawn(command, self.home, self.directories)


@dataclass(frozen=True)
class Agent:
    """`bao agent` rendering one KV version 2 entry to a file; the nearest peer in kind."""

    home: Path
    server: openbao.OpenBao

    @property
    def rendered(self) -> Path:
        return self.home / "rendered" / "token"

    def prepare(self) -> None:
        mount = self.server.mount_kv()
        self.server.do("POST", f"{mount}/data/billing", {"data": {"token": "a-token-of-some-length" * 3}})
        self.rendered.parent.mkdir(parents=True)
        (self.home / "login").touch(0o600)
        (self.home / "login").write_text(self.server.token)
        (self.home / "agent.hcl").write_text(
            f"""
            vault {{ address = "{self.server.url}" }}
            auto_auth {{
              method "token_file" {{ config = {{ token_file_path = "{self.home}/login" }} }}
            }}
            template {{
              contents    = "{{{{ with secret \\"{mount}/data/billing\\" }}}}{{{{ .Data.data.token }}}}{{{{ end }}}}"
              destination = "{self.rendered}"
            }}
            """
        )

    def spawn(self) -> subprocess.Popen[bytes]:
        return spawn([openbao.binary(), "agent", f"-config={self.home}/agent.hcl"], self.home, {})


def rotator() -> list[str]:
    """The installed command beside this interpreter, else the module."""
    script = Path(sys.executable).with_name("rotator")
    return [str(script)] if script.exists() else [sys.executable, "-m", "rotator"]


def spawn(command: Sequence[str], home: Path, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start with a bare environment; what it says goes to ``home``, as a supervisor's journal would take it."""
    given = {"PATH": os.environ.get("PATH", ""), "HOME": str(home), **environ}
    with (home / "output.log").open("ab") as log:
        return subprocess.Popen(command, cwd=home, env=given, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


@contextmanager
def running(made: Daemon | Agent, awaited: Path) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """The process, and the milliseconds from spawning it to its file."""
    with Appearance(awaited) as appearance:
        since = time.monotonic_ns()
        process = made.spawn()
        try:
            moment = appearance.wait(process)
            yield process, (moment - since) / 1e6
        finally:
            stop(process)


@contextmanager
def fresh(provider: Provider, more: str = "") -> Iterator[Daemon]:
    """A daemon's home without state; see `Daemon`."""
    with tempfile.TemporaryDirectory(prefix="rotator-bench-") as folder:
        daemon = Daemon(Path(folder), provider, more=more)
        daemon.prepare()
        yield daemon


@contextmanager
def agent(server: openbao.OpenBao) -> Iterator[Agent]:
    with tempfile.TemporaryDirectory(prefix="rotator-bench-") as folder:
        made = Agent(Path(folder), server)
        made.prepare()
        yield made


def wait_answering(daemon: Daemon) -> None:
    """Wait for the control socket."""
    until = time.monotonic() + PATIENCE
    while not daemon.client.answers():
        if time.monotonic() > until:
            raise RuntimeError("the control socket does not answer")
        time.sleep(0.05)


def rotate(daemon: Daemon, process: subprocess.Popen[bytes]) -> float:
    """From the order to the readable token, in milliseconds."""
    with Appearance(daemon.token, keep=True) as appearance:
        thread = threading.Thread(target=daemon.client.rotate, args=("billing",), kwargs={"force": True})
        since = time.monotonic_ns()
        thread.start()
        readable = appearance.wait(process)
        thread.join()
    return (readable - since) / 1e6
