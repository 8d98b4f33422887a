"""A state in a real PostgreSQL, by configuration: checked before anything runs, its password never told."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance import stage as stages
from tests.acceptance.stage import Stage, wait_for
from tests.peers import postgres
from tests.peers.postgres import Postgres

PASSWORD = "right-horse-battery"


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres.cluster() as running:
        running.do(f"CREATE ROLE rotator LOGIN PASSWORD '{PASSWORD}'")
        hba = running.data / "pg_hba.conf"
        hba.write_text("host all rotator 127.0.0.1/32 scram-sha-256\n" + hba.read_text())
        running.do("SELECT pg_reload_conf()")
        yield running


@pytest.fixture
def stage(tmp_path: Path, server: Postgres) -> Iterator[Stage]:
    with stages.opened(tmp_path) as opened:
        opened.private = "run/.rotator"
        database = server.database()
        server.do("GRANT CREATE, USAGE ON SCHEMA public TO rotator", database)
        opened.secret("db_password", PASSWORD)
        opened.secret("seal_key", base64.b64encode(bytes(range(32))).decode())
        opened.configure(head=head(opened, server.url(database, "rotator")))
        yield opened


def head(stage: Stage, url: str) -> str:
    return (
        f'[state]\nurl = "{url}"\npassword = {{ file = "{stage.folder}/db_password" }}\n'
        f'[state.seal]\nkey = {{ file = "{stage.folder}/seal_key" }}\n'
    )


def test_a_daemon_keeps_its_state_there_sealed(stage: Stage, server: Postgres) -> None:
    before = stage.rotator("check", "--online")
    assert before.returncode == 0, before.stderr
    assert "answers; nothing is stored there yet" in before.stdout + before.stderr
    with stage.daemon() as daemon:
        token = wait_for(lambda: stage.token.exists() and stage.token.read_text(), "the first token")
        done = stage.rotator("rotate", "--force", "billing")
        assert done.returncode == 0, done.stderr
        wait_for(lambda: stage.token.read_text() != token, "the next token")
        token = stage.token.read_text()
        # A second daemon of this machine would write the same files.
        assert stage.rotator("run").returncode == 75
        told = daemon.told
    after = stage.rotator("check", "--online")
    assert "answers; 1 grant(s) stored" in after.stdout + after.stderr
    status = stage.rotator("status")
    assert "billing" in status.stdout
    assert stage.rotator("token", "billing").stdout.strip() == token
    rekeyed = stage.rotator("rekey")
    assert rekeyed.returncode == 0, rekeyed.stderr
    for text in (told, before.stdout, before.stderr, after.stdout, status.stdout, status.stderr):
        assert PASSWORD not in text
    database = next(line for line in stage.config.read_text().splitlines() if "url" in line).rpartition("/")[2][:-1]
    assert token not in str(server.do("SELECT * FROM rotator_grants", database))


def test_what_is_wrong_is_told_in_a_line_with_the_mending_step(stage: Stage) -> None:
    stage.secret("db_password", "wrong-horse")
    refused = stage.rotator("run")
    assert refused.returncode == 78
    assert "look at the role's password: state.password" in refused.stderr
    assert "horse" not in refused.stdout + refused.stderr and "Traceback" not in refused.stderr
    checked = stage.rotator("check", "--online")
    assert checked.returncode == 78
    reset = stage.rotator("state", "reset", "--yes")
    assert reset.returncode == 64
    assert "in PostgreSQL" in reset.stderr
