"""VAULT_* and BAO_* as the official clients read them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from rotator import settings
from tests.settings.world import GRANT, lines, load

EMPTY = GRANT + "[vault.default]\n"
TOKEN = {"VAULT_ADDR": "https://vault.example.com:8200", "VAULT_TOKEN": "canary"}


def test_an_empty_table_takes_all_of_it(tmp_path: Path) -> None:
    loaded = load(
        tmp_path, EMPTY, **TOKEN, VAULT_NAMESPACE="team", VAULT_CACERT="/etc/ca.pem", VAULT_CLIENT_TIMEOUT="7",
    )  # fmt: skip
    vault = loaded.settings.vault["default"]
    assert (vault.address, vault.namespace) == ("https://vault.example.com:8200", "team")
    assert (vault.ca_file, vault.timeout) == (Path("/etc/ca.pem"), timedelta(seconds=7))
    assert vault.auth.token is not None
    assert (vault.auth.token.kind, vault.auth.token.value.get_secret_value()) == ("env", "VAULT_TOKEN")
    shown = {key: (value, source) for key, value, source in settings.effective(loaded)}
    assert shown["vault.default.address"][1] == "environment VAULT_ADDR"
    assert shown["vault.default.auth.token"][1] == "environment VAULT_TOKEN"
    assert "canary" not in repr(shown)


def test_what_openbao_says_goes_before_and_what_is_written_before_both(tmp_path: Path) -> None:
    both = {**TOKEN, "BAO_ADDR": "https://bao.example.com", "BAO_CLIENT_TIMEOUT": "1m"}
    vault = load(tmp_path, EMPTY, **both).settings.vault["default"]
    assert (vault.address, vault.timeout) == ("https://bao.example.com", timedelta(minutes=1))
    written = EMPTY + 'address = "https://written.example.com"\nauth = { token_file = "/run/token" }\n'
    vault = load(tmp_path, written, **both).settings.vault["default"]
    assert (vault.address, vault.auth.token) == ("https://written.example.com", None)
    set_by_us = load(tmp_path, EMPTY, **both, ROTATOR_VAULT__DEFAULT__ADDRESS="https://ours.example.com")
    assert set_by_us.settings.vault["default"].address == "https://ours.example.com"


def test_without_the_table_there_is_no_vault(tmp_path: Path) -> None:
    assert load(tmp_path, GRANT, **TOKEN, VAULT_SKIP_VERIFY="1").settings.vault == {}


def test_a_vault_of_another_name_takes_nothing(tmp_path: Path) -> None:
    found = lines(tmp_path, GRANT + "[vault.inner]\n", **TOKEN)
    assert any("vault.inner.address is missing" in line for line in found), found


def test_verification_is_not_switched_off(tmp_path: Path) -> None:
    found = lines(tmp_path, EMPTY, **TOKEN, VAULT_SKIP_VERIFY="true")
    assert found == [
        "environment VAULT_SKIP_VERIFY is refused: certificates are always verified; name the CA by ca_file"
    ]
    assert load(tmp_path, EMPTY, **TOKEN, VAULT_SKIP_VERIFY="false").settings.vault
