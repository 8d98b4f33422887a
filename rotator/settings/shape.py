"""The models as a tree of keys: what may stand where. Environment, merging, suggestions and origins walk it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from rotator.core import lean
from rotator.settings.models import Settings
from rotator.settings.values import KINDS, SecretReference
from rotator.settings.vaults import Auth

Path = tuple[str, ...]


@lean.dataclass(frozen=True, slots=True)
class Node:
    """``keys`` are those of a table, ``each`` is what stands under any name, ``holds_value`` is an end of the tree.

    A ``choice`` is a table of which one key is written: a higher layer's choice replaces a lower one's."""

    keys: Mapping[str, Node] = field(default_factory=dict)
    each: Node | None = None
    choice: bool = False
    holds_value: bool = False

    def below(self, key: str) -> Node | None:
        return self.keys.get(key, self.each)


VALUE = Node(holds_value=True)
SECRET = Node(keys=dict.fromkeys(KINDS, VALUE), choice=True, holds_value=True)


@cache
def tree() -> Node:
    return _node(Settings)


def _node(kind: Any) -> Node:
    origin = get_origin(kind)
    if origin is Annotated:
        return _node(get_args(kind)[0])
    if origin in (Union, UnionType):
        return _node(next(arg for arg in get_args(kind) if arg is not NoneType))
    if origin is dict:
        return Node(each=_node(get_args(kind)[1]))
    if kind is SecretReference:
        return SECRET
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        keys = {name: _node(info.annotation) for name, info in kind.model_fields.items()}
        return Node(keys=keys, choice=kind is Auth)
    return VALUE


def at(path: Path) -> Node | None:
    """The node at a path, or None where nothing may stand."""
    node: Node | None = tree()
    for key in path:
        node = None if node is None else node.below(key)
    return node


def values(node: Node, data: Any, path: Path = ()) -> Iterator[Path]:
    """Every key that has a value, written or by default; of a choice only what is written."""
    if node.holds_value:
        yield path
        return
    written = data if isinstance(data, dict) else {}
    for key in node.keys or written:
        child = node.below(key)
        if child is not None and (key in written or not node.choice):
            yield from values(child, written.get(key), (*path, key))


def dotted(path: Path) -> str:
    """``grants.billing.client_id``; a part that TOML would quote is quoted."""
    return ".".join(part if part.replace("_", "").replace("-", "").isalnum() else f'"{part}"' for part in path)
