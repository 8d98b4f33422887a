"""The man pages name everything there is, and groff finds nothing to complain of."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rotator.cli import words

HOUSE = Path(__file__).parents[1]
# Known to whoever reads a manual.
COMMON = ("-h", "--help", "--version")
NAMES = ("rotator.1", "rotator.toml.5")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man")
    subprocess.run([sys.executable, HOUSE / "packaging" / "manual.py", folder], check=True, timeout=60)
    return folder


def plain(page: Path) -> str:
    return page.read_text().replace("\\-", "-")


def test_every_command_and_every_option_is_in_the_manual(pages: Path) -> None:
    text = plain(pages / "rotator.1")

    def look(parser: argparse.ArgumentParser, before: str) -> None:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, one in action.choices.items():
                    look(one, f"{before} {name}")
            else:
                assert all(option in text for option in action.option_strings if option not in COMMON), action
        if parser.get_default("run") is not None:
            assert f'.SS "{before}"' in text

    look(words.parser(), "rotator")


def test_every_setting_is_in_the_manual(pages: Path) -> None:
    text = plain(pages / "rotator.toml.5").replace("\\(aq", "'").replace("\\(ha", "^").replace("\\e", "\\")
    keys = re.findall(r"^#?(?!# )([a-z_]+) = ", (HOUSE / "config" / "rotator.toml").read_text(), re.MULTILINE)
    assert len(keys) > 50
    assert [key for key in keys if not re.search(rf"^{key} = ", text, re.MULTILINE)] == []


@pytest.mark.parametrize("name", NAMES)
def test_groff_renders_it_without_a_complaint(pages: Path, name: str) -> None:
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("groff is not on this machine")
    done = subprocess.run(
        [groff, "-man", "-Tutf8", "-ww", str(pages / name)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""
    assert "NAME" in done.stdout and len(done.stdout.splitlines()) > 150
