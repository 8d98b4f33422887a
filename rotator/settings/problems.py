"""What is wrong, one line each, in words for the person who must mend it; never in those of pydantic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from rotator.core import lean
from rotator.settings import shape
from rotator.settings.shape import Node, Path
from rotator.settings.sources import PREFIX, Layers, segments, spelled

# What to write for a key that must be there and is not.
EXAMPLES = {
    "provider": '"omnifund"',
    "token_url": '"https://…"',
    "address": '"https://…"',
    "auth": '{ token_file = "/…" }',
    "role_id": '{ file = "/…" }',
    "secret_id": '{ file = "/…" }',
}


@lean.dataclass(frozen=True, slots=True)
class Problem:
    """``text`` follows the dotted key of ``path``: ``is missing; add …``."""

    path: Path
    text: str

    def line(self, layers: Layers) -> str:
        place = layers.place(self.path)
        text = f"{shape.dotted(self.path)} {self.text}"
        return text if place is None else f"{place}: {text}"


def nearest(word: str, known: Iterable[str]) -> str | None:
    # Only an error needs it: kept out of every good start.
    import difflib

    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)), None)


def suggest(word: str, known: Iterable[str]) -> str:
    """``did you mean X?``, or what there is."""
    names = sorted(known)
    found = nearest(word, names)
    if found is not None:
        return f"did you mean {found}?"
    return f"known: {', '.join(names)}" if names else "there is none"


def of_validation(error: ValidationError, layers: Layers) -> Iterator[Problem]:
    """``include_input=False``: even with hidden inputs the list would carry them (pydantic 2.14)."""
    for entry in error.errors(include_url=False, include_input=False):
        path = tuple(str(part) for part in entry["loc"])
        context: Mapping[str, Any] = entry.get("ctx", {})
        yield _problem(entry["type"], path, context, layers)


def _problem(kind: str, path: Path, context: Mapping[str, Any], layers: Layers) -> Problem:
    if path[-1] == "[key]":
        extra = " and -" if path[0] == "providers" and len(path) == 3 else ""
        return Problem(path[:-1], f"is not a good name; use the letters a-z, the digits 0-9, _{extra}")
    if kind == "unknown_key":
        path = (*path, context["key"])
    if kind in ("extra_forbidden", "unknown_key"):
        node = shape.at(path[:-1])
        return Problem(path, f"is not a known key; {suggest(path[-1], node.keys if node else ())}")
    if kind == "missing":
        return Problem(path, f"is missing; {_addition(path, layers)}")
    if kind == "value_error":
        return Problem(path, str(context["error"]))
    return Problem(path, words(kind, context))


def _addition(path: Path, layers: Layers) -> str:
    if layers.file.part(path).line(path) is None:
        return f"set {PREFIX}{'__'.join(path).upper().replace('-', '_')}"
    example = EXAMPLES.get(path[-1], '"…"')
    return f"add {path[-1]} = {example} under [{shape.dotted(path[:-1])}]"


def words(kind: str, context: Mapping[str, Any]) -> str:
    """What pydantic calls wrong by ``kind``, for a person."""
    match kind:
        case "string_type":
            return "must be text in quotes"
        case "string_too_short":
            return "must not be empty"
        case "string_pattern_mismatch":
            return "must not be empty or hold a line break or another control character"
        case "literal_error" | "enum":
            return f"must be one of {context['expected']}".replace("'", '"')
        case "greater_than":
            return f"must be more than {context['gt']}"
        case "greater_than_equal":
            return f"must be at least {context['ge']}"
        case "less_than":
            return f"must be less than {context['lt']}"
        case "less_than_equal":
            return f"must be at most {context['le']}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return "must be a table with keys of its own"
    for kinds, words in (
        ("int_", "must be a whole number"),
        ("float_", "must be a number"),
        ("finite_", "must be a number"),
        ("bool_", "must be true or false"),
    ):
        if kind.startswith(kinds):
            return words
    return "is not usable"


def of_environment(layers: Layers, referenced: frozenset[str]) -> Iterator[str]:
    """Misspelt variables, and pairs that exclude each other. ``referenced`` are those that hold a secret."""
    for variable in layers.environment.unknown:
        if variable not in referenced:
            yield _unknown(variable, layers)
    for one, other in layers.environment.clashes:
        yield f"environment {one} and {other} exclude each other; unset one of them"
    for variable in layers.environment.refused:
        yield f"environment {variable} is refused: certificates are always verified; name the CA by ca_file"


def _unknown(variable: str, layers: Layers) -> str:
    parts = segments(variable)
    known = sorted(_variables(shape.tree(), layers.merged, parts))
    below = [name for name in known if name.startswith(f"{variable.upper()}__")]
    if below:
        return f"environment {variable} names a whole table; set its keys, such as {below[0]}"
    found = nearest(variable.removeprefix(PREFIX).upper(), (name.removeprefix(PREFIX) for name in known))
    mend = f"did you mean {PREFIX}{found}?" if found else "unset it, or see config/rotator.toml for every key"
    return f"environment {variable} is not a known setting; {mend}"


def _variables(node: Node, data: Any, parts: list[str], prefix: str = PREFIX) -> Iterator[str]:
    """Every variable that could be meant: under a name, those that exist and the one that was written."""
    if node.holds_value:
        yield prefix.removesuffix("__")
    written = data if isinstance(data, Mapping) else {}
    head = spelled(parts[0], node, written) if parts else ""
    names = node.keys or ([head] if head in written else [*written, *filter(None, [head])])
    for name in names if node.keys or node.each else ():
        child = node.below(name)
        if child is not None:
            spelt = name if child is shape.VALUE and node.each else name.upper().replace("-", "_")
            yield from _variables(child, written.get(name), parts[1:], f"{prefix}{spelt}__")
