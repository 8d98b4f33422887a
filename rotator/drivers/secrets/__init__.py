"""Secrets, read from where they are kept: files, systemd credentials, environment variables, or the words themselves;
what is kept elsewhere (in a Vault) is asked for.

Read anew each time, because files change: a credential that an operator mends must count at the next exchange. Files
are opened, read and closed, never held open, since Kubernetes swaps whole directories beneath a reader.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from functools import partial

from rotator.core import lean, tokens
from rotator.core.errors import Misconfigured, RotatorError, Unavailable
from rotator.core.ports import Credentials
from rotator.core.tokens import Secret
from rotator.drivers.secrets import shelves

# Far above any password or client secret; a path to something else (a log, a device) ends here.
LARGEST = 64 << 10
# Reading takes microseconds. Longer means a network file system that hangs, and that may be for ever.
PATIENCE = timedelta(seconds=10)
VAULT = "vault"
# LoadCredential= of a folder puts its own id in front of each file's name (systemd.exec(5)); these are our units' ids.
FOLDERS = ("rotator_", "encrypted_")

Elsewhere = Callable[["Reference"], Awaitable[Secret]]


class NoCredentials(Misconfigured):
    """A credential is wanted by a process that was given none: right for the service, and nothing to mend there.
    ``key`` is the dotted key of the configuration."""

    def __init__(self, key: str, name: str) -> None:
        super().__init__(
            f"{key}: there is no credential {name}, as $CREDENTIALS_DIRECTORY is not set",
            mend=f"start rotator by systemd with LoadCredential={name}, or use {{ file = … }}",
        )
        self.key = key


@lean.dataclass(frozen=True, slots=True)
class Reference:
    """Where a secret is kept.

    ``kind`` is ``literal``, ``file``, ``credential``, ``env`` or ``vault``; ``value`` is the secret, a path, a
    credential's name, a variable's name or an entry's place. ``key`` is the dotted key of the configuration, for
    messages.
    """

    kind: str
    value: Secret
    key: str


def read(reference: Reference, environ: Mapping[str, str]) -> Secret:
    """The secret, without the one line end that editors and `echo` leave behind it: sent along, it would be a wrong
    password. Only one is taken away, so that a secret which ends in line breaks can be kept at all.

    Blocks: call it on a thread. Raises Unavailable for what may mend by itself or by changing a file, Misconfigured
    for what only another configuration or another environment mends."""
    match reference.kind:
        case "literal":
            raw = reference.value.reveal().encode("utf-8", "surrogatepass")
            return _clean(raw, reference.key, "the configuration")
        case "env":
            name = reference.value.reveal()
            if name not in environ:
                raise Misconfigured(
                    f"{reference.key}: the environment variable {name} is not set", mend="set it for the service"
                )
            raw = environ[name].encode("utf-8", "surrogateescape")
            return _clean(raw, reference.key, f"the environment variable {name}")
        case "file" | "credential":
            path = _path(reference, environ)
            raw, _status, _read_only = _read_file(path, reference)
            return _clean(raw, reference.key, path)
    raise Misconfigured(f"{reference.key}: a secret of the kind {reference.kind!r} is not read here")


def check(reference: Reference, environ: Mapping[str, str]) -> str | None:
    """Look at a secret without using it; returns a warning, or None where all is well.

    What is kept in a Vault is not looked at. Raises Misconfigured where it cannot be read now, and where others can
    read the file too. On a read-only mount the
    latter is a warning: Kubernetes mounts Secret volumes so, with 0644 inside a directory that only the pod sees."""
    if reference.kind == VAULT:
        return None
    try:
        read(reference, environ)
    except Misconfigured:
        raise
    except RotatorError as error:
        raise Misconfigured(error.what, mend=error.mend) from None
    if reference.kind not in ("file", "credential"):
        return None
    path = _path(reference, environ)
    _raw, status, read_only = _read_file(path, reference)
    if not status.st_mode & (stat.S_IROTH | stat.S_IWOTH):
        return None
    told = f"{reference.key}: {path} can be read or written by everybody (mode {stat.S_IMODE(status.st_mode):04o})"
    if read_only:
        return f"{told}; its mount is read-only, so set defaultMode: 0440 on the volume where you can"
    raise Misconfigured(told, mend=f"run chmod o-rwx {path}")


def path(reference: Reference, environ: Mapping[str, str]) -> str | None:
    """The file that a secret is in; None for one that is in no file. Raises Misconfigured for a credential where there
    are none."""
    return _path(reference, environ) if reference.kind in ("file", "credential") else None


def _path(reference: Reference, environ: Mapping[str, str]) -> str:
    if reference.kind == "file":
        return reference.value.reveal()
    directory, name = environ.get("CREDENTIALS_DIRECTORY"), reference.value.reveal()
    if not directory:
        raise NoCredentials(reference.key, name)
    whole = [f"{directory}/{before}{name}" for before in ("", *FOLDERS)]
    return next((path for path in whole if os.path.lexists(path)), whole[0])


def _read_file(path: str, reference: Reference) -> tuple[bytes, os.stat_result, bool]:
    """Content, status and whether its mount is read-only, all of one open file, so that no swap comes between."""
    try:
        # O_NONBLOCK: opening a pipe without a writer must not hang; on a regular file it does nothing.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise Misconfigured(f"{reference.key}: {path} is not a regular file", mend="name the file itself")
            with os.fdopen(descriptor, "rb", closefd=False) as handle:
                raw = handle.read(LARGEST + 1)
            return raw, status, bool(os.fstatvfs(descriptor).f_flag & os.ST_RDONLY)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Unavailable(_untold(path, reference, error), mend=_mend(path, reference, error)) from None


def _untold(path: str, reference: Reference, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{reference.key}: {path} is missing"
    return f"{reference.key}: {path} cannot be read: {os.strerror(error.errno or 0)}"


def _mend(path: str, reference: Reference, error: OSError) -> str:
    if reference.kind == "credential":
        name = reference.value.reveal()
        return f"write /etc/rotator/credentials/{name} or add LoadCredential={name} to the unit, and restart it"
    if isinstance(error, PermissionError):
        return f"let the user that runs rotator read it: chgrp its group to {path} and chmod 0640"
    return "write the secret there" if isinstance(error, FileNotFoundError) else "mend the file system or the path"


def _clean(raw: bytes, key: str, place: str) -> Secret:
    """Raises Unavailable where there is nothing (yet: somebody may be writing), Misconfigured where it is no text."""
    if len(raw) > LARGEST:
        raise Misconfigured(f"{key}: {place} holds more than {LARGEST >> 10} KiB", mend="is it the right one?")
    raw = raw[:-2] if raw.endswith(b"\r\n") else raw.removesuffix(b"\n")
    if not raw:
        raise Unavailable(f"{key}: {place} is empty", mend="write the secret there")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = "\0"
    # A byte order mark or a NUL is the work of an editor that saves UTF-16 or "UTF-8 with BOM": sent along, it would
    # be a wrong password, and wrong passwords lock accounts.
    if "\0" in text or text.startswith("\ufeff"):
        raise Misconfigured(f"{key}: {place} is not plain UTF-8 text", mend="write it anew, for example with printf %s")
    return Secret(text)


class ReferenceSource:
    """The port `ports.CredentialSource` over references.

    ``key`` is the installation's key or the way to it. ``salt`` are the settings that a refusal may be due to (token
    URL, encoding, authentication, scope): changing one of them changes the digest, and so releases a latch.
    ``patience`` is how long one reading may take before it counts as hanging. ``elsewhere`` reads what is kept in a
    Vault; while that is away the last one read speaks for it, so that a sealed Vault stops no rotation.
    """

    def __init__(
        self,
        client_id: str,
        client_secret: Reference | None,
        username: str | None,
        password: Reference | None,
        *,
        key: Callable[[], Awaitable[bytes]] | bytes,
        salt: tuple[str | None, ...],
        environ: Mapping[str, str],
        patience: timedelta = PATIENCE,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._client_id = client_id
        self._client_secret = client_secret
        self._username = username
        self._password = password
        self._key = key
        self._salt = salt
        self._environ = environ
        self._patience = patience.total_seconds()
        self._elsewhere = elsewhere
        self._last: dict[str, Secret] = {}

    async def resolve(self, *, password: Secret | None = None) -> Credentials:
        """See `ports.CredentialSource.resolve`. The configured password is not even read where one is given."""
        wanted = [self._client_secret, self._password if password is None else None]
        here = [None if reference is None or reference.kind == VAULT else reference for reference in wanted]
        found = await _fetch(here, self._environ, self._patience)
        for index, reference in enumerate(wanted):
            if reference is not None and reference.kind == VAULT:
                found[index] = await self._ask(reference)
        client_secret, configured = found
        password = configured if password is None else password
        key = self._key if isinstance(self._key, bytes) else await self._key()
        parts = (self._client_id, _revealed(client_secret), self._username, _revealed(password))
        digest = tokens.digest((*self._salt, *parts), key)
        return Credentials(self._client_id, client_secret, self._username, password, digest)

    async def _ask(self, reference: Reference) -> Secret:
        """What is kept elsewhere, or what was there the last time while nobody answers. Never stale by choice: a
        refusal, or an entry that is gone, is an answer."""
        assert self._elsewhere is not None  # noqa: S101 (whoever makes such a reference gives the way there)
        try:
            async with asyncio.timeout(self._patience):  # noqa: TID251 (a driver's own deadline for a far end)
                secret = await self._elsewhere(reference)
        except (Unavailable, TimeoutError) as error:
            if reference.key in self._last:
                return self._last[reference.key]
            if isinstance(error, Unavailable):
                raise
            raise Unavailable(f"{reference.key}: not read within {self._patience:g} s") from None
        self._last[reference.key] = secret
        return secret


async def fetch(reference: Reference, environ: Mapping[str, str], *, patience: timedelta = PATIENCE) -> Secret:
    """One secret, read as `read` does but on a thread. Raises Unavailable also where that takes longer than
    ``patience``."""
    (secret,) = await _fetch([reference], environ, patience.total_seconds())
    assert secret is not None  # noqa: S101 (there is one for each reference)
    return secret


async def _fetch(wanted: list[Reference | None], environ: Mapping[str, str], patience: float) -> list[Secret | None]:
    """Read on a thread, as a hung network mount would stop the event loop, and with a limit to waiting."""
    if all(reference is None or reference.kind == "literal" for reference in wanted):
        return [None if reference is None else read(reference, {}) for reference in wanted]
    shelf, work = shelves.of(_folders(wanted), environ), partial(_read_all, wanted, environ)
    try:
        async with asyncio.timeout(patience):  # noqa: TID251 (a driver's own deadline for a hung mount)
            return await shelf.read(work)
    except TimeoutError:
        raise Unavailable(
            f"{_keys(wanted)}: not read within {patience:g} s; the file system hangs", mend="mend the mount"
        ) from None


def _folders(wanted: list[Reference | None]) -> frozenset[str]:
    return frozenset(
        reference.value.reveal().rpartition("/")[0] if reference.kind == "file" else reference.kind
        for reference in wanted
        if reference is not None and reference.kind != "literal"
    )


def _read_all(
    wanted: list[Reference | None], environ: Mapping[str, str], known: dict[tuple[str, str], Secret]
) -> list[Secret | None]:
    found: list[Secret | None] = []
    for reference in wanted:
        if reference is None:
            found.append(None)
            continue
        place = (reference.kind, reference.value.reveal())
        if place not in known:
            known[place] = read(reference, environ)
        found.append(known[place])
    return found


def _keys(wanted: list[Reference | None]) -> str:
    return ", ".join(reference.key for reference in wanted if reference is not None)


def _revealed(secret: Secret | None) -> str | None:
    return None if secret is None else secret.reveal()
