"""Commands beside a service whose secrets are systemd's credentials: what only the service sees is no fault of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance import stage as stages
from tests.acceptance.stage import Stage

# Nobody listens there, and nobody is asked: the secret comes first.
NOWHERE = "127.0.0.1:9"
VAULT = (
    f'[vault.default]\naddress = "http://{NOWHERE}"\n'
    'auth = { approle = { role_id = { credential = "role_id" }, secret_id = { credential = "secret_id" } } }\n'
)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with stages.opened(tmp_path) as opened:
        yield opened


def test_online_a_credential_that_only_the_service_sees_is_not_asked_for(stage: Stage) -> None:
    stage.configure(stage.grant(), VAULT)
    told = stage.rotator("check", "--online")
    assert told.returncode == 0, told.stdout + told.stderr
    assert (
        "--   vault default: not asked: credentials are given to the service only "
        "(vault.default.auth.approle.role_id)\n"
        "     to ask it: run it as a part of the service, or with $CREDENTIALS_DIRECTORY naming"
    ) in told.stdout
    assert "BAD" not in told.stdout
    assert told.stdout.splitlines()[-1] == "3 checks, 0 bad, 1 not asked"
    document = json.loads(stage.rotator("check", "--online", "--json").stdout)
    assert document["good"] is True
    (unasked,) = [one for one in document["checks"] if one["good"] is None]
    assert unasked["check"] == "vault default" and unasked["mend"]


def test_online_a_fleet_whose_password_is_a_credential_is_not_asked_for(stage: Stage) -> None:
    head = f'[state]\nurl = "postgresql://rotator@{NOWHERE}/rotator"\npassword = {{ credential = "state" }}\n'
    stage.configure(stage.grant(), head=head)
    told = stage.rotator("check", "--online")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "--   state: not asked: credentials are given to the service only (state.password)" in told.stdout


def test_online_inside_the_service_it_is_asked_for_as_ever(stage: Stage) -> None:
    stage.configure(stage.grant(), VAULT)
    (stage.folder / "credentials").mkdir()
    for name in ("role_id", "secret_id"):
        stage.secret(f"credentials/{name}", "word")
    told = stage.rotator("check", "--online", environ={"CREDENTIALS_DIRECTORY": str(stage.folder / "credentials")})
    assert told.returncode == 69, told.stdout
    assert "BAD  vault default: " in told.stdout


def test_rekey_says_in_one_line_where_its_key_is(stage: Stage) -> None:
    grant = stage.grant().replace(f'{{ file = "{stage.folder}/password" }}', '{ credential = "password" }')
    stage.configure(grant, head='[state.seal]\nkey = { credential = "seal" }\n')
    told = stage.rotator("rekey")
    assert told.returncode == 78
    assert told.stderr.splitlines() == [
        "rotator: state.seal.key is a credential, and credentials are given to the service only",
        "rotator: to mend it: run it as a part of the service, or with $CREDENTIALS_DIRECTORY naming a folder that "
        "holds them",
    ]


def test_rekey_needs_its_keys_alone(stage: Stage) -> None:
    """Not the secrets of grants, which may be credentials that only the service sees."""
    with stage.daemon():
        pass
    grant = stage.grant().replace(f'{{ file = "{stage.folder}/password" }}', '{ credential = "password" }')
    key = stage.secret("seal", "5e" * 32)
    stage.configure(grant, head=f'[state.seal]\nkey = {{ file = "{key}" }}\n')
    told = stage.rotator("rekey")
    assert (told.returncode, told.stderr) == (
        0, "1 grant(s) sealed anew; state.seal.former is not needed any more\n",
    )  # fmt: skip
    key.chmod(0o644)
    told = stage.rotator("rekey")
    assert told.returncode == 78 and "can be read or written by everybody" in told.stderr
