"""A configuration file and what comes of it."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from rotator import settings
from rotator.core.errors import Misconfigured

GRANT = """
[grants.billing]
provider = "omnifund"
client_id = "1_abc"
"""
TARGET = GRANT + "[grants.billing.targets.app]\n"
PROVIDER = '[providers.example]\ntoken_url = "https://login.example.com/token"\n'
VAULT = '[vault.default]\naddress = "https://vault.example.com"\nauth = { token_file = "/run/vault/token" }\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "rotator.toml"
    path.write_text(textwrap.dedent(text))
    return path


def load(folder: Path, text: str, **environ: str) -> settings.Loaded:
    return settings.load(write(folder, text), environ)


def lines(folder: Path, text: str, **environ: str) -> list[str]:
    """The problems, one a line, with the folder cut off."""
    with pytest.raises(Misconfigured) as caught:
        load(folder, text, **environ)
    assert caught.value.exit_code == 78
    return caught.value.what.replace(f"{folder}/", "").split("\n")
