"""What `rotator init` makes: a grant's section and its secrets, checked as a whole before the first byte is written,
and written as a whole or not at all. A provider shows a client secret once."""

from __future__ import annotations

import base64
import json
import os
import re
import stat
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from rotator import settings
from rotator.assembly import roster, services
from rotator.assembly.plan import Plan
from rotator.core import lean
from rotator.core.errors import BadUsage, Misconfigured
from rotator.core.grants import Kind, Outcome
from rotator.core.ports import TokenRequest
from rotator.core.tokens import Secret
from rotator.drivers import clock

IN_POD = "/run/secrets/rotator"
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


class Form(StrEnum):
    """Where secrets are put."""

    FILES = "files"
    CREDENTIALS = "credentials"
    ENCRYPTED = "encrypted"
    KUBERNETES = "kubernetes"


@lean.dataclass(frozen=True, slots=True)
class Wanted:
    """One grant, as it was asked for. ``token_url`` is for a provider that is neither built in nor configured."""

    grant: str
    provider: str
    client_id: str
    username: str
    target: str
    token_url: str | None = None
    group: str | None = None
    client_secret: Secret | None = None
    password: Secret | None = None

    @property
    def secrets(self) -> dict[str, Secret]:
        """By the key of the configuration."""
        given = {"client_secret": self.client_secret, "password": self.password}
        return {key: secret for key, secret in given.items() if secret is not None}


@lean.dataclass(frozen=True, slots=True)
class Piece:
    """One file to write."""

    path: Path
    content: bytes
    mode: int


def pieces(wanted: Wanted, form: Form, config: Path, manifest: Path, environ: Mapping[str, str]) -> list[Piece]:
    """Every file, the configuration last: what it names is there before it is. Raises Misconfigured where the whole
    would not be a good configuration."""
    for what, name in (("grant", wanted.grant), ("provider", wanted.provider)):
        if not NAME.fullmatch(name):
            raise Misconfigured(f"{name!r} cannot name a {what}", mend="use a-z, 0-9 and _; nothing was written")
    folder = config.parent / "secrets"
    service = services.of(config)
    home = services.OURS if service is None else service.home
    found = _secrets(wanted, form, {Form.FILES: folder, Form.KUBERNETES: manifest}.get(form, home))
    try:
        before = config.read_text(encoding="utf-8")
    except FileNotFoundError:
        before = ""
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{config} cannot be read: {error}", mend="name another by --config") from None
    text = (before.rstrip() + "\n\n" if before.strip() else "") + section(wanted, form, folder)
    _check(wanted, config, text, environ)
    # One that is there may hold literal secrets, and its owner has said who may read it.
    mode = stat.S_IMODE(config.stat().st_mode) if before else 0o644
    return [*found, Piece(config.resolve() if config.is_symlink() else config, text.encode(), mode)]


def section(wanted: Wanted, form: Form, folder: Path) -> str:
    """The grant in TOML."""
    lines = []
    if wanted.token_url is not None:
        lines += [f"[providers.{wanted.provider}]", f"token_url = {_quoted(wanted.token_url)}", ""]
    lines += [
        f"[grants.{wanted.grant}]",
        f"provider = {_quoted(wanted.provider)}",
        f"client_id = {_quoted(wanted.client_id)}",
        f"username = {_quoted(wanted.username)}",
    ]
    for key in wanted.secrets:
        name = f"{wanted.grant}.{key}"
        kind, value = {
            Form.FILES: ("file", f"{folder.absolute()}/{name}"),
            Form.KUBERNETES: ("file", f"{IN_POD}/{name}"),
        }.get(form, ("credential", name))
        lines.append(f"{key} = {{ {kind} = {_quoted(value)} }}")
    lines += ["", f"[grants.{wanted.grant}.targets.app]", f"file = {_quoted(wanted.target)}"]
    if wanted.group is not None:
        lines.append(f"group = {_quoted(wanted.group)}")
    return "\n".join(lines) + "\n"


async def attempt(wanted: Wanted, config: Path | None, environ: Mapping[str, str]) -> Outcome:
    """One password exchange with what was given; the tokens are thrown away. The secrets stay in memory."""
    names = {f"ROTATOR_INIT_{key.upper()}": secret.reveal() for key, secret in wanted.secrets.items()}
    base = f"ROTATOR_GRANTS__{wanted.grant.upper()}__"
    given = {
        **environ,
        **names,
        f"{base}PROVIDER": wanted.provider,
        f"{base}CLIENT_ID": wanted.client_id,
        f"{base}USERNAME": wanted.username,
        **{f"{base}{key.upper()}__ENV": f"ROTATOR_INIT_{key.upper()}" for key in wanted.secrets},
    }
    if wanted.token_url is not None:
        given[f"ROTATOR_PROVIDERS__{wanted.provider.upper().replace('-', '_')}__TOKEN_URL"] = wanted.token_url
    plan = Plan(settings.load(config, given), given, None)

    async def key() -> bytes:
        # Of a digest that nobody compares with another.
        return bytes(32)

    made = roster.ConfiguredRoster(plan, clock.SystemClock(), key, None)
    try:
        enrolment = made.enrolments()[wanted.grant]
        request = TokenRequest(Kind.PASSWORD, await enrolment.credentials.resolve(), None)
        return await enrolment.endpoint.exchange(request, deadline=enrolment.rules.deadline)
    finally:
        await made.close()


def write(found: Sequence[Piece], *, force: bool) -> None:
    """All of them or none. Raises BadUsage where a secret would be overwritten and nobody said so, or where a file
    cannot be written; then everything is as it was."""
    for piece in found[:-1]:
        if piece.path.exists() and not force:
            raise BadUsage(f"{piece.path} is there already", mend="nothing was written; --force overwrites it")
    waiting: list[tuple[Path, Path]] = []
    placed: list[Path] = []
    try:
        for piece in found:
            piece.path.parent.mkdir(mode=0o755 if piece is found[-1] else 0o700, parents=True, exist_ok=True)
            fresh = piece.path.with_name(f".{piece.path.name}.new")
            fresh.unlink(missing_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, piece.mode)
            waiting.append((fresh, piece.path))
            with os.fdopen(descriptor, "wb") as handle:
                handle.write(piece.content)
                handle.flush()
                if piece.path.exists():
                    there = piece.path.stat()
                    with suppress(PermissionError):
                        os.fchown(descriptor, there.st_uid, there.st_gid)
                os.fchmod(descriptor, piece.mode)
                os.fsync(descriptor)
        for fresh, path in waiting:
            is_new = not path.exists()
            fresh.replace(path)
            placed += [path] if is_new else []
    except OSError as error:
        for fresh, _path in waiting:
            with suppress(OSError):
                fresh.unlink()
        for path in placed:
            with suppress(OSError):
                path.unlink()
        raise BadUsage(
            f"{error.filename}: {os.strerror(error.errno or 0)}", mend="nothing was written; mend it and try again"
        ) from None


def _secrets(wanted: Wanted, form: Form, place: Path) -> list[Piece]:
    """``place``: the manifest, the folder, or where the unit of this configuration has its folders of credentials."""
    named = {f"{wanted.grant}.{key}": secret.reveal() for key, secret in wanted.secrets.items()}
    if form is Form.KUBERNETES:
        return [Piece(place, _manifest(named).encode(), 0o600)] if named else []
    if form is Form.ENCRYPTED:
        encrypted = place / "credentials.encrypted"
        return [Piece(encrypted / name, _encrypted(name, value), 0o600) for name, value in named.items()]
    place = place if form is Form.FILES else place / "credentials"
    return [Piece(place / name, value.encode(), 0o600) for name, value in named.items()]


def _encrypted(name: str, value: str) -> bytes:
    """As systemd opens it on this machine alone. Raises Misconfigured."""
    command = ["systemd-creds", "encrypt", f"--name=encrypted_{name}", "-", "-"]
    try:
        done = subprocess.run(command, input=value.encode(), capture_output=True, check=False)
    except OSError:
        done = None
    if done is None or done.returncode or not done.stdout:
        raise Misconfigured("systemd-creds cannot encrypt here", mend="nothing was written; use --secrets credentials")
    return done.stdout


def _manifest(named: Mapping[str, str]) -> str:
    data = "".join(f"  {name}: {base64.b64encode(value.encode()).decode()}\n" for name, value in named.items())
    return f"apiVersion: v1\nkind: Secret\nmetadata:\n  name: rotator\ntype: Opaque\ndata:\n{data}"


def _check(wanted: Wanted, config: Path, text: str, environ: Mapping[str, str]) -> None:
    """The whole as it will be, read from a file beside: TOML has rules of its own for what may follow what."""
    import tempfile

    with tempfile.NamedTemporaryFile("w", suffix=".toml", encoding="utf-8") as draft:
        draft.write(text)
        draft.flush()
        try:
            loaded = settings.load(Path(draft.name), environ)
        except Misconfigured as error:
            what = error.what.replace(draft.name, str(config))
            raise Misconfigured(what, mend=error.mend or "nothing was written") from None
        if wanted.grant not in loaded.settings.grants:
            raise Misconfigured(f"{config}: [grants.{wanted.grant}] would not be read", mend="nothing was written")


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's rules, without its pairs of surrogates."""
    return json.dumps(text, ensure_ascii=False)
