"""Grants that stand in a real OpenBao and nowhere else: they come, change, and go while the daemon runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance import stage as stages
from tests.acceptance.stage import Stage, wait_for
from tests.peers import openbao
from tests.peers.emulator import ACCOUNT
from tests.peers.openbao import OpenBao


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with stages.opened(tmp_path) as opened:
        yield opened


@pytest.fixture
def bao() -> Iterator[OpenBao]:
    with openbao.raft() as server:
        server.mount_kv("kv")
        yield server


def put(bao: OpenBao, name: str, **fields: str) -> None:
    account = {
        "client_id": ACCOUNT.client_id, "client_secret": ACCOUNT.client_secret, "username": ACCOUNT.username,
        "password": ACCOUNT.password,
    }  # fmt: skip
    bao.do("POST", f"kv/data/clients/{name}", {"data": {**account, **fields}})


def furnish(stage: Stage, bao: OpenBao) -> None:
    stage.configure(
        f'[vault.default]\naddress = "{bao.url}"\n'
        f'auth = {{ approle = {{ role_id = {{ file = "{stage.folder}/role_id" }}, '
        f'secret_id = {{ file = "{stage.folder}/secret_id" }} }} }}\n'
        '[discovery.vault]\nprefix = "kv/clients/"\nprovider = "emulated"\nfile = "{grant}/token"\n'
        'vault = "kv/tokens/{grant}"\n'
    )
    for name in ("role_id", "secret_id"):
        stage.secret(name, "none yet")
    policy = stage.rotator("vault-policy")
    assert policy.returncode == 0, policy.stderr
    # What a discovered grant publishes to is not known on paper: its folder is the operator's to allow.
    allowed = policy.stdout + (
        'path "kv/data/tokens/*" { capabilities = ["create", "update", "read"] }\n'
        'path "kv/metadata/tokens/*" { capabilities = ["create", "update", "read", "delete"] }\n'
    )
    for name, value in zip(("role_id", "secret_id"), bao.app_role("rotator", allowed), strict=True):
        stage.secret(name, value)


def grants(stage: Stage) -> dict[str, object]:
    told = stage.rotator("status", "--json")
    shown = json.loads(told.stdout)["grants"]
    assert isinstance(shown, dict)
    return shown


def test_an_entry_becomes_a_grant_and_its_end_retires_it(stage: Stage, bao: OpenBao) -> None:
    furnish(stage, bao)
    put(bao, "billing")
    with stage.daemon() as daemon:
        token = stage.folder / "run" / "billing" / "token"
        other = token.parent.parent / "orders" / "token"
        wait_for(token.exists, f"the token of an entry that was there\n{daemon.told}")
        put(bao, "orders", file="orders/token")
        wait_for(other.exists, f"the token of an entry that came\n{daemon.told}")
        wait_for(lambda: bao.ask("GET", "kv/data/tokens/orders")[0] == 200, daemon.told)
        before = token.read_text()
        # Bad entries are told once each, and harm nobody.
        put(bao, "Bad-Name")
        put(bao, "half", client_id="")
        put(bao, "lost", provider="nowhere")
        daemon.wait_logged("kv/clients/Bad-Name: its name cannot be that of a grant")
        daemon.wait_logged("kv/clients/half: the field client_id must be text")
        daemon.wait_logged("kv/clients/lost: its provider is not a known one")
        bao.do("DELETE", "kv/metadata/clients/orders")
        daemon.wait_logged("orders: retired")
        wait_for(lambda: not other.exists(), "the file of a grant that was retired")
        wait_for(lambda: bao.ask("GET", "kv/data/tokens/orders")[0] == 404, "its entry")
        assert list(grants(stage)) == ["billing"]
        assert token.read_text() == before, "the other grant was touched"
        lines = [line for line in daemon.told.splitlines() if "kv/clients/half: the field client_id" in line]
        assert len(lines) == 1
        for secret in (ACCOUNT.client_secret, ACCOUNT.password):
            assert secret not in daemon.told


def test_a_vault_that_is_sealed_takes_no_grant_away(stage: Stage, bao: OpenBao) -> None:
    furnish(stage, bao)
    put(bao, "billing")
    with stage.daemon() as daemon:
        token = stage.folder / "run" / "billing" / "token"
        wait_for(token.exists, f"the token\n{daemon.told}")
        bao.seal()
        daemon.wait_logged("was not looked at; what was found there stays")
        assert stage.rotator("rotate", "--force", "billing").returncode == 0
        assert list(grants(stage)) == ["billing"]
        bao.unseal()
        # An entry that is missing once, as while a backup is brought back, takes nothing away either.
        put(bao, "orders")
        wait_for(lambda: sorted(grants(stage)) == ["billing", "orders"], daemon.told)
        assert "retired" not in daemon.told


def test_a_new_password_in_the_entry_releases_the_latch(stage: Stage, bao: OpenBao) -> None:
    furnish(stage, bao)
    put(bao, "billing", password="canary-wrong")
    with stage.daemon() as daemon:
        daemon.wait_logged("grant.latched")
        assert stage.provider.journal.password_attempts == 1
        put(bao, "billing")
        wait_for((stage.folder / "run" / "billing" / "token").exists, f"a token\n{daemon.told}")
        assert stage.provider.journal.password_attempts == 2
        assert "canary-wrong" not in daemon.told
