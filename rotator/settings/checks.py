"""What ties keys and tables together. Only what can be decided on paper: nothing here looks at the machine."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from rotator.core.errors import Misconfigured
from rotator.core.publication import Format, fill
from rotator.settings import sharing
from rotator.settings.entries import vault_entry, vault_field
from rotator.settings.models import Grant, Provider, Settings
from rotator.settings.problems import Problem, suggest
from rotator.settings.shape import Path, dotted
from rotator.settings.targets import KEYS_OF, Target
from rotator.settings.values import SecretReference
from rotator.settings.vaults import Auth, Vault

# A template is tried with these names; their values do not matter.
TEMPLATE_FIELDS = (
    "access_token", "token_type", "expires_at", "expires_at_unix", "issued_at", "generation", "scope", "grant",
)  # fmt: skip


def problems(settings: Settings, names: Mapping[str, Any]) -> Iterator[Problem]:
    """``names`` is the merged data: a table that is broken in itself still exists for those who point at it."""
    providers, vaults = _table(names, "providers"), _table(names, "vault")
    for name, provider in settings.providers.items():
        yield from _of_provider(("providers", name), provider)
    yield from _lookalikes(providers)
    for name, vault in settings.vault.items():
        yield from _of_vault(("vault", name), vault)
    for name, grant in settings.grants.items():
        yield from _of_grant(("grants", name), grant, settings.providers, providers)
        for target_name, target in grant.targets.items():
            yield from _of_target(("grants", name, "targets", target_name), target, vaults)
        yield from _of_hooks(("grants", name, "targets"), grant)
    yield from sharing.problems(settings)
    for path, reference in references(settings):
        if reference.kind == "vault" and path[0] == "vault":
            yield Problem(path, "cannot be kept in a Vault itself; use { file = … } or { credential = … }")
        elif reference.kind == "vault":
            yield from _known_vault(path, vault_field(reference.value.get_secret_value()).name, vaults)
    yield from _of_state(settings, vaults)
    if settings.readiness.enough < settings.readiness.least:
        yield Problem(("readiness", "enough"), "must not be shorter than readiness.least")
    token = settings.http.token
    if token is not None and token.kind == "vault":
        yield Problem(("http", "token"), "cannot be kept in a Vault; use { credential = … } or { file = … }")
    if token is not None and settings.http.address is None:
        yield Problem(("http", "address"), 'is missing; a token protects what listens at address = "127.0.0.1:9465"')
    discovery = settings.discovery.vault
    if discovery is not None:
        yield from _known_vault(("discovery", "vault", "prefix"), discovery.prefix.name, vaults)
        if discovery.provider is not None and discovery.provider not in providers:
            path = ("discovery", "vault", "provider")
            yield Problem(path, f"names no known provider; {suggest(discovery.provider, providers)}")


def _of_state(settings: Settings, vaults: Iterable[str]) -> Iterator[Problem]:
    kind, _, place = settings.state.url.partition(":")
    if kind == "vault":
        yield from _known_vault(("state", "url"), vault_entry(place).name, vaults)
    password = settings.state.password
    if password is not None and (kind != "postgresql" or password.kind == "vault"):
        told = "is that of a role in PostgreSQL, by { credential = … } or { file = … }; else remove it"
        yield Problem(("state", "password"), told)
    seal, path = settings.state.seal, ("state", "seal")
    if seal is None:
        return
    chosen = [key for key in ("key", "transit") if getattr(seal, key) is not None]
    if len(chosen) != 1:
        yield Problem(path, _exactly_one(("key", "transit"), chosen))
    if kind == "vault":
        yield Problem(path, "is for a state elsewhere: Vault encrypts what it keeps; remove it")
    if seal.transit is not None:
        yield from _known_vault((*path, "transit"), seal.transit.name, vaults)
    for key, reference in (("key", seal.key), ("former", seal.former)):
        if reference is not None and reference.kind == "vault":
            yield Problem((*path, key), "cannot be kept in a Vault; use { credential = … }, { file = … } or transit")


def of_grant(settings: Settings, name: str, grant: Grant, taken: Mapping[str, Path] | None = None) -> Iterator[Problem]:
    """What is wrong with one more grant, given what is configured; ``taken``: the `sharing.places` of that, for who
    asks about many."""
    yield from _of_grant(("grants", name), grant, settings.providers, settings.providers)
    for target_name, target in grant.targets.items():
        yield from _of_target(("grants", name, "targets", target_name), target, settings.vault)
    yield from _of_hooks(("grants", name, "targets"), grant)
    yield from sharing.of_grant(name, grant, sharing.places(settings) if taken is None else taken)


def _table(names: Mapping[str, Any], key: str) -> Iterable[str]:
    table = names.get(key)
    return table if isinstance(table, Mapping) else ()


def _of_provider(path: Path, provider: Provider) -> Iterator[Problem]:
    for key, url in (("token_url", provider.token_url), ("login_url", provider.login_url)):
        if url is not None:
            yield from _encrypted((*path, key), url, provider.allow_plain_http)
    if provider.rotate_at + provider.jitter >= 1:
        yield Problem(
            (*path, "rotate_at"), "plus jitter must stay below 1, else a token would expire before it is rotated"
        )
    if provider.rotate_at - provider.jitter <= 0:
        yield Problem((*path, "rotate_at"), "minus jitter must stay above 0, else a new token would be rotated at once")


def _encrypted(path: Path, url: str, allowed: bool) -> Iterator[Problem]:
    """RFC 6749 section 3.2: TLS is required, as the request carries credentials in clear text."""
    if url.startswith("http:") and not allowed and not is_loopback(url):
        yield Problem(path, f"must be https; or set {dotted(path[:-1])}.allow_plain_http = true on a trusted network")


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # RFC 6761 section 6.3: these names never leave the machine.
        return host == "localhost" or host.endswith(".localhost")


def _lookalikes(names: Iterable[str]) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.replace("-", "_"), name)
        if other != name:
            yield Problem(("providers", name), f"and providers.{other} are one name in the environment; rename one")


def _of_vault(path: Path, vault: Vault) -> Iterator[Problem]:
    yield from _encrypted((*path, "address"), vault.address, vault.allow_plain_http)
    chosen = [key for key in Auth.model_fields if getattr(vault.auth, key) is not None]
    if len(chosen) != 1:
        yield Problem((*path, "auth"), _exactly_one(Auth.model_fields, chosen))
    pair = {"cert_file": vault.cert_file, "key_file": vault.key_file}
    needs = vault.auth.cert is not None or any(pair.values())
    for key in (key for key, file in pair.items() if needs and file is None):
        reason = "auth.cert logs in with both" if vault.auth.cert is not None else "a certificate needs its key"
        yield Problem((*path, key), f"is missing; {reason}: cert_file and key_file, PEM")
    approle = vault.auth.approle
    if approle is not None and approle.wrapped:
        for key in ("secret_id", "role"):
            if getattr(approle, key) is None:
                yield Problem((*path, "auth", "approle", key), "is missing; wrapped = true needs it")


def _exactly_one(keys: Iterable[str], chosen: list[str]) -> str:
    return f"must have exactly one of {', '.join(keys)}; it has {' and '.join(chosen) or 'none'}"


def _of_grant(
    path: Path, grant: Grant, providers: Mapping[str, Provider], provider_names: Iterable[str]
) -> Iterator[Problem]:
    if grant.provider not in provider_names:
        yield Problem((*path, "provider"), f"names no known provider; {suggest(grant.provider, provider_names)}")
    if grant.password is not None and grant.username is None:
        yield Problem((*path, "username"), f"is missing; a password needs one: add it under [{dotted(path)}]")
    provider = providers.get(grant.provider)
    if provider is not None and provider.auth == "basic" and grant.client_secret is None:
        yield Problem(
            (*path, "client_secret"), f'is missing; providers.{grant.provider}.auth = "basic" cannot do without it'
        )
    if grant.budget.apart >= grant.budget.window:
        yield Problem((*path, "budget", "apart"), "must be shorter than budget.window")


@cache
def _foreign(kind: str) -> tuple[tuple[str, object], ...]:
    """The keys that only other kinds of target have, with their defaults."""
    keys = sorted({key for keys in KEYS_OF.values() for key in keys} - set(KEYS_OF[kind]))
    return tuple((key, Target.model_fields[key].get_default(call_default_factory=True)) for key in keys)


def _of_target(path: Path, target: Target, vaults: Iterable[str]) -> Iterator[Problem]:
    chosen = [key for key in KEYS_OF if getattr(target, key) is not None]
    if len(chosen) != 1:
        yield Problem(path, _exactly_one(tuple(KEYS_OF), chosen))
        return
    for key, default in _foreign(chosen[0]):
        if getattr(target, key) != default:
            owners = " or ".join(kind for kind, keys in KEYS_OF.items() if key in keys)
            yield Problem((*path, key), f"is only for a {owners} target; remove it")
    if target.kv == 1 and target.max_versions is not None:
        yield Problem((*path, "max_versions"), "is only for a KV version 2 engine, which keeps versions; remove it")
    if target.vault is not None:
        yield from _known_vault((*path, "vault"), target.vault.name, vaults)
    if target.vault is not None or target.secret is not None:
        for key, template in target.fields.items():
            yield from _fillable((*path, "fields", key), template)
    elif target.format is Format.TEMPLATE and target.template is None:
        yield Problem((*path, "template"), 'is missing; format = "template" needs it')
    elif target.format is not Format.TEMPLATE and target.template is not None:
        yield Problem((*path, "template"), 'needs format = "template"')
    elif target.template is not None:
        yield from _fillable((*path, "template"), target.template)


def _of_hooks(path: Path, grant: Grant) -> Iterator[Problem]:
    """What a hook waits for must be there, and hold the token: hooks do not wait for each other."""
    held = [name for name, target in grant.targets.items() if not target.is_hook]
    for name, target in grant.targets.items():
        for other in target.after or ():
            if other not in held:
                yield Problem((*path, name, "after"), f"names no target that holds the token; {suggest(other, held)}")
        if target.webhook is not None:
            yield from _encrypted((*path, name, "webhook"), target.webhook, target.allow_plain_http)


def _fillable(path: Path, template: str) -> Iterator[Problem]:
    try:
        fill(template, dict.fromkeys(TEMPLATE_FIELDS, ""))
    except Misconfigured as error:
        yield Problem(path, f"cannot be filled; {error.mend}")


def _known_vault(path: Path, name: str, vaults: Iterable[str]) -> Iterator[Problem]:
    if name not in vaults:
        yield Problem(path, f"needs the Vault {name!r}, which is not configured; add [vault.{name}] with address, auth")


def references(settings: Settings) -> Iterator[tuple[Path, SecretReference]]:
    """Every secret that is configured, with the path of its key."""
    yield from _given(("state",), {"password": settings.state.password})
    if (seal := settings.state.seal) is not None:
        yield from _given(("state", "seal"), {"key": seal.key, "former": seal.former})
    yield from _given(("http",), {"token": settings.http.token})
    for name, grant in settings.grants.items():
        yield from _given(("grants", name), {"client_secret": grant.client_secret, "password": grant.password})
        for target_name, target in grant.targets.items():
            yield from _given(("grants", name, "targets", target_name), {"signing_key": target.signing_key})
    for name, vault in settings.vault.items():
        path = ("vault", name, "auth")
        auth = vault.auth
        yield from _given(path, {"token": auth.token})
        if auth.approle is not None:
            role = auth.approle
            yield from _given((*path, "approle"), {"role_id": role.role_id, "secret_id": role.secret_id})
        if auth.jwt is not None:
            yield from _given((*path, "jwt"), {"token": auth.jwt.token})
        if auth.userpass is not None:
            yield from _given((*path, "userpass"), {"password": auth.userpass.password})


def _given(path: Path, found: Mapping[str, SecretReference | None]) -> Iterator[tuple[Path, SecretReference]]:
    for key, reference in found.items():
        if reference is not None:
            yield (*path, key), reference
