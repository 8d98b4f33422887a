"""Secrets that are kept in a real OpenBao."""

from __future__ import annotations

import asyncio

import pytest

from rotator.core import errors
from rotator.core.tokens import Secret
from rotator.drivers import vault
from rotator.drivers.clock import SystemClock
from tests.peers.openbao import OpenBao

KEY = "grants.billing.password"


def read(bao: OpenBao, mount: str, path: str, field: str) -> Secret:
    async def token() -> Secret:
        return Secret(bao.token)

    async def work() -> Secret:
        guest = vault.Vault("default", vault.Address(url=bao.url), vault.TokenLogin(token), SystemClock())
        try:
            return await vault.cabinet.read(guest, mount, path, field, KEY)
        finally:
            await guest.close()

    return asyncio.run(work())


def test_a_field_of_the_current_version_is_read(bao: OpenBao, kv: str) -> None:
    for value in ("old", "new"):
        bao.do("POST", f"{kv}/data/clients/billing", {"data": {"password": value, "other": "x"}})
    assert read(bao, kv, "clients/billing", "password") == Secret("new")


def test_what_is_not_there_says_key_place_and_mending_step(bao: OpenBao, kv: str) -> None:
    bao.do("POST", f"{kv}/data/billing", {"data": {"number": 12, "empty": ""}})
    bao.do("POST", f"{kv}/data/gone", {"data": {"password": "canary"}})
    bao.do("DELETE", f"{kv}/data/gone")
    for path, field, words in (
        ("none", "password", f"there is nothing at {kv}/none of Vault default"),
        ("gone", "password", f"there is nothing at {kv}/gone of Vault default"),
        ("billing", "password", f"the field password of {kv}/billing of Vault default is not there"),
        ("billing", "number", f"the field number of {kv}/billing of Vault default is no text"),
        ("billing", "empty", f"the field empty of {kv}/billing of Vault default is empty"),
    ):
        with pytest.raises(errors.Misconfigured) as caught:
            read(bao, kv, path, field)
        assert str(caught.value) == f"{KEY}: {words}; write it there: bao kv put -mount={kv} {path} {field}=-"
