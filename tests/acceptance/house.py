"""`rotator run` as an operator has it: one grant at a real OAuth server, its targets, and processes that read them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.acceptance.reader import Seen
from tests.acceptance.stage import Process
from tests.peers.django_oauth import DjangoOAuth
from tests.peers.openbao import OpenBao

PATIENCE = 30.0
ROOT = Path(__file__).parents[2]

# As in the documentation of operators: what the publisher needs, and what a reader of it needs.
PUBLISHER_POLICY = """
path "kv/data/oauth/*"        { capabilities=["create","update","read"] }
path "kv/metadata/oauth/*"    { capabilities=["create","update","read"] }
path "auth/token/renew-self"  { capabilities=["update"] }
path "sys/wrapping/unwrap"    { capabilities=["update"] }
"""
READER_POLICY = 'path "kv/data/oauth/app1/*"   { capabilities=["read"] }'
ENTRY = "kv/oauth/app1/billing"
ENTRY_PATH = "/v1/kv/data/oauth/app1/billing"


@dataclass
class House:
    """A machine's folders, the configuration in them, and the provider that it names."""

    folder: Path
    peer: DjangoOAuth
    provider: dict[str, str] = field(default_factory=dict)
    budget: str = ""
    timing: str = ""
    vault: str = ""
    # More environment for everything that is run here, and a command that the daemon is run by.
    extra: dict[str, str] = field(default_factory=dict)
    before: tuple[str, ...] = ()
    lives: int = 0

    def __post_init__(self) -> None:
        for name in ("home", "state", "run"):
            (self.folder / name).mkdir(parents=True)
        for name, value in (("client_secret", self.peer.client_secret), ("password", self.peer.password)):
            self.secret(name, value)

    @property
    def config(self) -> Path:
        return self.folder / "rotator.toml"

    @property
    def raw(self) -> Path:
        return self.folder / "run" / "billing" / "token"

    @property
    def described(self) -> Path:
        return self.folder / "run" / "billing" / "token.json"

    def secret(self, name: str, value: str) -> Path:
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(value)
        return path

    def use_vault(self, bao: OpenBao) -> None:
        """Publish to `ENTRY` of this server too, under an AppRole with exactly `PUBLISHER_POLICY`."""
        bao.mount_kv("kv")
        role_id, secret_id = bao.app_role("publisher", PUBLISHER_POLICY)
        approle = ", ".join(
            f'{name} = {{ file = "{self.secret(name, value)}" }}'
            for name, value in (("role_id", role_id), ("secret_id", secret_id))
        )
        self.vault = (
            f'[vault.default]\naddress = "{bao.url}"\nauth = {{ approle = {{ {approle} }} }}\n'
            f'[grants.billing.targets.cluster]\nvault = "{ENTRY}"\n'
        )

    def write(self) -> None:
        settings = "".join(f"{key} = {value}\n" for key, value in self.provider.items())
        self.config.write_text(
            f'{self.timing}\n[providers.peer]\ntoken_url = "{self.peer.token_url}"\n{settings}\n'
            f'[grants.billing]\nprovider = "peer"\nclient_id = "{self.peer.client_id}"\n'
            f'client_secret = {{ file = "{self.folder}/client_secret" }}\nusername = "{self.peer.username}"\n'
            f'password = {{ file = "{self.folder}/password" }}\n{self.budget}\n'
            '[grants.billing.targets.app]\nfile = "billing/token"\n'
            '[grants.billing.targets.described]\nfile = "billing/token.json"\nformat = "json"\n'
            f"{self.vault}"
        )

    @property
    def environ(self) -> dict[str, str]:
        folders = {"HOME": "home", "STATE_DIRECTORY": "state", "RUNTIME_DIRECTORY": "run"}
        return {
            "PATH": os.environ["PATH"], "LANG": "C.UTF-8",
            **{name: str(self.folder / folder) for name, folder in folders.items()},
            **self.extra,
        }  # fmt: skip

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "rotator", *words, "--config", str(self.config)]

    def order(self, *words: str) -> str:
        """Run a command beside the daemon to its good end; what it said."""
        done = subprocess.run(
            self.command(*words), env=self.environ, cwd=self.folder, capture_output=True, text=True, timeout=PATIENCE,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"rotator {' '.join(words)}: {done.returncode}\n{done.stderr}\n{self.told()}"
        return done.stdout

    def start(self) -> Process:
        """Start `rotator run`. Every life has a log of its own."""
        self.lives += 1
        log = self.folder / f"log-{self.lives:03}"
        with log.open("wb") as stream:
            popen = subprocess.Popen(
                [*self.before, *self.command("run")], env=self.environ, cwd=self.folder, stdin=subprocess.DEVNULL,
                stdout=stream, stderr=stream,
            )  # fmt: skip
        return Process(popen, log)

    @contextmanager
    def daemon(self) -> Iterator[Process]:
        """A daemon that has published everywhere, as `rotator wait` says; it must end in good order."""
        self.write()
        process = self.start()
        try:
            self.order("wait", "billing", "--timeout", "20s")
            yield process
            assert process.end(signal.SIGTERM) == 0, self.told()
        finally:
            bury(process)

    def told(self, last: int = 3000) -> str:
        """The logs of all lives, their end."""
        return "\n".join(log.read_text() for log in sorted(self.folder.glob("log-*")))[-last:]


def bury(process: Process) -> None:
    """End a process that a failing test left behind."""
    if process.popen.poll() is None:
        process.popen.kill()
        process.popen.wait()


class Reader:
    """A process of `tests.acceptance.reader`; ``seen`` once it was closed."""

    def __init__(self, **wishes: object) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "tests.acceptance.reader"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert self.popen.stdin is not None
        self.popen.stdin.write(json.dumps(wishes) + "\n")
        self.popen.stdin.flush()
        self.seen = Seen()

    def wait_reading(self) -> None:
        assert self.popen.stdout is not None
        assert self.popen.stdout.readline() == "reading\n"

    def close(self) -> None:
        told, _ = self.popen.communicate(timeout=PATIENCE)
        assert self.popen.returncode == 0, "a reader died"
        self.seen = Seen(**json.loads(told))


@contextmanager
def reading(*readers: Reader) -> Iterator[None]:
    """Everybody reads from before the block until after it; no reader outlives it."""
    try:
        for reader in readers:
            reader.wait_reading()
        yield
        for reader in readers:
            reader.close()
    finally:
        for reader in readers:
            if reader.popen.poll() is None:
                reader.popen.kill()
            with reader.popen:
                pass
