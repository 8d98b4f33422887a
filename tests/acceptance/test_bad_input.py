"""Everything that can be written or stand wrong gives one clear message with the mending step, and harms nothing."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance import stage as stages
from tests.acceptance.stage import Stage
from tests.peers.emulator import ACCOUNT

MEND = "rotator: to mend it: "
NOBODY = 65534
Told = subprocess.CompletedProcess[str]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with stages.opened(tmp_path) as opened:
        yield opened


def complaint(done: Told, code: int) -> str:
    """The one message of a command that refused: one problem, with how to mend it, and nothing else."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert all(line.startswith("rotator: ") for line in lines), done.stderr
    assert not re.search("Traceback|pydantic|Errno|a defect", done.stderr), done.stderr
    for secret in (ACCOUNT.client_secret, ACCOUNT.password):
        assert secret not in done.stderr
    problems = [line for line in lines if not line.startswith(MEND)]
    assert len(problems) == 1, done.stderr
    return "\n".join(lines)


def replaced(stage: Stage, old: str, new: str) -> None:
    text = stage.config.read_text()
    assert old in text, "the test would change nothing"
    stage.write(text.replace(old, new))


def open_folder(stage: Stage) -> str:
    folder = stage.folder / "open"
    folder.mkdir()
    folder.chmod(0o777)
    return str(folder)


# Each: what is done to a good configuration, and what the message must say: the key or file, and the mending step.
WRONG: dict[str, tuple[Callable[[Stage], object], tuple[str, ...]]] = {
    "unknown key": (
        lambda stage: replaced(stage, "username", "usrname"),
        ("rotator.toml:", "grants.billing.usrname is not a known key; did you mean username?"),
    ),
    "wrong type": (
        lambda stage: replaced(stage, 'file = "billing/token"', "file = 7"),
        ("rotator.toml:", "grants.billing.targets.app.file must be text in quotes"),
    ),
    "bad duration": (
        lambda stage: replaced(stage, '"300ms"', '"300 apples"'),
        ("rotator.toml:3: timing.sweep_every must be", '"30s"'),
    ),
    "missing secret file": (
        lambda stage: (stage.folder / "password").unlink(),
        ("grants.billing.password: ", "/password is missing; "),
    ),
    "a secret that others can read": (
        lambda stage: stage.secret("password", ACCOUNT.password, 0o644),
        ("grants.billing.password: ", "can be read or written by everybody (mode 0644); run chmod o-rwx "),
    ),
    "a secret of two lines": (
        lambda stage: stage.secret("password", f"{ACCOUNT.password}\n\n\x00"),
        ("grants.billing.password: ", "; "),
    ),
    "a secret from a Vault that is not configured": (
        lambda stage: replaced(stage, f'file = "{stage.folder}/password"', 'vault = "secret/omnifund#password"'),
        ("rotator.toml:", "grants.billing.password", "needs the Vault 'default', which is not configured"),
    ),
    "unknown group": (
        lambda stage: replaced(stage, 'file = "billing/token"', 'file = "billing/token"\ngroup = "no-such-group"'),
        ("grants.billing.targets.app: ", "no-such-group", "; "),
    ),
    "unknown provider": (
        lambda stage: replaced(stage, 'provider = "emulated"', 'provider = "emulatd"'),
        ("rotator.toml:", "grants.billing.provider names no known provider; did you mean emulated?"),
    ),
    "two grants that write one file": (
        lambda stage: stage.configure(
            stage.grant(), stage.grant("reports", targets='[grants.reports.targets.app]\nfile = "billing/token"\n')
        ),
        ("grants.reports.targets.app.file is also written by grants.billing.targets.app; give reports a place",),
    ),
    "two names of one file": (
        lambda stage: stage.configure(
            stage.grant(),
            stage.grant(
                "reports", targets=f'[grants.reports.targets.app]\nfile = "{stage.folder}/run/billing/token"\n'
            ),
        ),
        ("grants.reports.targets.app: writes the same file as grants.billing.targets.app; give each",),
    ),
    "a folder in which everybody may write": (
        lambda stage: replaced(stage, '"billing/token"', f'"{open_folder(stage)}/token"'),
        ("grants.billing.targets.app: everybody may write in ", "/open (mode 0777)", "; chmod o-w "),
    ),
    "a folder that is not there": (
        lambda stage: replaced(stage, '"billing/token"', f'"{stage.folder}/nowhere/token"'),
        ("grants.billing.targets.app: the folder ", "/nowhere for token does not exist; create it"),
    ),
    "credentials in clear text": (
        lambda stage: replaced(stage, stage.provider.token_url, "http://login.example.com/token"),
        ("rotator.toml:", "providers.emulated.token_url must be https; or set providers.emulated.allow_plain_http"),
    ),
    "bad TOML": (
        lambda stage: stage.write(stage.config.read_text() + "[grants\n"),
        ("rotator.toml:", ": not valid TOML: ", MEND),
    ),
    "a key given twice": (
        lambda stage: replaced(stage, "username =", "username = 'a'\nusername ="),
        ("rotator.toml:", ": not valid TOML: ", MEND),
    ),
    "not text": (
        lambda stage: stage.config.write_bytes(b"# \xff\xfe\n"),
        ("rotator.toml:1: not UTF-8 text", f"{MEND}save the file as UTF-8"),
    ),
    "no such configuration": (
        lambda stage: stage.config.unlink(),
        ("rotator.toml: there is no such configuration file", f"{MEND}give the right --config"),
    ),
    "a store of another kind": (
        lambda stage: replaced(stage, "[timing]", '[state]\nurl = "mysql://db.example.com/rotator"\n[timing]'),
        ('state.url must be "sqlite:FILE", "postgresql://HOST/DATABASE" or "vault:[NAME:]MOUNT/PATH"',),
    ),
    "a URL that libpq does not read": (
        lambda stage: replaced(stage, "[timing]", '[state]\nurl = "postgresql://db.example.com/r?no=1"\n[timing]'),
        ("state.url is not a URL that libpq reads: ", f"{MEND}write state.url = "),
    ),
    "a state directory that is not there": (
        lambda stage: replaced(stage, "[timing]", '[state]\nurl = "sqlite:/proc/nowhere/state.db"\n[timing]'),
        ("the state directory /proc/nowhere cannot be made: ", f"{MEND}create it for the user that runs rotator"),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_and_nothing_starts(name: str, stage: Stage) -> None:
    spoil, parts = WRONG[name]
    spoil(stage)
    told = complaint(stage.rotator("run"), 78)
    for part in parts:
        assert part in told, told
    assert len(stage.provider.journal.entries) == 0
    assert not stage.state.exists()
    assert not stage.token.exists()


def test_all_that_is_wrong_is_told_at_once(stage: Stage) -> None:
    replaced(stage, "client_id", "client_idd")
    replaced(stage, '"300ms"', "7")
    done = stage.rotator("run")
    assert done.returncode == 78
    assert len(done.stderr.splitlines()) >= 2
    assert "client_idd" in done.stderr
    assert "timing.sweep_every" in done.stderr


def test_an_unknown_variable(stage: Stage) -> None:
    told = complaint(stage.rotator("run", environ={"ROTATOR_TIMING__SWEEP_EVRY": "3s"}), 78)
    assert "environment ROTATOR_TIMING__SWEEP_EVRY is not a known setting; did you mean" in told
    assert "ROTATOR_TIMING__SWEEP_EVERY?" in told


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("run", "--once", "--within", "soon"), "--within must be"),
        (("wait", "billing", "--timeout", "5"), '--timeout needs a unit: write "5s" for seconds'),
        (("demo", "--for=-3s"), "--for must be"),
    ],
)
def test_a_bad_duration_on_the_command_line(words: tuple[str, ...], named: str, stage: Stage) -> None:
    assert named in complaint(stage.rotator(*words, config=words[0] != "demo"), 64)
    assert len(stage.provider.journal.entries) == 0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("rotat", "billing"), "invalid choice: 'rotat'"),
        (("rotate",), "the following arguments are required: GRANT"),
        (("authorize", "billing", "--password", ACCOUNT.password), "there is no option --password"),
        (("authorize", "billing", f"--password={ACCOUNT.password}"), "there is no option --password"),
        (("authorize", "billing", ACCOUNT.password), "1 word(s) too many for authorize"),
    ],
)
def test_words_that_do_not_fit(words: tuple[str, ...], named: str, stage: Stage) -> None:
    told = complaint(stage.rotator(*words, config=False), 64)
    assert named in told
    assert "--help`" in told.splitlines()[-1]


UNKNOWN = (
    ("rotate", "bilings"), ("authorize", "bilings", "--password-file", "-"), ("token", "bilings"),
    ("verify", "bilings"), ("wait", "bilings"), ("retire", "bilings"),
)  # fmt: skip


def test_an_unknown_grant_beside_a_daemon(stage: Stage) -> None:
    with stage.daemon():
        for _, done in stage.rotators(*UNKNOWN):
            told = complaint(done, 64)
            assert "bilings" in told
            assert len(told.splitlines()) == 2, "with how to mend it"
    assert len(stage.provider.journal.entries) == 1


def test_an_unknown_grant_without_a_daemon(stage: Stage) -> None:
    for words in UNKNOWN:
        if words[0] == "wait":
            continue  # it waits for a daemon, whatever the grant
        done = stage.rotator(*words)
        # What an engine of its own tells on the way is no complaint.
        complaints = [line for line in done.stderr.splitlines() if line.startswith("rotator: ")]
        assert (done.returncode, len(complaints)) == (64, 2), done.stderr
        assert "bilings" in complaints[0]
    assert len(stage.provider.journal.entries) == 0


# --- state ------------------------------------------------------------------------------------------------------


def made(stage: Stage) -> None:
    assert stage.rotator("run", "--once").returncode == 0


def contents(stage: Stage) -> dict[str, bytes]:
    """What lies in the state folder, but for the lock's text, and the index and empty log of who only reads."""
    found = {path.name: path.read_bytes() for path in sorted(stage.state.iterdir()) if path.name != "lock"}
    return {name: raw for name, raw in found.items() if raw and not name.endswith("-shm")}


def test_a_state_of_a_newer_rotator(stage: Stage) -> None:
    made(stage)
    with closing(sqlite3.connect(stage.database)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = contents(stage)
    for _, done in stage.rotators(("run",), ("status",), ("token", "billing"), ("rotate", "billing")):
        told = complaint(done, 65)
        assert f"the state {stage.database} has schema 99, this rotator knows " in told
        assert f"{MEND}start the newer rotator that wrote it" in told
    assert contents(stage) == before
    assert stage.provider.journal.password_attempts == 1


def test_a_damaged_state_is_left_as_it_is_until_it_is_reset(stage: Stage) -> None:
    made(stage)
    value = stage.token.read_text()
    raw = bytearray(stage.database.read_bytes())
    for start in range(4096, len(raw), 512):
        raw[start : start + 64] = b"\xa5" * 64
    stage.database.write_bytes(raw)
    before = contents(stage)
    for _, done in stage.rotators(("run",), ("status",), ("rotate", "billing")):
        told = complaint(done, 65)
        assert f"the state {stage.database} is damaged (" in told
        assert "`rotator state reset` keeps it aside" in told
    assert contents(stage) == before, "not a byte of it is changed"
    assert stage.token.read_text() == value, "its readers go on"
    assert stage.provider.journal.password_attempts == 1, "a damaged state is no reason to log in"
    assert stage.rotator("state", "reset", "--yes").returncode == 0
    assert bytes(raw) in contents(stage).values(), "the damaged one is kept"
    assert stage.rotator("rotate", "--force", "billing").returncode == 0


def test_a_state_that_is_no_database(stage: Stage) -> None:
    made(stage)
    stage.database.write_bytes(b"this is not a database, it only has its name\n" * 200)
    before = contents(stage)
    told = complaint(stage.rotator("run"), 65)
    assert f"the state {stage.database} is damaged (file is not a database)" in told
    assert contents(stage) == before


def test_a_lost_state(stage: Stage) -> None:
    made(stage)
    for path in stage.state.glob("state.db*"):
        path.unlink()
    for _, done in stage.rotators(("run",), ("status",), ("rotate", "billing")):
        told = complaint(done, 65)
        assert f"the state {stage.database} is lost: it was made here once" in told
        assert "`rotator state reset` starts a new one" in told
    assert not stage.database.exists()
    assert stage.provider.journal.password_attempts == 1, "a lost state does not refresh the budget"


# --- rights, which root does not have to mind -------------------------------------------------------------------


# Of root's powers those that pass over the rights of files.
POWERS = "-dac_override,-dac_read_search"


def minding_rights(stage: Stage, *words: str) -> Told:
    """Run a command for which the rights of files hold, as they do for every user but root."""
    command = stage.command(*words)
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root minds no rights, and there is no setpriv to take its powers away")
        command = ["setpriv", f"--bounding-set={POWERS}", *command]
    return subprocess.run(
        command, env=stage.environ(), cwd=stage.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=stages.PATIENCE, check=False,
    )  # fmt: skip


def test_an_unreadable_secret(stage: Stage) -> None:
    stage.secret("password", ACCOUNT.password, 0o000)
    told = complaint(minding_rights(stage, "run"), 78)
    assert f"grants.billing.password: {stage.folder}/password cannot be read" in told
    assert "; " in told
    assert len(stage.provider.journal.entries) == 0


def test_an_unreadable_configuration(stage: Stage) -> None:
    stage.config.chmod(0o000)
    told = complaint(minding_rights(stage, "run"), 78)
    assert f"{stage.config}: the configuration cannot be read: Permission denied" in told
    assert f"{MEND}run as its owner or group" in told


def test_a_folder_that_we_may_not_write(stage: Stage) -> None:
    (stage.folder / "run" / "billing").mkdir()
    (stage.folder / "run" / "billing").chmod(0o555)
    told = complaint(minding_rights(stage, "run"), 78)
    assert "grants.billing.targets.app: " in told
    assert "run/billing" in told


def test_a_state_folder_of_somebody_else(stage: Stage) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    made(stage)
    os.chown(stage.state, NOBODY, NOBODY)
    told = complaint(stage.rotator("run"), 78)
    assert f"the state folder {stage.state} belongs to user {NOBODY}, this process is user 0" in told
    assert f"{MEND}run rotator as user {NOBODY}" in told


# --- what looks wrong and is not --------------------------------------------------------------------------------


def test_a_state_directory_that_everybody_may_write_works(stage: Stage) -> None:
    """As an emptyDir of Kubernetes is: our own folder inside it is private."""
    (stage.folder / "state").chmod(0o777)
    made(stage)
    assert stage.state.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in stage.state.iterdir())


def test_a_mount_that_everybody_may_write_works(stage: Stage) -> None:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount")
    folder = stage.folder / "mounted"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0777", "rotator-test", str(folder)],
        capture_output=True, check=False, timeout=10,
    )  # fmt: skip
    if mounted.returncode != 0:
        pytest.skip("this root may not mount")
    try:
        replaced(stage, '"billing/token"', f'"{folder}/token"')
        made(stage)
        assert (folder / "token").stat().st_mode & 0o777 == 0o600
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=10)


def test_no_words_at_all_show_what_there_is_to_type(stage: Stage) -> None:
    done = stage.rotator(config=False)
    assert done.returncode == 64
    assert "usage: rotator" in done.stdout and "authorize" in done.stdout
    assert stage.rotator("--version", config=False).stdout.startswith("rotator ")


def test_a_check_without_any_configuration_says_where_one_is_looked_for(stage: Stage) -> None:
    done = stage.rotator("check", config=False)
    assert done.returncode == 78
    assert "there is no configuration" in done.stderr and "/etc/rotator/rotator.toml" in done.stderr
