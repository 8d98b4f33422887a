"""A state in a real OpenBao that somebody deletes, brings back or spoils while the daemon lives from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import stage as stages
from tests.acceptance.stage import Stage, wait_for
from tests.peers import openbao
from tests.peers.openbao import OpenBao

ENTRY = "rotator/state/grants/billing"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with stages.opened(tmp_path) as opened:
        opened.private = "run/.rotator"
        yield opened


@pytest.fixture
def bao(stage: Stage) -> Iterator[OpenBao]:
    with openbao.raft() as server:
        server.mount_kv("kv")
        login = ", ".join(f'{name} = {{ file = "{stage.folder}/{name}" }}' for name in ("role_id", "secret_id"))
        stage.configure(
            stage.grant(),
            f'[vault.default]\naddress = "{server.url}"\nauth = {{ approle = {{ {login} }} }}\n',
            head='[state]\nurl = "vault:kv/rotator/state"\n',
        )
        for name in ("role_id", "secret_id"):
            stage.secret(name, "none yet")
        policy = stage.rotator("vault-policy").stdout
        for name, value in zip(("role_id", "secret_id"), server.app_role("rotator", policy), strict=True):
            stage.secret(name, value)
        yield server


def stored(bao: OpenBao) -> dict[str, Any]:
    status, answer = bao.ask("GET", f"kv/data/{ENTRY}")
    if status != 200 or not answer["data"]["data"]["record"]:
        return {"generation": 0}
    found = json.loads(answer["data"]["data"]["record"])
    assert isinstance(found, dict)
    return found


def rotate(stage: Stage) -> None:
    done = stage.rotator("rotate", "--force", "billing")
    assert done.returncode == 0, done.stderr


def test_what_is_deleted_or_brought_back_is_put_right_from_memory(stage: Stage, bao: OpenBao) -> None:
    with stage.daemon() as daemon:
        old = bao.do("GET", f"kv/data/{ENTRY}")["data"]["data"]
        rotate(stage)
        assert stored(bao)["generation"] == 2
        bao.do("DELETE", f"kv/metadata/{ENTRY}")
        daemon.wait_logged("was deleted from the store by somebody else; put right from memory to generation 2")
        wait_for(lambda: stored(bao)["generation"] == 2, "the entry")
        rotate(stage)
        # As a backup would bring it back: with a refresh token that was spent long ago.
        bao.do("POST", f"kv/data/{ENTRY}", {"data": old, "options": {"cas": version(bao)}})
        daemon.wait_logged("went back to generation 1 by somebody else; put right from memory to generation 3")
        wait_for(lambda: stored(bao)["generation"] == 3, "the entry")
        rotate(stage)
        assert stored(bao)["generation"] == 4
    # Every one of these was a refresh: nothing of it cost a login.
    assert stage.provider.journal.password_attempts == 1
    with stage.daemon():
        rotate(stage)
    assert stage.provider.journal.password_attempts == 1


def version(bao: OpenBao) -> int:
    return int(bao.do("GET", f"kv/data/{ENTRY}")["data"]["metadata"]["version"])


def test_what_was_deleted_by_mistake_is_not_begun_anew(stage: Stage, bao: OpenBao) -> None:
    with stage.daemon():
        token = stage.token.read_text()
    bao.do("DELETE", f"kv/data/{ENTRY}")
    refused = stage.rotator("run")
    assert refused.returncode == 65, refused.stderr
    assert "bao kv undelete -mount=kv -versions=" in refused.stderr
    bao.do("POST", f"kv/undelete/{ENTRY}", {"versions": [deleted(bao)]})
    with stage.daemon():
        assert stage.token.read_text() == token
    assert stage.provider.journal.password_attempts == 1


def deleted(bao: OpenBao) -> int:
    return int(bao.do("GET", f"kv/metadata/{ENTRY}")["data"]["current_version"])


def test_what_nobody_of_ours_wrote_is_refused(stage: Stage, bao: OpenBao) -> None:
    with stage.daemon():
        pass
    for data in ({"record": "{}"}, {"record": "no JSON", "lease": "{}", "deliveries": "{}", "at": ""}):
        bao.do("POST", f"kv/data/{ENTRY}", {"data": data, "options": {"cas": version(bao)}})
        refused = stage.rotator("run")
        assert refused.returncode == 65, refused.stderr
        assert "billing" in refused.stderr and "bao kv rollback" in refused.stderr


def test_a_mount_whose_versions_fade_holds_no_state(stage: Stage, bao: OpenBao) -> None:
    bao.do("POST", "kv/config", {"delete_version_after": "1h"})
    refused = stage.rotator("run")
    assert refused.returncode == 78, refused.stderr
    assert "delete_version_after" in refused.stderr
    assert stage.provider.journal.password_attempts == 0


def test_a_second_daemon_of_the_same_folder_yields(stage: Stage, bao: OpenBao) -> None:
    with stage.daemon():
        second = stage.rotator("run")
        assert second.returncode == 75, second.stderr
        assert "is held by process" in second.stderr
        assert stage.rotator("state", "reset", "--yes").returncode == 64
