"""A grant of the register beside the configuration: checked like a table of it, and against what that writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rotator import settings
from rotator.core.errors import Misconfigured
from tests.settings.world import PROVIDER, TARGET, load


def entry(**changes: object) -> str:
    made = {"provider": "example", "client_id": "c", "targets": {"app": {"file": "own/token"}}, **changes}
    return json.dumps(made)


def known(folder: Path) -> settings.Settings:
    return load(folder, PROVIDER + TARGET + 'file = "taken/token"\n').settings


def test_its_own_place_is_its_own(tmp_path: Path) -> None:
    made = settings.registered.grant(known(tmp_path), "more", entry())
    assert made.targets["app"].file == "own/token"


@pytest.mark.parametrize("once_for_all", [False, True])
def test_what_the_configuration_writes_is_taken(tmp_path: Path, once_for_all: bool) -> None:
    configured = known(tmp_path)
    taken = settings.sharing.places(configured) if once_for_all else None
    with pytest.raises(Misconfigured, match=r"is also written by grants.billing.targets.app; give more") as told:
        settings.registered.grant(configured, "more", entry(targets={"mine": {"file": "taken/token"}}), taken)
    assert str(told.value).startswith("more: targets.mine.file ")


def test_what_stands_in_for_a_grant_of_its_name_may_write_its_place(tmp_path: Path) -> None:
    settings.registered.grant(known(tmp_path), "billing", entry(targets={"mine": {"file": "taken/token"}}))


def test_it_may_not_write_one_place_twice(tmp_path: Path) -> None:
    twice = {"one": {"file": "own/token"}, "two": {"file": "own/token"}}
    with pytest.raises(Misconfigured, match=r"two.file is also written by grants.more.targets.one"):
        settings.registered.grant(known(tmp_path), "more", entry(targets=twice))


@pytest.mark.parametrize(
    ("hook", "told"),
    [
        ({"webhook": "http://hooks.example.com/"}, "must be https"),
        ({"command": ["/bin/true"], "after": ["nobody"]}, "names no target that holds the token"),
    ],
)
def test_its_hooks_are_bound_like_those_of_the_configuration(tmp_path: Path, hook: object, told: str) -> None:
    with pytest.raises(Misconfigured, match=told):
        settings.registered.grant(known(tmp_path), "more", entry(targets={"hook": hook}))


def test_its_secrets_are_not_kept_in_clear(tmp_path: Path) -> None:
    signed = {"hook": {"webhook": "https://hooks.example.com/", "signing_key": "a key of some length"}}
    with pytest.raises(Misconfigured, match=r"targets.hook.signing_key would be kept in clear"):
        settings.registered.grant(known(tmp_path), "more", entry(targets=signed))
