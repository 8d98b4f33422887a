"""A grant whose client secret and password are kept in a real OpenBao."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance import stage as stages
from tests.acceptance.stage import Stage, wait_for
from tests.peers import openbao
from tests.peers.emulator import ACCOUNT
from tests.peers.openbao import OpenBao

POLICY = 'path "kv/data/clients/billing" { capabilities = ["read"] }'


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with stages.opened(tmp_path) as opened:
        yield opened


def keep(bao: OpenBao, password: str) -> None:
    data = {"client_secret": ACCOUNT.client_secret, "password": password}
    bao.do("POST", "kv/data/clients/billing", {"data": data})


def configure(stage: Stage, bao: OpenBao) -> None:
    bao.mount_kv("kv")
    role_id, secret_id = bao.app_role("rotator", POLICY)
    stage.secret("role_id", role_id)
    stage.secret("secret_id", secret_id)
    approle = ", ".join(f'{key} = {{ file = "{stage.folder}/{key}" }}' for key in ("role_id", "secret_id"))
    stage.configure(
        f'[vault.default]\naddress = "{bao.url}"\nauth = {{ approle = {{ {approle} }} }}\n'
        f'[grants.billing]\nprovider = "emulated"\nclient_id = "{ACCOUNT.client_id}"\n'
        f'username = "{ACCOUNT.username}"\n'
        'client_secret = { vault = "kv/clients/billing#client_secret" }\n'
        'password = { vault = "kv/clients/billing#password" }\n'
        '[grants.billing.targets.app]\nfile = "billing/token"\n'
    )


def test_a_wrong_password_latches_and_a_new_version_of_the_entry_releases_it(stage: Stage) -> None:
    with openbao.dev() as bao:
        configure(stage, bao)
        keep(bao, "canary-wrong")
        with stage.daemon() as daemon:
            daemon.wait_logged("grant.latched")
            assert stage.provider.journal.password_attempts == 1

            keep(bao, ACCOUNT.password)
            wait_for(stage.token.exists, "a token after the entry was mended")

            assert stage.provider.journal.password_attempts == 2
            assert "canary-wrong" not in daemon.told and ACCOUNT.password not in daemon.told


def test_a_vault_that_is_away_stops_no_rotation(stage: Stage) -> None:
    with ExitStack() as vault:
        bao = vault.enter_context(openbao.dev())
        configure(stage, bao)
        keep(bao, ACCOUNT.password)
        with stage.daemon():
            first = stage.token.read_text()
            # Away now; the client secret that it held is still needed for each refresh.
            vault.close()
            done = stage.rotator("rotate", "--force", "billing")
            assert done.returncode == 0, done.stderr
            assert stage.token.read_text() != first
