"""Secrets from real files, variables and credentials: read exactly, looked at strictly, told without a secret."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from rotator.core.errors import Misconfigured, RotatorError, Unavailable
from rotator.core.ports import Credentials
from rotator.core.tokens import Secret
from rotator.drivers import secrets
from rotator.drivers.secrets import Reference, ReferenceSource

KEY = "grants.billing.password"
CANARY = "hunter2-canary"


def reference(kind: str, value: object) -> Reference:
    return Reference(kind, Secret(str(value)), KEY)


def keep(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def source(
    password: Reference | None = None,
    *,
    client_secret: Reference | None = None,
    salt: tuple[str | None, ...] = ("https://login.example.com/token", "form", "body", None),
    environ: Mapping[str, str] | None = None,
) -> ReferenceSource:
    return ReferenceSource("id", client_secret, "user", password, key=b"k" * 32, salt=salt, environ=environ or {})


def resolve(one: ReferenceSource, password: Secret | None = None) -> Credentials:
    return asyncio.run(one.resolve(password=password))


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b"word", "word"),
        (b"word\n", "word"),
        (b"word\r\n", "word"),
        (b"word\n\n", "word\n"),
        (b" wo rd \n", " wo rd "),
        ("wörd€".encode(), "wörd€"),
        (b"x" * (64 << 10), "x" * (64 << 10)),
    ],
)
def test_one_line_end_is_taken_away_and_nothing_else(tmp_path: Path, content: bytes, secret: str) -> None:
    path = keep(tmp_path / "secret", content)
    assert secrets.read(reference("file", path), {}).reveal() == secret
    assert secrets.check(reference("file", path), {}) is None


def test_literals_variables_and_credentials_are_read(tmp_path: Path) -> None:
    keep(tmp_path / "billing.password", b"from a credential\n", 0o400)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path), "PASSWORD": "from a variable\n"}
    for kind, value, secret in (
        ("literal", "as it is", "as it is"),
        ("env", "PASSWORD", "from a variable"),
        ("credential", "billing.password", "from a credential"),
    ):
        assert secrets.read(reference(kind, value), environ).reveal() == secret
        assert secrets.check(reference(kind, value), environ) is None


def failures(tmp_path: Path) -> list[tuple[Reference, type[RotatorError], str]]:
    keep(tmp_path / "empty", b"\n")
    keep(tmp_path / "nul", CANARY.encode() + b"\0")
    keep(tmp_path / "utf16", CANARY.encode("utf-16-le"))
    keep(tmp_path / "bom", b"\xef\xbb\xbf" + CANARY.encode())
    keep(tmp_path / "latin", CANARY.encode() + b"\xe9")
    keep(tmp_path / "large", CANARY.encode() * 6000)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    text = "is not plain UTF-8 text; write it anew, for example with printf %s"
    told: list[tuple[str, type[RotatorError], str]] = [
        ("absent", Unavailable, "is missing; write the secret there"),
        ("empty", Unavailable, "is empty; write the secret there"),
        ("loop", Unavailable, "cannot be read: Too many levels of symbolic links; mend the file system or the path"),
        ("folder", Misconfigured, "is not a regular file; name the file itself"),
        ("pipe", Misconfigured, "is not a regular file; name the file itself"),
        ("large", Misconfigured, "holds more than 64 KiB; is it the right one?"),
        *((name, Misconfigured, text) for name in ("nul", "utf16", "bom", "latin")),
    ]
    return [
        *(
            (reference("file", tmp_path / name), kind, f"{KEY}: {tmp_path / name} {words}")
            for name, kind, words in told
        ),
        (
            reference("credential", "x"),
            secrets.NoCredentials,
            f"{KEY}: there is no credential x, as $CREDENTIALS_DIRECTORY is not set; "
            "start rotator by systemd with LoadCredential=x, or use { file = … }",
        ),
        (
            reference("env", "ABSENT"),
            Misconfigured,
            f"{KEY}: the environment variable ABSENT is not set; set it for the service",
        ),
        (
            reference("env", "EMPTY"),
            Unavailable,
            f"{KEY}: the environment variable EMPTY is empty; write the secret there",
        ),
    ]


def test_what_cannot_be_read_says_key_place_and_mending_step(tmp_path: Path) -> None:
    for one, kind, words in failures(tmp_path):
        with pytest.raises(RotatorError) as caught:
            secrets.read(one, {"EMPTY": ""})
        assert (type(caught.value), str(caught.value)) == (kind, words)
        assert CANARY not in repr(caught.value)


def test_a_check_makes_every_failure_a_matter_of_configuration(tmp_path: Path) -> None:
    for one, _kind, words in failures(tmp_path):
        with pytest.raises(Misconfigured) as caught:
            secrets.check(one, {"EMPTY": ""})
        assert str(caught.value) == words


def test_a_credential_that_is_missing_names_the_line_of_the_unit(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        secrets.read(reference("credential", "pw"), {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert str(caught.value) == (
        f"{KEY}: {tmp_path}/pw is missing; write /etc/rotator/credentials/pw or add "
        "LoadCredential=pw to the unit, and restart it"
    )


def test_a_file_that_our_user_may_not_read_says_so(tmp_path: Path) -> None:
    path = keep(tmp_path / "secret", b"x", 0o000)
    if os.geteuid() != 0:
        with pytest.raises(Unavailable, match="Permission denied; let the user that runs rotator read it"):
            secrets.read(reference("file", path), {})
        return
    # Root reads everything: a child that gave up root looks instead, its modules imported before.
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents[:2]:
        folder.chmod(0o755)
    told = run_elsewhere(f"os.setgid(65534); os.setuid(65534); look({str(path)!r})")
    assert told.endswith(
        f"{path} cannot be read: Permission denied; "
        f"let the user that runs rotator read it: chgrp its group to {path} and chmod 0640"
    )


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602])
def test_a_file_that_everybody_can_read_or_write_is_an_error(tmp_path: Path, mode: int) -> None:
    path = keep(tmp_path / "secret", b"x", mode)
    with pytest.raises(Misconfigured) as caught:
        secrets.check(reference("file", path), {})
    assert str(caught.value) == (
        f"{KEY}: {path} can be read or written by everybody (mode {mode:04o}); run chmod o-rwx {path}"
    )


def test_a_group_may_read(tmp_path: Path) -> None:
    assert secrets.check(reference("file", keep(tmp_path / "secret", b"x", 0o640)), {}) is None


def test_on_a_read_only_mount_it_is_a_warning_as_for_secret_volumes(tmp_path: Path) -> None:
    path = keep(tmp_path / "secret", b"x", 0o644)
    folder = str(tmp_path)
    mounted = (
        f"subprocess.run(['mount', '--bind', {folder!r}, {folder!r}], check=True);"
        f"subprocess.run(['mount', '-o', 'remount,bind,ro', {folder!r}], check=True); look({str(path)!r})"
    )
    told = run_elsewhere(mounted, "unshare", "--user", "--map-root-user", "--mount")
    assert told == (
        f"warning: {KEY}: {path} can be read or written by everybody (mode 0644); "
        "its mount is read-only, so set defaultMode: 0440 on the volume where you can"
    )


def run_elsewhere(body: str, *wrapper: str) -> str:
    """What `check` says in a process with other rights or mounts."""
    code = textwrap.dedent(f"""\
        import os, subprocess
        from rotator.core.errors import Misconfigured
        from rotator.core.tokens import Secret
        from rotator.drivers import secrets
        def look(path):
            try:
                print("warning:", secrets.check(secrets.Reference("file", Secret(path), {KEY!r}), {{}}))
            except Misconfigured as error:
                print("error:", error)
        """)
    try:
        done = subprocess.run([*wrapper, sys.executable, "-c", code + body], capture_output=True, text=True, timeout=30)
        failed = done.stderr if done.returncode else ""
    except FileNotFoundError as error:
        failed = str(error)
    if failed and wrapper and "CI" not in os.environ:
        pytest.skip(f"no mount namespace of our own here: {failed.strip().splitlines()[-1]}")
    assert not failed, failed
    return done.stdout.strip()


def test_references_and_credentials_do_not_print_secrets() -> None:
    one = source(reference("literal", CANARY), client_secret=reference("literal", CANARY))
    told = [repr(reference("literal", CANARY)), repr(one), repr(resolve(one)), str(resolve(one))]
    assert not [text for text in told if CANARY in text]


def test_each_resolving_reads_anew(tmp_path: Path) -> None:
    path = keep(tmp_path / "secret", b"old\n")
    one = source(reference("file", path))
    before = resolve(one)
    path.write_bytes(b"new\n")
    after = resolve(one)
    assert [found.password and found.password.reveal() for found in (before, after)] == ["old", "new"]
    assert before.digest != after.digest


def test_a_given_password_stands_in_and_the_configured_one_is_not_read(tmp_path: Path) -> None:
    found = resolve(source(reference("file", tmp_path / "absent")), Secret("typed"))
    assert found.password == Secret("typed")
    assert found.digest == resolve(source(reference("literal", "typed"))).digest


def test_a_public_client_without_a_password_resolves_to_none() -> None:
    found = resolve(source())
    assert (found.client_id, found.client_secret, found.username, found.password) == ("id", None, "user", None)


def test_the_digest_changes_with_every_part_and_with_nothing_else() -> None:
    password, other = reference("literal", "a"), reference("literal", "b")
    salts = [("u", "form", "body", None), ("v", "form", "body", None), ("u", "json", "body", None)]
    digests = [
        resolve(one).digest
        for one in (
            *(source(password, salt=salt) for salt in salts),
            source(password),
            source(other),
            source(password, client_secret=other),
            source(None, client_secret=password),
            ReferenceSource("id", None, "user", password, key=b"another", salt=salts[0], environ={}),
            ReferenceSource("id2", None, "user", password, key=b"k" * 32, salt=salts[0], environ={}),
            ReferenceSource("id", None, "user2", password, key=b"k" * 32, salt=salts[0], environ={}),
        )
    ]
    assert len(set(digests)) == len(digests)
    assert resolve(source(password)).digest == digests[3]
    assert resolve(source(reference("env", "A"), environ={"A": "a"})).digest == digests[3]


def test_the_installations_key_may_be_asked_for() -> None:
    async def key() -> bytes:
        return b"k" * 32

    asked = ReferenceSource("id", None, "user", None, key=key, salt=("s",), environ={})
    assert resolve(asked).digest == resolve(source(salt=("s",))).digest


def test_what_cannot_be_read_now_is_transient_so_that_nothing_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    one = source(reference("file", path))
    with pytest.raises(Unavailable, match="is missing"):
        resolve(one)
    keep(path, b"there now")
    assert resolve(one).password == Secret("there now")


class SlowEnvironment(dict[str, str]):
    """A far end that hangs until it is let go, as a network mount does."""

    def __init__(self) -> None:
        super().__init__(PASSWORD="word")
        self.asked = threading.Semaphore(0)
        self.released = threading.Event()
        self.count = 0

    def __getitem__(self, key: str) -> str:
        self.count += 1
        self.asked.release()
        assert self.released.wait(30)
        return super().__getitem__(key)


def test_a_hanging_reading_neither_stops_the_loop_nor_takes_a_second_thread() -> None:
    slow = SlowEnvironment()
    one = source(reference("env", "PASSWORD"), environ=slow)

    async def scene() -> list[Credentials]:
        first = asyncio.create_task(one.resolve())
        await asyncio.to_thread(slow.asked.acquire)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        others = [asyncio.create_task(one.resolve()) for _ in range(3)]
        for _ in range(20):
            await asyncio.sleep(0)
        assert slow.count == 1
        slow.released.set()
        return await asyncio.gather(*others)

    found = asyncio.run(scene())
    assert [one.password for one in found] == [Secret("word")] * 3


def test_a_reading_that_hangs_too_long_is_told() -> None:
    slow, patience = SlowEnvironment(), timedelta(milliseconds=50)
    one = ReferenceSource(
        "id", None, "user", reference("env", "PASSWORD"), key=b"k", salt=(), environ=slow, patience=patience
    )

    async def scene() -> None:
        for _ in range(2):
            with pytest.raises(Unavailable) as caught:
                await one.resolve()
            assert str(caught.value) == (f"{KEY}: not read within 0.05 s; the file system hangs; mend the mount")
        assert slow.count == 1
        slow.released.set()

    asyncio.run(scene())


# --- what is kept elsewhere -----------------------------------------------------------------------------------------


class Elsewhere:
    """Where secrets are kept far away: it can be away, refuse, or hold another one."""

    def __init__(self) -> None:
        self.holds: str | RotatorError = "first"

    async def __call__(self, asked: Reference) -> Secret:
        assert asked == reference("vault", "secret/billing#password")
        if isinstance(self.holds, RotatorError):
            raise self.holds
        return Secret(self.holds)


def test_what_is_kept_elsewhere_is_read_anew_and_the_last_one_serves_while_that_is_away() -> None:
    place = Elsewhere()
    one = ReferenceSource(
        "id", None, "user", reference("vault", "secret/billing#password"), key=b"k" * 32, salt=(), environ={},
        elsewhere=place,
    )  # fmt: skip
    before = resolve(one)
    place.holds = "second"
    changed = resolve(one)
    assert [found.password for found in (before, changed)] == [Secret("first"), Secret("second")]
    assert before.digest != changed.digest

    place.holds = Unavailable("sealed")
    assert resolve(one) == changed
    # A refusal is an answer, and so is an entry that is gone.
    place.holds = Misconfigured("there is nothing")
    with pytest.raises(Misconfigured):
        resolve(one)


def test_what_was_never_read_cannot_be_served() -> None:
    place = Elsewhere()
    place.holds = Unavailable("sealed")
    one = ReferenceSource(
        "id", None, "user", reference("vault", "secret/billing#password"), key=b"k" * 32, salt=(), environ={},
        elsewhere=place,
    )  # fmt: skip
    with pytest.raises(Unavailable, match="sealed"):
        resolve(one)


def test_a_check_does_not_look_elsewhere() -> None:
    assert secrets.check(reference("vault", "secret/billing#password"), {}) is None


@pytest.mark.parametrize("name", ["rotator_pw", "encrypted_pw"])
def test_a_file_of_the_folder_that_our_units_load_goes_by_its_own_name(tmp_path: Path, name: str) -> None:
    """systemd.exec(5): LoadCredential=ID:FOLDER makes a credential ID_FILE of each file."""
    (tmp_path / name).write_text("from a folder")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert secrets.read(reference("credential", "pw"), environ).reveal() == "from a folder"
    (tmp_path / "pw").write_text("its own line of the unit")
    assert secrets.read(reference("credential", "pw"), environ).reveal() == "its own line of the unit"
