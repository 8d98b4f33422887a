"""`rotator init`: what a newcomer types becomes a configuration that works, or nothing is written at all."""

from __future__ import annotations

import base64
import os
import pty
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance import stage as stages
from tests.acceptance.stage import Stage
from tests.peers.emulator import ACCOUNT


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with stages.opened(tmp_path) as opened:
        opened.config.unlink()
        opened.secret("given_secret", ACCOUNT.client_secret)
        opened.secret("given_password", f"{ACCOUNT.password}\n")
        yield opened


def words(stage: Stage, *more: str) -> tuple[str, ...]:
    return (
        "init", "--no-input", "--provider", "emulated", "--token-url", stage.provider.token_url, "--client-id",
        ACCOUNT.client_id, "--username", ACCOUNT.username, "--client-secret-file", f"{stage.folder}/given_secret",
        "--password-file", f"{stage.folder}/given_password", "--secrets", "files", *more,
    )  # fmt: skip


def there(stage: Stage) -> set[str]:
    return {path.relative_to(stage.folder).as_posix() for path in stage.folder.rglob("*") if path.is_file()}


def test_what_is_written_works_at_once(stage: Stage) -> None:
    done = stage.rotator(*words(stage, "--trial"))
    assert done.returncode == 0, done.stderr
    assert "granted a token" in done.stderr
    assert ACCOUNT.password not in stage.config.read_text() + done.stdout + done.stderr
    for name in ("billing.password", "billing.client_secret"):
        assert (stage.folder / "secrets" / name).stat().st_mode & 0o777 == 0o600
    assert stage.rotator("check").returncode == 0
    assert stage.rotator("run", "--once").returncode == 0
    assert stage.token.exists()


def test_a_second_grant_is_written_behind_the_first(stage: Stage) -> None:
    assert stage.rotator(*words(stage)).returncode == 0
    # Its owner's word on who may read it holds.
    stage.config.chmod(0o640)
    before = stage.config.read_text()
    again = stage.rotator(*words(stage, "--trial"))
    assert (again.returncode, again.stderr) == (
        64,
        "rotator: there is a grant named 'billing' already\n"
        "rotator: to mend it: name another by --grant; nothing was written\n",
    )
    assert stage.provider.journal.password_attempts == 0, "no login is spent on it"
    assert stage.config.read_text() == before
    done = stage.rotator(*words(stage, "--grant", "reports"))
    assert done.returncode == 0, done.stderr
    assert stage.config.read_text().startswith(before.rstrip())
    assert "2 grant(s)" in stage.rotator("check").stdout


@pytest.mark.parametrize(
    ("spoil", "code", "told"),
    [
        (("--password-file", "/nonexistent"), 64, "--password-file: /nonexistent cannot be read"),
        (("--grant", "no good"), 78, "cannot name a grant"),
        (("--target", "../../up"), 78, "target"),
        (("--secrets", "encrypted"), 78, "systemd-creds cannot encrypt here"),
    ],
)
def test_where_anything_is_wrong_nothing_is_written(stage: Stage, spoil: tuple[str, str], code: int, told: str) -> None:
    before = there(stage)
    # Nothing of systemd's is found.
    done = stage.rotator(*words(stage, *spoil), environ={"PATH": "/nonexistent"})
    assert done.returncode == code, done.stderr
    assert told in done.stderr and "Traceback" not in done.stderr
    assert there(stage) == before


def test_a_trial_that_is_refused_writes_nothing_and_is_tried_once(stage: Stage) -> None:
    stage.secret("given_password", "wrong")
    before = there(stage)
    done = stage.rotator(*words(stage, "--trial"))
    assert done.returncode == 77
    assert "did not grant" in done.stderr and "nothing was written" in done.stderr
    assert there(stage) == before
    assert stage.provider.journal.password_attempts == 1


def test_a_secret_that_is_there_is_kept(stage: Stage) -> None:
    assert stage.rotator(*words(stage)).returncode == 0
    stage.config.unlink()
    (stage.folder / "secrets" / "billing.password").write_text("the old one")
    done = stage.rotator(*words(stage))
    assert done.returncode == 64 and "is there already" in done.stderr
    assert not stage.config.exists()
    assert (stage.folder / "secrets" / "billing.password").read_text() == "the old one"
    assert stage.rotator(*words(stage, "--force")).returncode == 0


def test_a_secret_for_a_cluster_is_a_manifest(stage: Stage) -> None:
    manifest = stage.folder / "secret.yaml"
    done = stage.rotator(*words(stage, "--secrets", "kubernetes", "--manifest", str(manifest)))
    assert done.returncode == 0, done.stderr
    assert manifest.stat().st_mode & 0o777 == 0o600
    found = re.search(r"^  billing\.password: (\S+)$", manifest.read_text(), re.MULTILINE)
    assert found is not None
    assert base64.b64decode(found[1]).decode() == ACCOUNT.password
    assert 'file = "/run/secrets/rotator/billing.password"' in stage.config.read_text()


def test_a_person_is_asked_and_what_is_secret_is_not_shown(stage: Stage) -> None:
    """On a terminal of its own, as getpass wants it."""
    answers = {
        b"Name of the grant": "billing", b"Provider": "emulated", b"Token URL": stage.provider.token_url,
        b"Client id": ACCOUNT.client_id, b"Client secret": ACCOUNT.client_secret, b"User name": ACCOUNT.username,
        b"Password": ACCOUNT.password,
    }  # fmt: skip
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        stage.command("init", "--secrets", "files", "--trial"), env=stage.environ(), cwd=stage.folder, stdin=theirs,
        stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(theirs, __import__("termios").TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    for prompt, answer in answers.items():
        while prompt not in shown.rpartition(b"\n")[2]:
            shown += os.read(ours, 4096)
        os.write(ours, f"{answer}\n".encode())
        shown += b"\n"
    try:
        while more := os.read(ours, 4096):
            shown += more
    except OSError:
        pass
    os.close(ours)
    assert process.wait(20) == 0, shown
    assert ACCOUNT.password.encode() not in shown and ACCOUNT.client_secret.encode() not in shown
    assert stage.rotator("check").returncode == 0
