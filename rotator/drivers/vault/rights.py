"""What a policy must allow, for each thing that we do in a Vault; for consumers that read what was published, too.

https://developer.hashicorp.com/vault/docs/concepts/policies; the rights to renew, look up and revoke oneself and to ask
for one's capabilities are in Vault's own policy ``default``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rotator.core import lean

if TYPE_CHECKING:
    import hvac

    from rotator.drivers.vault.client import Vault

ORDER = ("create", "read", "update", "delete", "list")


@lean.dataclass(frozen=True, slots=True)
class Right:
    """What is needed at ``path``, and ``why``, in words for the person who reads the policy."""

    path: str
    capabilities: frozenset[str]
    why: str


def of_target(mount: str, path: str, why: str) -> list[Right]:
    """To publish: create and update with check-and-set, read to look after it, and to describe and clear it away."""
    return [
        Right(f"{mount}/data/{path}", frozenset({"create", "update", "read"}), why),
        Right(f"{mount}/metadata/{path}", frozenset({"create", "update", "read", "delete"}), why),
    ]


def of_reader(mount: str, path: str, why: str) -> list[Right]:
    return [Right(f"{mount}/data/{path}", frozenset({"read"}), why)]


def of_kv1_target(mount: str, path: str, why: str) -> list[Right]:
    return [Right(f"{mount}/{path}", frozenset({"create", "update", "read", "delete"}), why)]


def of_kv1_reader(mount: str, path: str, why: str) -> list[Right]:
    return [Right(f"{mount}/{path}", frozenset({"read"}), why)]


def of_folder(mount: str, prefix: str, why: str) -> list[Right]:
    """To find entries, and read each."""
    return [
        Right(f"{mount}/metadata/{prefix}/", frozenset({"list"}), why),
        Right(f"{mount}/data/{prefix}/*", frozenset({"read"}), why),
    ]


def of_transit(mount: str, key: str) -> list[Right]:
    return [
        Right(f"{mount}/datakey/plaintext/{key}", frozenset({"update"}), "state.seal"),
        Right(f"{mount}/decrypt/{key}", frozenset({"update"}), "state.seal"),
    ]


def of_state(mount: str, prefix: str) -> list[Right]:
    """Nobody but daemons may read here: refresh tokens stand in it."""
    return [
        Right(f"{mount}/data/{prefix}/*", frozenset({"create", "update", "read"}), "state.url"),
        Right(f"{mount}/metadata/{prefix}/*", frozenset({"create", "update", "read", "delete", "list"}), "state.url"),
    ]


def merged(rights: Iterable[Right]) -> list[Right]:
    """One for each path, by path."""
    found: dict[str, Right] = {}
    for one in rights:
        known = found.get(one.path)
        why = one.why if known is None else ", ".join(dict.fromkeys([*known.why.split(", "), one.why]))
        had = frozenset() if known is None else known.capabilities
        found[one.path] = Right(one.path, had | one.capabilities, why)
    return [right for _, right in sorted(found.items())]


def hcl(rights: Sequence[Right]) -> str:
    """The policy as Vault takes it."""
    return "".join(
        f'# {one.why}\npath "{one.path}" {{\n  capabilities = [{_listed(one.capabilities)}]\n}}\n' for one in rights
    )


def lacking(rights: Iterable[Right], granted: Mapping[str, Iterable[str]]) -> list[Right]:
    """What is not allowed, given what ``sys/capabilities-self`` answers for each path."""
    missing = []
    for one in rights:
        has = frozenset(granted.get(one.path, ()))
        left = frozenset() if "root" in has else one.capabilities - has
        if left:
            missing.append(Right(one.path, left, one.why))
    return missing


async def ask_lacking(vault: Vault, needed: Sequence[Right], limit: timedelta) -> list[Right]:
    """What the login's policies do not allow, by ``sys/capabilities-self``. Raises what `Vault.call` raises."""
    # Also where nothing is needed: it proves the login.
    paths = [one.path for one in needed] or ["sys/capabilities-self"]

    def ask(client: hvac.Client) -> Any:
        return client.adapter.post("/v1/sys/capabilities-self", json={"paths": paths})

    told = (await vault.call(ask, deadline=limit)).get("data")
    known = told if isinstance(told, dict) else {}
    return lacking(needed, {path: has for path in paths if isinstance(has := known.get(path), list)})


def mend(needed: Iterable[Right]) -> str:
    """What to tell where Vault refused: what the policy must have."""
    return f"the policy needs {' and '.join(line(one) for one in needed)}"


def _listed(capabilities: frozenset[str]) -> str:
    return ", ".join(f'"{one}"' for one in ORDER if one in capabilities)


def line(right: Right) -> str:
    """The line to add to a policy."""
    return f'path "{right.path}" {{ capabilities = [{_listed(right.capabilities)}] }}'
