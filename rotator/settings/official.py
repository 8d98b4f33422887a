"""The environment of the official clients: what ``[vault.default]`` leaves out is taken from it.

https://developer.hashicorp.com/vault/docs/commands#environment-variables; OpenBao reads BAO_… and then VAULT_….
Only where the table is written, be it empty: a variable that was left behind in a shell makes no Vault.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Path = tuple[str, ...]

PREFIXES = ("BAO_", "VAULT_")
TABLE = ("vault", "default")
KEYS = {
    "ADDR": "address",
    "NAMESPACE": "namespace",
    "CACERT": "ca_file",
    "CLIENT_CERT": "cert_file",
    "CLIENT_KEY": "key_file",
    "CLIENT_TIMEOUT": "timeout",
}
NO = ("", "0", "false", "f")


def fill(
    data: dict[str, Any], variables: dict[Path, str], refused: list[str], environ: Mapping[str, str], known: Any
) -> None:
    """Add to what the environment sets, unless it is written or set already. ``refused`` gets variables that would
    switch verification off."""
    written = _at(known, TABLE)
    own = _at(data, TABLE)
    if written is None and own is None:
        return
    for name, key in KEYS.items():
        variable = _variable(name, environ)
        if variable is None or key in (written or {}) or key in (own or {}):
            continue
        value = environ[variable]
        # Seconds without a unit, as Go's clients take them.
        _put(data, variables, key, variable, f"{value}s" if name == "CLIENT_TIMEOUT" and value.isdigit() else value)
    token = _variable("TOKEN", environ)
    if token is not None and "auth" not in (written or {}) and "auth" not in (own or {}):
        _put(data, variables, "auth", token, {"token": {"env": token}})
    refused += [
        f"{prefix}SKIP_VERIFY" for prefix in PREFIXES if environ.get(f"{prefix}SKIP_VERIFY", "").lower() not in NO
    ]


def _variable(name: str, environ: Mapping[str, str]) -> str | None:
    return next((f"{prefix}{name}" for prefix in PREFIXES if environ.get(f"{prefix}{name}")), None)


def _put(data: dict[str, Any], variables: dict[Path, str], key: str, variable: str, value: object) -> None:
    table = data
    for part in TABLE:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            # Told as a clash already.
            return
    table[key] = value
    path = (*TABLE, key, "token") if key == "auth" else (*TABLE, key)
    variables[path] = variable


def _at(data: Any, path: Path) -> dict[str, Any] | None:
    for key in path:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data if isinstance(data, dict) else None
