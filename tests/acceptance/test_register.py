"""Grants in bulk: entered from a file beside a daemon and without one, rotated like all others, taken out again."""

from __future__ import annotations

import base64
import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

from rotator.frontends.control import Client
from tests.acceptance import stage as stages
from tests.acceptance.stage import Stage, wait_for
from tests.peers.emulator import ACCOUNT

COUNT = 300


def prepare(stage: Stage) -> None:
    """One grant in the configuration, a seal, and a provider that bears many at once."""
    stage.secret("seal", base64.b64encode(bytes(range(32))).decode())
    seal = f'[state.seal]\nkey = {{ file = "{stage.folder}/seal" }}\n'
    limits = "[providers.emulated.limits]\nin_flight = 64\nper_second = 1000\n"
    stage.configure(stage.grant(), limits, head=seal)


def table(number: int, **changes: Any) -> dict[str, Any]:
    name = f"g{number:04d}"
    made = {
        "name": name, "provider": "emulated", "client_id": ACCOUNT.client_id, "client_secret": ACCOUNT.client_secret,
        "username": ACCOUNT.username, "password": ACCOUNT.password,
        "targets": {"app": {"file": f"many/{name}/token"}},
    }  # fmt: skip
    return {**made, **changes}


def write(path: Path, *tables: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(one) + "\n" for one in tables))
    return str(path)


def published(stage: Stage) -> int:
    return sum(1 for _ in (stage.folder / "run" / "many").glob("*/token"))


def test_hundreds_are_entered_at_once_rotated_and_served_after_a_restart(tmp_path: Path) -> None:
    with stages.opened(tmp_path) as stage:
        prepare(stage)
        path = write(tmp_path / "grants.jsonl", *(table(number) for number in range(COUNT)))
        with stage.daemon() as daemon:
            done = stage.rotator("grants", "import", path)
            assert (done.returncode, done.stdout) == (0, ""), done.stderr
            assert f"{COUNT} grants entered" in done.stderr
            wait_for(lambda: published(stage) == COUNT, "every token", within=60)
            shown = stage.status()
            assert shown["grants"].keys() == {"billing"}
            # Whoever comes, or comes again, has them counted at once instead of after half a minute.
            again = stage.rotator("grants", "import", write(tmp_path / "again.jsonl", table(5)))
            assert again.returncode == 0, again.stderr
            client = Client(stage.state / "control")
            wait_for(lambda: (client.health()["register"] or {}).get("valid") == COUNT, "the census", within=60)
            assert stage.status()["register"]["valid"] == COUNT
            assert stage.rotator("token", "g0007").stdout == (tmp_path / "run/many/g0007/token").read_text()
            rotated = json.loads(stage.rotator("rotate", "g0007", "--json").stdout)
            assert rotated["generation"] == 2 and rotated["published"] is True
            login = stage.rotator("authorize", "g0009", "--password-file", "-", typed=ACCOUNT.password)
            assert login.returncode == 0 and "g0009: generation 2" in login.stderr, login.stderr
            listed = stage.rotator("grants", "list", "--limit", "3", "--after", "g0005").stdout.splitlines()
            assert [line.split("\t")[:3] for line in listed[1:]] == [
                ["g0006", "emulated", "1"], ["g0007", "emulated", "2"], ["g0008", "emulated", "1"],
            ]  # fmt: skip
            assert "state: fresh" in stage.rotator("grants", "show", "g0003").stdout
        before = stage.provider.journal.password_attempts
        # Nothing of it in clear: neither what the provider gave nor what the file held.
        raw = b"".join(one.read_bytes() for one in stage.state.glob("state.db*"))
        assert ACCOUNT.password.encode() not in raw and ACCOUNT.client_secret.encode() not in raw
        for one in (tmp_path / "run" / "many").glob("*/token"):
            one.unlink()
        with stage.daemon() as daemon:
            assert published(stage) == COUNT, "all of them stand there before it is ready"
            assert "daemon.defect" not in daemon.told
            assert stage.rotator("grants", "retire", "g0000").returncode == 0
            assert published(stage) == COUNT - 1
            refused = stage.rotator("token", "g0000")
            assert refused.returncode == 64 and "no grant is named 'g0000'" in refused.stderr
        assert stage.provider.journal.password_attempts == before == COUNT + 2, "once each, and one login by hand"


def test_without_a_daemon_they_are_entered_as_well_from_comma_separated_values(tmp_path: Path) -> None:
    with stages.opened(tmp_path) as stage:
        prepare(stage)
        (tmp_path / "grants.csv").write_text(
            "name,provider,client_id,client_secret.file,username,password.file,scope,targets.app.file\n"
            f"first,emulated,{ACCOUNT.client_id},{tmp_path}/client_secret,{ACCOUNT.username},{tmp_path}/password,,many/first/token\n"
        )
        dry = stage.rotator("grants", "import", str(tmp_path / "grants.csv"), "--dry-run")
        assert dry.stderr == "1 grants are good; nothing was entered\n"
        assert stage.rotator("grants", "list").stdout.splitlines()[1:] == []
        assert stage.rotator("grants", "import", str(tmp_path / "grants.csv")).returncode == 0
        assert [line.split("\t")[0] for line in stage.rotator("grants", "list").stdout.splitlines()[1:]] == ["first"]
        with stage.daemon():
            wait_for(lambda: published(stage) == 1, "its token")


# Runs a command and counts how often a file is opened, as the interpreter itself tells (PEP 578).
COUNTING = """
import os, sys
path, count = sys.argv[1], 0
def hear(event, arguments):
    global count
    count += event == "open" and str(arguments[0]) == path
sys.addaudithook(hear)
from rotator import cli
code = cli.main(sys.argv[2:])
print(count)
sys.exit(code)
"""


def test_the_configuration_is_read_once_however_many_are_entered(tmp_path: Path) -> None:
    with stages.opened(tmp_path) as stage:
        prepare(stage)
        long = {"description": "x" * 500}
        path = write(tmp_path / "grants.jsonl", *(table(number, **long) for number in range(100)))
        words = [sys.executable, "-c", COUNTING, str(stage.config), "grants", "import", path]
        for running in (True, False):
            with stage.daemon() if running else nullcontext():
                done = subprocess.run(
                    [*words, "--config", str(stage.config)], env=stage.environ(), cwd=tmp_path, capture_output=True,
                    text=True, timeout=stages.PATIENCE, check=False,
                )  # fmt: skip
                assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
                assert "100 grants entered" in done.stderr


def test_a_file_with_anything_wrong_in_it_enters_nothing_and_says_where(tmp_path: Path) -> None:
    with stages.opened(tmp_path) as stage:
        prepare(stage)
        path = write(
            tmp_path / "grants.jsonl", table(1), table(2, provider="nobody"), table(3, clientid="x"),
            table(1), table(4, name="Not Good"), table(5, client_secret={"file": "relative"}),
        )  # fmt: skip
        done = stage.rotator("grants", "import", path)
        assert done.returncode == 78
        told = done.stderr.replace(f"rotator: {path}:", "")
        assert [line.partition(";")[0] for line in told.splitlines()[:5]] == [
            "2: g0002: provider names no known provider",
            "3: g0003: clientid is not a known key",
            "4: g0001 stands in the file twice",
            "5: a name cannot be that of a grant",
            "6: g0005: client_secret must name its file by an absolute path",
        ]
        assert "nothing was entered" in done.stderr
        assert ACCOUNT.password not in done.stderr and ACCOUNT.client_secret not in done.stderr
        stage.configure()
        bare = stage.rotator("grants", "import", write(tmp_path / "bare.jsonl", table(1)))
        assert bare.returncode == 78 and "client_secret would be kept in clear" in bare.stderr
        wrong = stage.rotator("grants", "import", write(tmp_path / "grants.txt", table(1)))
        assert wrong.returncode == 64 and "neither .jsonl nor .csv" in wrong.stderr


def test_what_cannot_be_read_is_left_out_until_it_is_entered_again(tmp_path: Path) -> None:
    with stages.opened(tmp_path) as stage:
        prepare(stage)
        path = write(tmp_path / "grants.jsonl", *(table(number) for number in range(6)))
        with stage.daemon():
            assert stage.rotator("grants", "import", path).returncode == 0
            wait_for(lambda: published(stage) == 6, "every token")
        # Each seal is bound to its place: this is what a stranger's hand, or a torn copy, leaves.
        with closing(sqlite3.connect(stage.database)) as database, database:
            for column, of, one, other in (("record", "grants", 1, 3), ("text", "register", 2, 4)):
                database.execute(
                    f"UPDATE {of} SET {column} = (SELECT {column} FROM {of} WHERE name = ?) WHERE name = ?",
                    (f"g000{other}", f"g000{one}"),
                )
        for found in (tmp_path / "run" / "many").glob("*/token"):
            found.unlink()
        with stage.daemon() as daemon:
            assert published(stage) == 4, "all others stand there before it is ready"
            for name in ("g0001", "g0002"):
                told = f'"message": "{name} of the register is left out: a stored grant does not open under its seal'
                assert daemon.told.count(told) == 1
                shown = stage.rotator("grants", "show", name)
                assert shown.returncode == 78
                assert f"then `rotator grants retire {name}` and enter it again" in shown.stderr
                assert stage.rotator("grants", "retire", name).returncode == 0
            assert stage.rotator("grants", "import", path).returncode == 0
            wait_for(lambda: published(stage) == 6, "every token")
            assert "store.troubled" not in daemon.told


def test_one_that_moves_into_the_configuration_under_another_provider_is_rotated(tmp_path: Path) -> None:
    with stages.opened(tmp_path, access_seconds=2) as stage:
        prepare(stage)
        path = write(tmp_path / "grants.jsonl", table(1))
        with stage.daemon() as daemon:
            assert stage.rotator("grants", "import", path).returncode == 0
            wait_for(lambda: published(stage) == 1, "its token")
            text = stage.config.read_text() + stage.grant("g0001", targets='targets.app.file = "many/g0001/token"\n')
            stage.write(text.replace("emulated", "renamed"))
            daemon.popen.send_signal(signal.SIGHUP)
            daemon.wait_logged("run `rotator grants retire g0001` to take the entry out")
            client = Client(stage.state / "control")
            before = stage.status()["grants"]["g0001"]["generation"]
            wait_for(lambda: client.health()["grants"]["g0001"]["generation"] > before + 1, "two rotations")
            done = stage.rotator("grants", "retire", "g0001")
            assert (done.returncode, done.stderr) == (
                0, "g0001: taken out of the register; the configuration has it, and goes on with it\n",
            )  # fmt: skip
            before = stage.status()["grants"]["g0001"]["generation"]
            wait_for(lambda: client.health()["grants"]["g0001"]["generation"] > before, "a rotation")
            assert stage.rotator("grants", "list").stdout.splitlines()[1:] == []
            assert daemon.told.count('"message": "g0001 stands in the register and in the configuration') == 1
