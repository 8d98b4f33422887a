"""Where a Vault is."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from rotator.core import lean


@lean.dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a Vault is. Everything is said here: no VAULT_* variable, netrc, proxy or ``~/.vault-token`` is heard.

    ``ca_file`` replaces the CA bundle that comes with requests; ``certificate`` (chain, key) is what we present where
    Vault asks for one, both PEM. ``timeout`` is for each read from the socket; a whole
    call may take ``connect_timeout + timeout`` unless it is given a deadline.
    """

    url: str
    namespace: str | None = None
    ca_file: Path | None = None
    certificate: tuple[Path, Path] | None = None
    timeout: timedelta = timedelta(seconds=10)
    connect_timeout: timedelta = timedelta(seconds=3)
