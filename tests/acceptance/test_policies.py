"""`rotator vault-policy` and `rotator check --online`: what is printed suffices, and nothing of it can be left out."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.house import House
from tests.acceptance.stage import wait_for
from tests.peers import django_oauth, openbao
from tests.peers.django_oauth import DjangoOAuth
from tests.peers.openbao import OpenBao


@pytest.fixture(scope="module")
def bao() -> Iterator[OpenBao]:
    with openbao.raft() as server:
        yield server


@pytest.fixture(scope="module")
def peer() -> Iterator[DjangoOAuth]:
    with django_oauth.serve(access_seconds=20) as server:
        yield server


class Place(House):
    """Everything of one configuration is in Vault: target, state, client secret."""

    mount = ""

    def settle(self, bao: OpenBao) -> None:
        self.mount = bao.mount_kv()
        bao.do("POST", f"{self.mount}/data/oauth-clients/billing", {"data": {"secret": self.peer.client_secret}})
        self.provider = {"rotate_at": "0.1", "jitter": "0.0", "spacing": '"1s"'}
        self.timing = (
            f'[state]\nurl = "vault:{self.mount}/rotator/state"\n[timing]\nsweep_every = "300ms"\nverify_every = "1s"\n'
        )
        approle = ", ".join(f'{name} = {{ file = "{self.folder}/{name}" }}' for name in ("role_id", "secret_id"))
        self.vault = (
            f'[vault.default]\naddress = "{bao.url}"\nauth = {{ approle = {{ {approle} }} }}\n'
            f'[grants.billing.targets.cluster]\nvault = "{self.mount}/oauth/app1/billing"\n'
        )
        self.write()
        text = self.config.read_text()
        self.config.write_text(
            text.replace(
                f'client_secret = {{ file = "{self.folder}/client_secret" }}',
                f'client_secret = {{ vault = "{self.mount}/oauth-clients/billing#secret" }}',
            )
        )

    def log_in(self, bao: OpenBao, policy: str) -> None:
        for name, value in zip(("role_id", "secret_id"), bao.app_role(self.mount, policy), strict=True):
            self.secret(name, value)

    def check(self) -> tuple[int, str]:
        done = subprocess.run(
            self.command("check", "--online"), env=self.environ, cwd=self.folder, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def place(tmp_path: Path, peer: DjangoOAuth, bao: OpenBao) -> Place:
    made = Place(tmp_path / "house", peer)
    made.settle(bao)
    return made


def refused(bao: OpenBao, since: int) -> list[str]:
    """What the audit log tells that was asked without the right to."""
    found = (line for line in bao.audited()[since:] if line["type"] == "response")
    return [line["request"]["path"] for line in found if "permission denied" in str(line.get("error"))]


def test_a_daemon_lives_under_exactly_the_printed_policy(place: Place, bao: OpenBao) -> None:
    place.log_in(bao, place.order("vault-policy"))
    assert bao.audit is not None
    before = len(bao.audited())
    code, told = place.check()
    assert (code, "BAD" in told) == (0, False), told
    process = place.start()
    place.order("wait", "billing", "--timeout", "20s")
    first = place.raw.read_text()
    wait_for(lambda: place.raw.read_text() != first, place.told())
    entry = bao.do("GET", f"{place.mount}/data/oauth/app1/billing")["data"]
    # The published entry moves on by itself, hence the stored one is asked last.
    assert entry["data"]["access_token"]
    assert bao.do("GET", f"{place.mount}/metadata/oauth/app1/billing")["data"]["custom_metadata"]["managed-by"]
    stored = bao.do("GET", f"{place.mount}/data/rotator/state/grants/billing")["data"]["data"]
    assert json.loads(stored["record"])["name"] == "billing"
    # Gone from the configuration: the entry is cleared away once its token has expired, the grant when it is retired.
    text = place.config.read_text()
    head, _, rest = text.partition("[grants.billing]")
    place.config.write_text(head + re.search(r"\[vault.default\]\n.*\n.*\n", rest)[0])  # type: ignore[index]
    process.popen.send_signal(1)
    wait_for(lambda: "reloaded" in place.told().lower(), place.told())
    place.order("retire", "billing")
    assert process.end(15) == 0
    assert bao.ask("GET", f"{place.mount}/data/oauth/app1/billing")[0] == 404
    assert bao.ask("GET", f"{place.mount}/metadata/rotator/state/grants/billing")[0] == 404
    assert refused(bao, before) == [], place.told()
    # And a refusal would have been seen.
    bao.ask("GET", "nowhere/data/none", token="no-token")
    assert refused(bao, before) == ["nowhere/data/none"]


def test_one_wrapped_secret_id_serves_state_target_and_a_reload(place: Place, bao: OpenBao) -> None:
    place.log_in(bao, place.order("vault-policy"))
    text = place.config.read_text()
    place.config.write_text(
        text.replace("auth = { approle = {", f'auth = {{ approle = {{ wrapped = true, role = "{place.mount}",')
    )
    place.secret("secret_id", bao.wrapped("POST", f"auth/approle/role/{place.mount}/secret-id"))
    process = place.start()
    place.order("wait", "billing", "--timeout", "20s")
    wait_for(lambda: bao.ask("GET", f"{place.mount}/data/oauth/app1/billing")[0] == 200, place.told())
    process.popen.send_signal(1)
    wait_for(lambda: "reloaded" in place.told().lower(), place.told())
    entry = bao.do("GET", f"{place.mount}/data/oauth/app1/billing")["data"]["metadata"]["version"]
    wait_for(
        lambda: bao.do("GET", f"{place.mount}/data/oauth/app1/billing")["data"]["metadata"]["version"] > entry,
        place.told(),
    )
    assert process.end(15) == 0
    assert "refuses the login" not in place.told(last=1 << 20)


def test_every_line_of_the_policy_is_needed(place: Place, bao: OpenBao) -> None:
    """Take one capability away, and `check --online` names the path and the line to add."""
    whole = place.order("vault-policy")
    blocks = re.findall(r'# .*\npath "[^"]+" \{\n.*\n\}\n', whole)
    assert len(blocks) == 5
    for block in blocks:
        path = re.search(r'path "([^"]+)"', block)[1]  # type: ignore[index]
        place.log_in(bao, whole.replace(block, ""))
        code, told = place.check()
        assert code == 77, told
        assert f"BAD  vault default: {path}: " in told, told
        assert f'to mend it: add to the policy: path "{path}"' in told, told
        assert told.count("BAD") == 1, told


def test_consumers_read_their_own_entry_and_nothing_else(place: Place, bao: OpenBao) -> None:
    place.log_in(bao, place.order("vault-policy"))
    process = place.start()
    place.order("wait", "billing", "--timeout", "20s")
    assert process.end(15) == 0
    printed = place.order("vault-policy", "--readers")
    assert "consumers of billing" in printed
    role_id, secret_id = bao.app_role(f"reader-{place.mount}", printed)
    login = bao.do("POST", "auth/approle/login", {"role_id": role_id, "secret_id": secret_id})
    token = login["auth"]["client_token"]
    status, answer = bao.ask("GET", f"{place.mount}/data/oauth/app1/billing", token=token)
    assert (status, bool(answer["data"]["data"]["access_token"])) == (200, True)
    for method, path in (
        ("GET", "data/rotator/state/grants/billing"), ("GET", "data/rotator/state/meta"),
        ("LIST", "metadata/rotator/state/grants"), ("GET", "data/oauth-clients/billing"),
        ("POST", "data/oauth/app1/billing"),
    ):  # fmt: skip
        assert bao.ask(method, f"{place.mount}/{path}", {} if method == "POST" else None, token=token)[0] == 403, path


def test_what_is_away_is_told_one_by_one(place: Place, bao: OpenBao) -> None:
    place.log_in(bao, place.order("vault-policy"))
    text = place.config.read_text()
    place.config.write_text(text.replace(place.peer.token_url, "http://127.0.0.1:9/o/token/"))
    code, told = place.check()
    assert code == 69, told
    assert "BAD  provider peer: the token endpoint does not answer" in told
    assert "ok   vault default: logged in" in told
    place.config.write_text(text.replace(bao.url, "http://127.0.0.1:9"))
    code, told = place.check()
    assert code == 69, told
    assert "ok   provider peer" in told
    assert "BAD  vault default: Vault default at http://127.0.0.1:9" in told
