"""Whom we trust: the TLS context of one profile. There is no way to turn verification off."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from rotator.core import errors


def context(ca_file: Path | None) -> ssl.SSLContext:
    """A client context: TLS 1.2 or later, certificate and host name checked (RFC 6749 section 10.9), HTTP/1.1.

    ``ca_file`` (PEM) is the only trust where given. Else the system's store counts, where SSL_CERT_FILE and
    SSL_CERT_DIR say otherwise as for every program on OpenSSL. Raises Misconfigured.
    """
    # PROTOCOL_TLS_CLIENT switches on both checks. Not create_default_context: it obeys SSLKEYLOGFILE, which would
    # write the keys of our sessions to a file.
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    if ca_file is not None:
        _load(made, ca_file)
    elif _system_has_store():
        made.set_default_verify_paths()
    else:
        _load(made, _bundled_store())
    return made


def stamp(ca_file: Path | None) -> tuple[int, ...]:
    """What changes when the file is replaced. Raises Misconfigured where there is none."""
    if ca_file is None:
        return ()
    try:
        found = ca_file.stat()
    except OSError as error:
        raise _unreadable(ca_file, error) from None
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)


def _load(made: ssl.SSLContext, ca_file: Path) -> None:
    try:
        made.load_verify_locations(cafile=ca_file)
    except ssl.SSLError:
        raise errors.Misconfigured(
            f"the CA file {ca_file} holds no PEM certificate", mend="write the CA certificates in PEM into it"
        ) from None
    except OSError as error:
        raise _unreadable(ca_file, error) from None


def _unreadable(ca_file: Path, error: OSError) -> errors.Misconfigured:
    return errors.Misconfigured(
        f"the CA file {ca_file} cannot be read ({error.strerror})", mend="correct `ca_file` or its permissions"
    )


def _system_has_store() -> bool:
    paths = ssl.get_default_verify_paths()
    if os.environ.get(paths.openssl_cafile_env) or os.environ.get(paths.openssl_capath_env):
        return True  # Who names a store gets that one and no wider trust, also where it is empty or misspelt.
    if paths.cafile:  # both are None where there is no such path
        return True
    try:
        return bool(paths.capath) and any(Path(paths.capath).iterdir())
    except OSError:
        return False


def _bundled_store() -> Path:
    # A slim image may have no CAs at all; the HTTP library's own bundle is better than refusing everybody.
    try:
        import certifi
    except ImportError:
        raise errors.Misconfigured(
            "this machine has no CA certificates", mend="install the package ca-certificates or set `ca_file`"
        ) from None
    return Path(certifi.where())
