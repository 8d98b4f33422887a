"""rotator-vault.service as it stands: everything is in Vault, nothing is shared with anybody on this machine."""

from __future__ import annotations

import json
import re
import shutil

from tests.acceptance.stage import wait_for
from tests.booted.conftest import AT, Service
from tests.booted.machine import PATIENCE, Machine
from tests.peers import openbao
from tests.peers.emulator import ACCOUNT

CONFIG = f"""\
providers.omnifund.token_url = "{AT}/oauth/v2/token"
state.url = "vault:secret/rotator/state"
vault.default = {{ address = "http://127.0.0.1:8200", auth = {{ token = {{ credential = "vault" }} }} }}
[grants.billing]
provider = "omnifund"
client_id = "{ACCOUNT.client_id}"
client_secret = {{ credential = "client_secret" }}
username = "{ACCOUNT.username}"
password = {{ credential = "password" }}
targets.cluster = {{ vault = "secret/oauth/billing" }}
"""
WORD = "a-token-for-tests"


def asks_with_the_credentials(machine: Machine) -> None:
    """A command finds this daemon by its configuration, and is told how to ask with what the unit alone is given; that
    leaves the unit's folders as they are."""
    config = ("--config", "/etc/rotator/rotator-vault.toml")
    assert "billing" in machine.say("rotator", "status", *config)
    outside = machine.say("rotator", "check", "--online", *config)
    assert "not asked: credentials are given to the service only (vault.default.auth.token)" in outside
    line = re.search(r"to ask it: (systemd-run .*)", outside)
    assert line is not None, outside
    inside = machine.run("sh", "-c", line[1], check=False)
    assert "ok   vault default: logged in" in inside.stdout, inside.stdout + inside.stderr
    assert "billing" in machine.say("rotator", "status", *config), "the control socket is still there"


def test_everything_is_in_vault_and_survives_the_user_that_is_no_more(service: Service, machine: Machine) -> None:
    shutil.copy(openbao.binary(), machine.root / "srv" / "bao")
    (machine.root / "srv" / "bao").chmod(0o755)
    machine.run(
        "systemd-run", "--quiet", "--collect", "--unit=vault", "/srv/bao", "server", "-dev",
        f"-dev-root-token-id={WORD}", "-dev-listen-address=127.0.0.1:8200", "-dev-no-store-token",
    )  # fmt: skip

    def entry(path: str) -> dict[str, str]:
        told = machine.say(
            "curl", "-sf", "-H", f"X-Vault-Token: {WORD}", f"http://127.0.0.1:8200/v1/secret/data/{path}"
        )
        found: dict[str, str] = json.loads(told)["data"]["data"]
        return found

    health = ("curl", "-sf", "http://127.0.0.1:8200/v1/sys/health")
    wait_for(lambda: machine.succeeds(*health), "OpenBao", PATIENCE)
    service.credential("vault", WORD)
    machine.write("/etc/rotator/rotator-vault.toml", CONFIG)
    try:
        machine.run("systemctl", "start", "rotator-vault")
        first = entry("oauth/billing")["access_token"]
        asks_with_the_credentials(machine)
        assert not machine.succeeds("id", "rotator-vault") or machine.say("id", "-u", "rotator-vault") >= "61184"
        # Another user id, and nothing of the old one's is needed.
        machine.run("systemctl", "stop", "rotator-vault")
        machine.run("rm", "-rf", "/var/lib/private/rotator-vault", "/var/lib/rotator-vault")
        machine.run("systemctl", "start", "rotator-vault")
        assert entry("oauth/billing")["access_token"] == first
        assert service.provider.count("password") == 1
    finally:
        machine.run("systemctl", "stop", "rotator-vault", "vault", check=False)
