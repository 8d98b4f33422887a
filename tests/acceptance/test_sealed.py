"""A state whose records are sealed: by the transit engine of a real OpenBao, then by a key of the operator's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance import stage as stages
from tests.acceptance.stage import Stage
from tests.peers import openbao


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with stages.opened(tmp_path) as opened:
        yield opened


def on_disk(stage: Stage) -> bytes:
    return b"".join(file.read_bytes() for file in stage.state.rglob("*") if file.is_file())


def test_a_vault_that_is_away_after_the_start_stops_nothing_and_a_key_replaces_it(stage: Stage) -> None:
    with ExitStack() as away:
        bao = away.enter_context(openbao.dev())
        bao.do("POST", "sys/mounts/transit", {"type": "transit"})
        bao.do("POST", "transit/keys/rotator")
        stage.secret("vault-token", bao.token)
        vault = (
            f'[vault.default]\naddress = "{bao.url}"\nauth = {{ token = {{ file = "{stage.folder}/vault-token" }} }}\n'
        )
        stage.configure(stage.grant(), vault, head='[state.seal]\ntransit = "transit/rotator"\n')
        policy = stage.rotator("vault-policy").stdout
        assert 'path "transit/decrypt/rotator"' in policy and 'path "transit/datakey/plaintext/rotator"' in policy
        with stage.daemon():
            first = stage.token.read_text()
            busy = stage.rotator("rekey")
            assert busy.returncode == 75, busy.stderr
            away.close()
            done = stage.rotator("rotate", "--force", "billing")
            assert done.returncode == 0, done.stderr
            second = stage.token.read_text()
            assert second != first
        for token in (first, second):
            assert token.encode() not in on_disk(stage)
        # It is not started without the Vault that holds its key, and nothing is lost by trying.
        refused = stage.rotator("status")
        assert refused.returncode == 69 and "Vault default" in refused.stderr
    key = stage.secret("seal", "5e" * 32)
    stage.configure(stage.grant(), head=f'[state.seal]\nkey = {{ file = "{key}" }}\n')
    wrong = stage.rotator("rekey")
    assert wrong.returncode == 78 and "sealed with another key" in wrong.stderr


def test_a_state_in_clear_is_sealed_by_one_command(stage: Stage) -> None:
    stage.configure(stage.grant())
    with stage.daemon():
        token = stage.token.read_text().encode()
    assert token in on_disk(stage)
    key = stage.secret("seal", "5e" * 32)
    stage.configure(stage.grant(), head=f'[state.seal]\nkey = {{ file = "{key}" }}\n')
    done = stage.rotator("rekey")
    assert (done.returncode, done.stderr) == (
        0, "1 grant(s) sealed anew; state.seal.former is not needed any more\n",
    )  # fmt: skip
    assert token not in on_disk(stage)
    assert b"5e5e5e" not in on_disk(stage)
    other = stage.secret("other", "a1" * 32)
    stage.configure(stage.grant(), head=f'[state.seal]\nkey = {{ file = "{other}" }}\nformer = {{ file = "{key}" }}\n')
    assert stage.rotator("rekey").returncode == 0
    stage.configure(stage.grant(), head=f'[state.seal]\nkey = {{ file = "{other}" }}\n')
    with stage.daemon():
        assert stage.provider.journal.password_attempts == 1
        done = stage.rotator("rotate", "--force", "billing")
        assert done.returncode == 0, done.stderr
