"""The example is the reference of all keys: it loads as it is, and with everything uncommented, and lacks nothing."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from rotator import settings
from rotator.settings import shape
from rotator.settings.models import Part, Settings

EXAMPLE = Path(__file__).parents[2] / "config" / "rotator.toml"
NAME = "*"


def uncommented() -> str:
    """Settings begin right behind the hash, prose one space later."""
    return re.sub(r"(?m)^#(?! |$)", "", EXAMPLE.read_text())


def keys_of_models(node: shape.Node, path: shape.Path = ()) -> Iterator[shape.Path]:
    if node.holds_value:
        yield path
        return
    if node.each is not None:
        yield from keys_of_models(node.each, (*path, NAME))
    for key, child in node.keys.items():
        yield from keys_of_models(child, (*path, key))


def keys_of_data(node: shape.Node, data: object, path: shape.Path = ()) -> Iterator[shape.Path]:
    if node.holds_value:
        yield path
    elif isinstance(data, dict):
        for key, value in data.items():
            child = node.below(key)
            assert child is not None, (*path, key)
            yield from keys_of_data(child, value, (*path, NAME if node.each is not None else key))


def test_the_example_loads_as_it_is_without_a_warning() -> None:
    loaded = settings.load(EXAMPLE, {})
    assert list(loaded.settings.grants) == ["billing"]
    assert loaded.warnings == ()


def test_the_example_loads_with_everything_uncommented(tmp_path: Path) -> None:
    path = tmp_path / "rotator.toml"
    path.write_text(uncommented())
    loaded = settings.load(path, {})
    assert loaded.warnings == ()
    told = {"reload", "nudge", "audit"}
    assert set(loaded.settings.grants["billing"].targets) == {"app", "bundle", "netrc", "cluster", "mirror"} | told


def test_the_example_has_every_key_of_the_models() -> None:
    wanted = set(keys_of_models(shape.tree()))
    there = set(keys_of_data(shape.tree(), tomllib.loads(uncommented())))
    assert len(wanted) > 50
    # Of two that exclude each other, and of what fits another value only, one is told in prose.
    told = {path for path in wanted - there if f"\n# {path[-1]} = " in EXAMPLE.read_text()}
    assert told <= {("state", "seal", "key"), ("state", "password")}
    assert wanted - there - told == set()


def test_defaults_that_the_example_shows_are_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "rotator.toml"
    path.write_text(uncommented())
    full, bare = settings.load(path, {}).settings, settings.load(None, {}).settings
    assert (full.state.url, full.log, full.timing, full.metrics) == (
        bare.state.url,
        bare.log,
        bare.timing,
        bare.metrics,
    )
    assert full.startup.require == bare.startup.require
    assert full.grants["billing"].budget == settings.Budget()
    shown = full.providers["example"].model_dump(exclude={"login_url", "scope", "proxy", "ca_file", "error_map"})
    default = settings.Provider(token_url=full.providers["example"].token_url)
    assert shown == default.model_dump(exclude={"login_url", "scope", "proxy", "ca_file", "error_map"})


def test_every_model_is_closed_frozen_and_silent() -> None:
    def models(kind: type[Part]) -> Iterator[type[Part]]:
        yield kind
        for below in kind.__subclasses__():
            yield from models(below)

    for model in (Settings, *models(Part)):
        config = model.model_config
        assert (config["extra"], config["frozen"], config["hide_input_in_errors"]) == ("forbid", True, True), model
