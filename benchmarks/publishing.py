"""What publishing to a Vault costs, beside the bare client; and whether a Vault that is slow delays anybody else."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import hvac

from benchmarks import stage
from benchmarks.provider import Provider
from rotator.core.publication import Publication
from rotator.core.tokens import AccessToken, Secret
from rotator.drivers import clock, vault
from tests.peers import wire
from tests.peers.openbao import OpenBao

BLOCK = 50
HOUR = timedelta(hours=1)
SLOW_GRANTS = 8
HELD = 2.0


@dataclass
class Costs:
    """One entry for each block: milliseconds of processor and of time for each generation."""

    ours: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    ours_took: list[float] = field(default_factory=list)
    bare_took: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        return [ours / bare for ours, bare in zip(self.ours, self.bare, strict=True)]


def publish(server: OpenBao, blocks: int) -> Costs:
    """Blocks of generations to one entry, by our publisher and by hvac alone in turns. Both send the same requests for
    each: a read, a write with check-and-set, and the labels."""
    mount, found = server.mount_kv(), Costs()

    async def token() -> Secret:
        return Secret(server.token)

    async def run() -> None:
        ours = vault.Vault("bench", vault.Address(url=server.url), vault.TokenLogin(token), clock.SystemClock())
        publisher = vault.KvPublisher(ours, mount, "ours")
        number = 0

        async def settle(count: int) -> None:
            nonlocal number
            for _ in range(count):
                number += 1
                now = datetime.now(UTC)
                access = AccessToken(Secret(f"{number:086d}"), "bearer", "all", now, now + HOUR, number)
                await publisher.settle(Publication("bench", "lineage", access), now)

        bare = _Bare(server, mount)
        # The first of each opens connections and imports.
        await settle(5)
        bare.publish(5)
        for _ in range(blocks):
            cpu, since = time.process_time(), time.perf_counter()
            await settle(BLOCK)
            found.ours.append((time.process_time() - cpu) * 1000 / BLOCK)
            found.ours_took.append((time.perf_counter() - since) * 1000 / BLOCK)
            cpu, since = time.process_time(), time.perf_counter()
            bare.publish(BLOCK)
            found.bare.append((time.process_time() - cpu) * 1000 / BLOCK)
            found.bare_took.append((time.perf_counter() - since) * 1000 / BLOCK)
        await ours.close()

    asyncio.run(run())
    return found


class _Bare:
    """As one would write it by hand: hvac with its own defaults, in one thread."""

    def __init__(self, server: OpenBao, mount: str) -> None:
        self._kv = hvac.Client(url=server.url, token=server.token).secrets.kv.v2
        self._mount = mount
        self._number = 0

    def publish(self, count: int) -> None:
        for _ in range(count):
            self._number += 1
            now = datetime.now(UTC)
            ends = (now + HOUR).isoformat()
            data = {
                "access_token": f"{self._number:086d}", "token_type": "Bearer", "expires_at": ends,
                "expires_at_unix": str(int((now + HOUR).timestamp())), "issued_at": now.isoformat(),
                "generation": str(self._number), "scope": "all", "grant": "bench", "lineage": "lineage",
            }  # fmt: skip
            version = 0
            if self._number > 1:
                told = self._kv.read_secret_version("bare", mount_point=self._mount, raise_on_deleted_version=True)
                version = told["data"]["metadata"]["version"]
            self._kv.create_or_update_secret("bare", data, cas=version, mount_point=self._mount)
            labels = {key: data[key] for key in ("grant", "generation", "issued_at", "expires_at", "lineage")}
            self._kv.update_metadata(
                "bare", max_versions=3, delete_version_after="3900s", mount_point=self._mount,
                custom_metadata={"managed-by": "rotator", **labels},
            )  # fmt: skip


@dataclass(frozen=True)
class CrowdedDaemon(stage.Daemon):
    """The same daemon, with more grants whose Vault holds every answer."""

    vault_url: str = ""

    def prepare(self) -> None:
        super().prepare()
        account, config = self.provider.account, self.home / "rotator.toml"
        (self.home / "vault-token").touch(0o600)
        (self.home / "vault-token").write_text("a-token")
        more = "".join(
            f"""
            [grants.slow_{number}]
            provider = "emulated"
            client_id = "{account.client_id}"
            client_secret = {{ file = "{self.home}/client_secret" }}
            username = "{account.username}"
            password = {{ file = "{self.home}/password" }}
            [grants.slow_{number}.targets.cluster]
            vault = "secret/slow/{number}"
            """
            for number in range(SLOW_GRANTS)
        )
        config.write_text(
            f"""
            [timing]
            verify_every = "1s"
            [startup]
            require = "any"
            [vault.default]
            address = "{self.vault_url}"
            auth = {{ token = {{ file = "{self.home}/vault-token" }} }}
            {config.read_text()}
            {more}
            """
        )


def beside_a_slow_vault(provider: Provider, count: int) -> tuple[list[float], list[float]]:
    """From the order to rotate one grant to its file being readable, in milliseconds: of a daemon whose other grants
    wait for a Vault that holds every answer for two seconds, and of one that has no other; in turns."""
    with (
        wire.serve(lambda asked: wire.Reply(503, {"errors": []}, wait=lambda: time.sleep(HELD))) as slow,
        stage.fresh(provider) as plain,
        _crowded(provider, slow.url) as crowded,
        stage.running(plain, plain.token) as (alone, _),
        stage.running(crowded, crowded.token) as (beside, _),
    ):
        for daemon in (plain, crowded):
            stage.wait_answering(daemon)
        before = len(slow.asked)
        spans: tuple[list[float], list[float]] = ([], [])
        for _ in range(count):
            spans[0].append(stage.rotate(crowded, beside))
            spans[1].append(stage.rotate(plain, alone))
        if len(slow.asked) == before:
            raise RuntimeError("nobody asked the slow Vault meanwhile")
    return spans


@contextmanager
def _crowded(provider: Provider, url: str) -> Iterator[CrowdedDaemon]:
    with tempfile.TemporaryDirectory(prefix="rotator-bench-") as folder:
        made = CrowdedDaemon(Path(folder), provider, vault_url=url)
        made.prepare()
        yield made
