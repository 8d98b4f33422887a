"""A real OpenBao of three nodes that breaks in every way: readers of the file notice nothing, and the entry is right
again as soon as Vault is. Nothing that is secret stands in an audit log."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.acceptance import house
from tests.acceptance.house import House, Reader
from tests.acceptance.stage import Process, wait_for
from tests.peers import django_oauth, openbao, raft
from tests.peers.raft import Cluster

LIFETIME = 16
VERIFY_EVERY = 2.0
# How often all misfortunes come; more of them in the long run.
ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "1"))
TTL_SECONDS = float(os.environ.get("TTL_SECONDS", "60"))
# Five seconds of a login's life, and 15 s until it may be renewed no more.
TTL, MAX_TTL = 5, 15

Figures = Callable[[str], None]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with raft.cluster() as made:
        yield made


@dataclass
class Trial:
    """One daemon beside one cluster, and what was found."""

    cluster: Cluster
    place: House
    process: Process
    mount: str
    found: dict[str, list[float]] = field(default_factory=dict)
    turned_away: int = 0
    down: float = 0.0

    def alive(self) -> None:
        assert self.process.popen.poll() is None, self.place.told()

    def entry(self) -> str:
        node = self.cluster.active
        status, answer = (
            (0, None) if node is None else self.cluster.ask(node, "GET", f"{self.mount}/data/oauth/app1/billing")
        )
        return str(answer["data"]["data"]["access_token"]) if status == 200 else ""

    def is_empty(self) -> bool:
        node = self.cluster.active
        return node is not None and self.cluster.ask(node, "GET", f"{self.mount}/data/oauth/app1/billing")[0] == 404

    def is_right(self) -> bool:
        return self.place.raw.read_text() == self.entry()

    def wait_right(self, what: str) -> None:
        """Since Vault answers again: how long until the entry holds what the file holds."""
        wait_for(lambda: self.entry() or self.is_empty(), f"an answer of Vault: {what}", within=house.PATIENCE)
        since = time.monotonic()
        wait_for(self.is_right, f"{what}\n{self.place.told()}", within=house.PATIENCE)
        self.found.setdefault(what, []).append(time.monotonic() - since)
        self.alive()

    def hold(self, seconds: float) -> None:
        """Vault is away for so long; readers go on."""
        raft.wait_seconds(self.process.popen, seconds)


def kill_the_leader(trial: Trial) -> None:
    leader = trial.cluster.wait_active()
    leader.kill()
    trial.cluster.wait_active(but=leader)
    trial.wait_right("leader killed")
    trial.cluster.restart(leader)


def seal_the_active(trial: Trial, others: list[raft.Node]) -> raft.Node:
    """Asked until it says so itself: one that is only about to lead answers 204 and goes on, and one of the ``others``
    calls itself active for a moment after it was sealed."""

    def sealed() -> raft.Node | None:
        node = trial.cluster.active
        if node is None or node in others:
            return None
        trial.cluster.ask(node, "PUT", "sys/seal")
        told = trial.cluster.ask(node, "GET", "sys/seal-status")[1]
        return node if told is not None and told["sealed"] else None

    found: raft.Node = wait_for(sealed, "a sealed node", within=house.PATIENCE)
    return found


def seal(trial: Trial) -> None:
    """Two of three: nobody is left to lead."""
    front, since = trial.cluster.front, time.monotonic()
    before = front.turned_away
    sealed: list[raft.Node] = []
    for _ in range(2):
        sealed.append(seal_the_active(trial, sealed))
    trial.hold(4.0)
    # The third goes on answering questions where it lost the others while it was about to lead, though it can write
    # nothing: then it is sealed too.
    if trial.cluster.active is not None:
        sealed.append(seal_the_active(trial, sealed))
        trial.hold(4.0)
    assert trial.entry() == ""
    trial.turned_away += front.turned_away - before
    trial.down += time.monotonic() - since
    for node in trial.cluster.nodes:
        trial.cluster.unseal(node)
    trial.wait_right("sealed")


def hold_the_leader(trial: Trial) -> None:
    leader = trial.cluster.wait_active()
    leader.signal(signal.SIGSTOP)
    try:
        trial.cluster.wait_active(but=leader)
        trial.wait_right("leader stopped")
    finally:
        leader.signal(signal.SIGCONT)


def limit(trial: Trial) -> None:
    trial.cluster.do(
        "POST", "sys/quotas/rate-limit/narrow", {"path": f"{trial.mount}/", "rate": 0.1, "interval": "10s"}
    )
    trial.hold(5.0)
    trial.cluster.do("DELETE", "sys/quotas/rate-limit/narrow")
    trial.wait_right("429")


def restore(trial: Trial) -> None:
    snapshot = trial.cluster.do("GET", "sys/storage/raft/snapshot")
    before = trial.entry()
    wait_for(lambda: trial.entry() not in ("", before), trial.place.told(), within=house.PATIENCE)
    trial.cluster.do("POST", "sys/storage/raft/snapshot-force", snapshot)
    trial.wait_right("restored from a snapshot")


MISFORTUNES = (kill_the_leader, seal, hold_the_leader, limit, restore)


def furnish(place: House, cluster: Cluster, mount: str, **login: object) -> None:
    cluster.mount_kv(mount)
    cluster.do("POST", f"{mount}/config", {"max_versions": 3})
    role_id, secret_id = cluster.app_role(mount, house.PUBLISHER_POLICY.replace("kv/", f"{mount}/"), **login)
    approle = ", ".join(
        f'{name} = {{ file = "{place.secret(name, value)}" }}'
        for name, value in (("role_id", role_id), ("secret_id", secret_id))
    )
    place.timing = f'[timing]\nsweep_every = "300ms"\nverify_every = "{VERIFY_EVERY:g}s"\n'
    place.vault = (
        f'[vault.default]\naddress = "{cluster.front.url}"\nca_file = "{cluster.ca_file}"\ntimeout = "2s"\n'
        f"auth = {{ approle = {{ {approle} }} }}\n"
        f'[grants.billing.targets.cluster]\nvault = "{mount}/oauth/app1/billing"\n'
    )
    place.write()


def test_readers_notice_nothing_of_a_cluster_that_breaks(tmp_path: Path, cluster: Cluster, figures: Figures) -> None:
    with ExitStack() as stack:
        peer = stack.enter_context(django_oauth.serve(access_seconds=LIFETIME))
        place = House(tmp_path / "house", peer, {"reuse": '"harmless"', "rotate_at": "0.25", "spacing": '"1s"'})
        furnish(place, cluster, "chaos")
        process = stack.enter_context(place.daemon())
        trial = Trial(cluster, place, process, "chaos")
        trial.wait_right("at the start")
        reader = Reader(raw=str(place.raw), described=str(place.described), pause=0.002)
        with house.reading(reader):
            for _ in range(ROUNDS):
                for misfortune in MISFORTUNES:
                    misfortune(trial)
                    assert cluster.voters == raft.NODES
            since = time.monotonic()
            trial.hold(0.5)
        exchanges, seen = peer.exchanges(), reader.seen
        assert time.monotonic() - since < house.PATIENCE
        secrets = {one.access_token for one in exchanges if one.access_token} | {
            one.refresh_token for one in exchanges if one.refresh_token
        }
        secrets |= {peer.client_secret, peer.password, (place.folder / "secret_id").read_text()}
    figures(
        f"OpenBao of three nodes, TLS, tokens of {LIFETIME} s, {len(exchanges)} exchanges: right again after "
        + ", ".join(f"{what} {max(times):.1f} s" for what, times in trial.found.items())
        + f" (verify_every {VERIFY_EVERY:g} s); {trial.turned_away} connections in {trial.down:.1f} s of a dead Vault"
    )
    figures(
        f"  reader: {seen.reads} reads, {len(seen.tokens)} tokens; torn {seen.torn}, missing {seen.missing}, expired "
        f"{seen.expired}; least time left {seen.least_left:.1f} s"
    )
    assert (seen.missing, seen.torn, seen.expired) == (0, 0, 0), seen.oddities
    assert seen.generations == sorted(seen.generations)
    assert sum(one.kind == "password" for one in exchanges) == 1, "Vault's troubles cost a login"
    # A second's pause at least after each failure; a rotation asks at once, about every four seconds.
    assert trial.turned_away <= 2 * trial.down + 5
    assert_kept_secret(cluster.audited(), secrets, figures)


def assert_kept_secret(audited: str, secrets: set[str], figures: Figures) -> None:
    """No canary stands in an audit log; that it would be found is proven by one that must stand there."""
    assert len(secrets) > 5
    lines = audited.count("\n")
    assert lines > 50
    assert "oauth/app1/billing" in audited
    shown = [secret[:4] for secret in secrets if secret in audited]
    figures(f"  audit logs: {lines} lines, {len(secrets)} secrets looked for, {len(shown)} found")
    assert shown == []


def test_logins_of_seconds(tmp_path: Path, figures: Figures) -> None:
    """Renewed while it may be, made anew when it may not: no write fails, and no login more than is needed."""
    with ExitStack() as stack:
        bao = stack.enter_context(openbao.raft())
        peer = stack.enter_context(django_oauth.serve(access_seconds=LIFETIME))
        place = House(tmp_path / "house", peer, {"reuse": '"harmless"', "rotate_at": "0.1", "spacing": '"1s"'})
        bao.mount_kv("kv")
        times = {"token_ttl": f"{TTL}s", "token_max_ttl": f"{MAX_TTL}s"}
        role_id, secret_id = bao.app_role("publisher", house.PUBLISHER_POLICY, **times)
        approle = ", ".join(
            f'{name} = {{ file = "{place.secret(name, value)}" }}'
            for name, value in (("role_id", role_id), ("secret_id", secret_id))
        )
        place.timing = '[timing]\nsweep_every = "300ms"\nverify_every = "1s"\n'
        place.vault = (
            f'[vault.default]\naddress = "{bao.url}"\nauth = {{ approle = {{ {approle} }} }}\n'
            f'[grants.billing.targets.cluster]\nvault = "{house.ENTRY}"\n'
        )
        before = len(bao.audited())
        with place.daemon() as process:
            since = time.monotonic()
            raft.wait_seconds(process.popen, TTL_SECONDS)
            lived = time.monotonic() - since
        told, exchanges = place.told(last=1 << 20), peer.exchanges()
        audited = [line for line in bao.audited()[before:] if line["type"] == "response"]
        paths = [line["request"]["path"] for line in audited]
        logins, renewals = paths.count("auth/approle/login"), paths.count("auth/token/renew-self")
        failed = [line["request"]["path"] for line in audited if line.get("error")]
        writes = sum(
            line["request"]["operation"] != "read" and "kv/data/" in line["request"]["path"] for line in audited
        )
        assert bao.audit is not None
        text = bao.audit.read_text()
    figures(
        f"logins of {TTL} s, {MAX_TTL} s at most, for {lived:.0f} s: {logins} logins, {renewals} renewals, {writes} "
        f"writes, {len(failed)} of {len(audited)} requests failed"
    )
    assert "delivery_failed" not in told and "not published" not in told, told[-3000:]
    # A renewal that a busy machine sends too late is refused, and a login follows. No read and no write fails.
    assert set(failed) <= {"auth/token/renew-self"} and len(failed) <= 2, failed
    assert writes >= len(exchanges) - 1
    # A login lives until its last 15 %, when no renewal gives more: 15 s each, one more for the cut end.
    assert 2 <= logins <= lived / (MAX_TTL * 0.6) + 2
    assert renewals >= logins
    secrets = {one.access_token for one in exchanges} | {one.refresh_token for one in exchanges if one.refresh_token}
    assert_kept_secret(text, secrets | {secret_id, peer.client_secret, peer.password}, figures)
