"""A grant that stands in Vault instead of in the configuration: an entry's fields, checked like a table."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import SecretStr, ValidationError

from rotator.core.errors import Misconfigured
from rotator.settings import checks
from rotator.settings.entries import VaultPath, vault_template
from rotator.settings.models import Grant, Settings
from rotator.settings.targets import Target
from rotator.settings.values import NAME, SecretReference, target_file

SECRETS = ("client_secret", "password")
FIELDS = ("provider", "client_id", "username", "scope", "description", "file", "vault")


def grant(settings: Settings, name: str, fields: Mapping[str, object], entry: VaultPath) -> Grant:
    """The grant that ``entry`` describes. Its secrets stay in Vault: the grant refers to them.

    Raises Misconfigured with one line that names the entry and its field, and no value."""
    rules, place = settings.discovery.vault, f"{entry.mount}/{entry.path}"
    assert rules is not None  # noqa: S101 (without it nothing is discovered)
    write = f"bao kv patch -mount={entry.mount} {entry.path}"
    if not re.fullmatch(NAME, name):
        raise Misconfigured(f"{place}: its name cannot be that of a grant", mend="name it with a-z, 0-9 and _")
    for key, value in fields.items():
        if key not in (*FIELDS, *SECRETS):
            raise Misconfigured(f"{place}: the field {key} is not known", mend=f"known: {', '.join(FIELDS + SECRETS)}")
        if not isinstance(value, str) or not value:
            raise Misconfigured(f"{place}: the field {key} must be text", mend=f"{write} {key}=…")
    found = {key: str(value) for key, value in fields.items()}
    provider = found.get("provider", rules.provider)
    if provider is None or provider not in settings.providers:
        known = ", ".join(sorted(settings.providers))
        raise Misconfigured(f"{place}: its provider is not a known one", mend=f"{write} provider=… with one of {known}")
    if "client_id" not in found:
        raise Misconfigured(f"{place}: the field client_id is missing", mend=f"{write} client_id=…")
    references = {
        key: SecretReference("vault", SecretStr(f"{entry.name}:{entry.mount}/{entry.path}#{key}"))
        for key in SECRETS
        if key in found
    }
    plain = {key: found[key] for key in ("client_id", "username", "scope", "description") if key in found}
    try:
        targets = _targets(found.get("file", rules.file), found.get("vault", rules.vault), name, provider)
        made = Grant.model_validate({"provider": provider, "targets": targets, **plain, **references})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise Misconfigured(
            f"{place}: the field {first['loc'][0]} is not usable", mend=f"{write} {first['loc'][0]}=…"
        ) from None
    except ValueError as error:
        raise Misconfigured(f"{place}: its target {error}", mend=f"mend the field file or vault: {write} …") from None
    for problem in checks.of_grant(settings, name, made):
        raise Misconfigured(f"{place}: as a grant, {'.'.join(problem.path[2:])} {problem.text}", mend=f"{write} …")
    return made


def _targets(file: str | None, vault: object, name: str, provider: str) -> dict[str, Target]:
    """Raises ValueError for a place that is none."""
    targets = {}
    if file is not None:
        path = target_file(file.replace("{grant}", name).replace("{provider}", provider))
        targets["file"] = Target(file=path)
    if vault is not None:
        targets["vault"] = Target(vault=vault_template(vault).filled(grant=name, provider=provider))
    return targets
