"""What the Debian package brings besides the program: read before it is built, as building takes a minute."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from rotator.core import extras

yaml = pytest.importorskip("yaml")

HOUSE = Path(__file__).parents[1]
DOCUMENTS = "usr/share/doc/rotator"


@pytest.fixture(scope="module")
def deb() -> Iterator[ModuleType]:
    """The script, which finds its neighbour `manual` as a script does."""
    sys.path.insert(0, str(HOUSE / "packaging"))
    try:
        spec = importlib.util.spec_from_file_location("deb", HOUSE / "packaging" / "deb.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(HOUSE / "packaging"))


@pytest.fixture(scope="module")
def place(deb: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documents of a package, below a root that holds nothing else."""
    root = tmp_path_factory.mktemp("root")
    deb.documents(root)
    return root / DOCUMENTS


def test_who_is_woken_finds_the_runbook_the_rules_and_the_dashboard(place: Path) -> None:
    runbook = (place / "runbook.md").read_text()
    (group,) = yaml.safe_load((place / "examples/prometheus/rotator.rules.yaml").read_text())["groups"]
    assert len(group["rules"]) > 10
    for rule in group["rules"]:
        assert f"## {rule['alert']}\n" in runbook
    assert (place / "examples/grafana/rotator.json").is_file()


def test_every_link_and_every_place_that_a_document_names_is_there(place: Path) -> None:
    lost = []
    for page in sorted(place.glob("*.md")):
        text = page.read_text()
        links = {link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link}
        links |= set(re.findall(r"(?:config|examples)/(?:prometheus|grafana|kubernetes)[\w./-]*\w", text))
        lost += [f"{page.name}: {link}" for link in links if link and not (place / link).exists()]
    assert lost == []
    assert len(list(place.glob("*.md"))) > 10


def test_a_missing_extra_is_got_from_the_distribution_and_the_package_suggests_it(deb: ModuleType) -> None:
    assert Path("/", deb.LIBRARY) == extras.BUNDLE
    (suggested,) = re.findall(r"^Suggests: (.*)$", deb.CONTROL, re.MULTILINE)
    assert set(suggested.split(", ")) == set(extras.DEBIAN.values())
    held = {
        line.partition("==")[0] for line in (HOUSE / "requirements/run.txt").read_text().splitlines() if "==" in line
    }
    assert not held & {"cryptography", "psycopg", "opentelemetry-sdk"}, "what the package holds needs no hint"
