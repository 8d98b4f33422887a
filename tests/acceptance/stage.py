"""A stage for the real process: a configuration, its secrets and folders, an emulated provider, a supervisor's socket.

Everything goes through the command line and the file system, as an operator and a reader would.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rotator.lab.registry import Profile
from tests.peers import emulator
from tests.peers.emulator import ACCOUNT, Emulator

# Far above what anything here takes on a busy machine; reached only by a failing test.
PATIENCE = 20.0
POLL = 0.01

# Quick beats, so that no test waits for one.
TIMING = '[timing]\nsweep_every = "300ms"\nverify_every = "1s"\n'


def wait_for(condition: Callable[[], Any], what: str, within: float = PATIENCE) -> Any:
    """Poll until ``condition`` gives something true, and return that; other processes offer no event to wait on."""
    until = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < until, f"waited {within} s in vain for: {what}"
        time.sleep(POLL)
    return found


@dataclass(frozen=True, slots=True)
class Told:
    """One datagram to the supervisor; ``published`` tells whether the token file stood there as it came in."""

    text: str
    published: bool

    @property
    def words(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.text.split("\n"))


class Supervisor:
    """The other end of NOTIFY_SOCKET: a real AF_UNIX datagram socket, read by a thread as fast as it comes."""

    def __init__(self, path: Path, token: Path) -> None:
        self.path = path
        self.told: list[Told] = []
        self._token = token
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._read, name="supervisor")
        self._thread.start()

    def _read(self) -> None:
        while raw := self._socket.recv(64 << 10):
            self.told.append(Told(raw.decode(), self._token.exists()))

    def wait_told(self, part: str, since: int = 0) -> int:
        """Wait for a datagram with ``part`` in it, from number ``since`` on; returns its number."""

        def find() -> list[int]:
            told = list(self.told)
            return [number for number in range(since, len(told)) if part in told[number].text]

        numbers: list[int] = wait_for(find, f"{part!r} to the supervisor; told: {self.told[since:]}")
        return numbers[0]

    def close(self) -> None:
        # An empty datagram ends the reader.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", str(self.path))
        self._thread.join()
        self._socket.close()
        self.path.unlink()


@dataclass
class Process:
    """A running `rotator run`."""

    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def told(self) -> str:
        return self.log.read_text()

    def wait_logged(self, part: str) -> None:
        wait_for(lambda: part in self.told or self.popen.poll() is not None, f"{part!r} in the log:\n{self.told}")
        assert part in self.told, f"the daemon ended without {part!r}:\n{self.told}"

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        return self.popen.wait(PATIENCE)


@dataclass
class Stage:
    """Folders of one machine and what lies in them."""

    folder: Path
    provider: Emulator
    runs: int = 0
    extra: dict[str, str] = field(default_factory=dict)
    # The private folder, below this one.
    private: str = "state/state"

    @property
    def config(self) -> Path:
        return self.folder / "rotator.toml"

    @property
    def state(self) -> Path:
        """The private folder: of the state, or for the control socket alone where the state is elsewhere."""
        return self.folder / self.private

    @property
    def database(self) -> Path:
        return self.state / "state.db"

    @property
    def token(self) -> Path:
        return self.folder / "run" / "billing" / "token"

    def secret(self, name: str, value: str, mode: int = 0o600) -> Path:
        path = self.folder / name
        path.touch(mode=mode)
        path.chmod(mode)
        path.write_text(value)
        return path

    def write(self, text: str) -> Path:
        self.config.write_text(text)
        return self.config

    def provider_table(self, token_url: str = "") -> str:
        return (
            f'[providers.emulated]\ntoken_url = "{token_url or self.provider.token_url}"\n'
            f'login_url = "{self.provider.login_url}"\nreuse = "harmless"\nspacing = "50ms"\n'
        )

    def grant(self, name: str = "billing", *, password: bool = True, targets: str = "") -> str:
        """One grant with a raw file as its target. Its secrets are files."""
        self.secret("client_secret", ACCOUNT.client_secret)
        self.secret("password", ACCOUNT.password)
        told = f'password = {{ file = "{self.folder}/password" }}\n' if password else ""
        return (
            f'[grants.{name}]\nprovider = "emulated"\nclient_id = "{ACCOUNT.client_id}"\n'
            f'client_secret = {{ file = "{self.folder}/client_secret" }}\nusername = "{ACCOUNT.username}"\n{told}'
            + (targets or f'[grants.{name}.targets.app]\nfile = "{name}/token"\n')
        )

    def configure(self, *grants: str, timing: str = TIMING, head: str = "") -> Path:
        """Write the configuration: by default the one grant `billing`."""
        return self.write("\n".join((head, timing, self.provider_table(), *(grants or (self.grant(),)))))

    def environ(self, **more: str) -> dict[str, str]:
        """A bare environment: nothing of the machine's own may reach the process."""
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.folder / "home"),
            "STATE_DIRECTORY": str(self.folder / "state"),
            "RUNTIME_DIRECTORY": str(self.folder / "run"),
            **self.extra,
            **more,
        }

    def command(self, *words: str, config: bool = True) -> list[str]:
        named = ["--config", str(self.config)] if config else []
        return [sys.executable, "-m", "rotator", *words, *named]

    def rotator(
        self, *words: str, typed: str = "", config: bool = True, environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        return subprocess.run(
            self.command(*words, config=config), env=self.environ(**(environ or {})), input=typed, cwd=self.folder,
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip

    def rotators(self, *commands: tuple[str, ...]) -> list[tuple[str, subprocess.CompletedProcess[str]]]:
        """Run several commands side by side, for those that do not mind each other; each with its words."""
        with ThreadPoolExecutor(max_workers=4) as pool:
            done = list(pool.map(lambda words: self.rotator(*words), commands))
        return [(" ".join(words), one) for words, one in zip(commands, done, strict=True)]

    def start(self, *words: str, environ: Mapping[str, str] | None = None) -> Process:
        """Start `rotator run`; its messages go into a file of their own."""
        self.runs += 1
        log = self.folder / f"log-{self.runs}"
        with log.open("wb") as stream:
            popen = subprocess.Popen(
                self.command("run", *words), env=self.environ(**(environ or {})), cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
            )  # fmt: skip
        return Process(popen, log)

    @contextmanager
    def daemon(self, *words: str, wait: str = "daemon.ready", **environ: str) -> Iterator[Process]:
        """A daemon that has said ``wait`` in its log; it ends with the block, in good order unless it has ended."""
        process = self.start(*words, environ=environ)
        try:
            if wait:
                process.wait_logged(wait)
            if wait == "daemon.ready":
                # It opens just after; before that, a command would find the lock taken and nobody to ask.
                wait_for(lambda: (self.state / "control").exists(), "the control socket")
            yield process
            assert process.end() == 0, process.told
        finally:
            if process.popen.poll() is None:
                process.popen.kill()
                process.popen.wait()

    @contextmanager
    def supervisor(self) -> Iterator[Supervisor]:
        """A notify socket; put its path into the daemon's NOTIFY_SOCKET."""
        supervisor = Supervisor(self.folder / "notify", self.token)
        try:
            yield supervisor
        finally:
            supervisor.close()

    def status(self) -> dict[str, Any]:
        """What `status --json` says, whatever its exit code."""
        document: dict[str, Any] = json.loads(self.rotator("status", "--json").stdout)
        return document


@contextmanager
def opened(folder: Path, *, access_seconds: int = 3600) -> Iterator[Stage]:
    with emulator.serve(Profile(access_seconds=access_seconds)) as provider:
        stage = Stage(folder, provider)
        for name in ("home", "state", "run"):
            (folder / name).mkdir()
        stage.configure()
        yield stage
