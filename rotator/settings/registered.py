"""A grant of the store's register: a table like `[grants.NAME]` as JSON, checked like one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from pydantic import ValidationError

from rotator.core.errors import Misconfigured
from rotator.settings import checks, problems, shape
from rotator.settings.models import Grant, Settings
from rotator.settings.values import NAME


def grant(settings: Settings, name: str, text: str, taken: Mapping[str, shape.Path] | None = None) -> Grant:
    """``taken``: see `checks.of_grant`. Raises Misconfigured with one line that names the grant and its key, and no
    value."""
    try:
        table = json.loads(text)
    except (ValueError, RecursionError):
        raise Misconfigured(f"{name}: not JSON", mend="write an object with the keys of [grants.NAME]") from None
    return from_table(settings, name, table, taken)


def from_table(settings: Settings, name: str, table: object, taken: Mapping[str, shape.Path] | None = None) -> Grant:
    """See `grant`."""
    if not re.fullmatch(NAME, name):
        raise Misconfigured("a name cannot be that of a grant", mend="name it with a-z, 0-9 and _")
    if not isinstance(table, Mapping):
        raise Misconfigured(f"{name}: not an object", mend="write one with the keys of [grants.NAME]")
    try:
        made = Grant.model_validate(dict(table))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = tuple(str(part) for part in first["loc"])
        raise Misconfigured(f"{name}: {shape.dotted(path)} {_words(first['type'], first.get('ctx', {}))}") from None
    secrets = {"client_secret": made.client_secret, "password": made.password}
    secrets |= {f"targets.{target}.signing_key": one.signing_key for target, one in made.targets.items()}
    for key, reference in secrets.items():
        if reference is not None and reference.kind == "literal" and settings.state.seal is None:
            raise Misconfigured(
                f"{name}: {key} would be kept in clear",
                mend="set state.seal, or refer to it: { file = … }, { vault = … }",
            )
    for problem in checks.of_grant(settings, name, made, taken):
        raise Misconfigured(f"{name}: {shape.dotted(problem.path[2:])} {problem.text}")
    return made


def _words(kind: str, context: Mapping[str, object]) -> str:
    match kind:
        case "missing":
            return "is missing"
        case "extra_forbidden" | "unknown_key":
            return "is not a known key"
        case "value_error":
            return str(context["error"])
    return problems.words(kind, context)
