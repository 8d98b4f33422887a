"""Drop-ins: grants in files of their own beside the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from rotator import settings
from tests.settings.world import GRANT, lines, load

REPORTS = '[grants.reports]\nprovider = "omnifund"\nclient_id = "2_def"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / settings.DROP_INS).mkdir()
    return tmp_path / settings.DROP_INS


def test_its_grants_are_grants_like_any_other_and_say_where_they_stand(tmp_path: Path, folder: Path) -> None:
    (folder / "reports.toml").write_text(REPORTS)
    loaded = load(tmp_path, GRANT, ROTATOR_GRANTS__REPORTS__USERNAME="somebody")
    assert set(loaded.settings.grants) == {"billing", "reports"}
    assert loaded.settings.grants["reports"].username == "somebody"
    assert loaded.sources["grants.reports.client_id"] == "reports.toml:3"
    assert loaded.sources["grants.billing.client_id"] == "rotator.toml:4"
    assert loaded.sources["grants.reports.username"] == "environment ROTATOR_GRANTS__REPORTS__USERNAME"


def test_a_configuration_may_have_no_grant_of_its_own(tmp_path: Path, folder: Path) -> None:
    (folder / "reports.toml").write_text(REPORTS)
    loaded = load(tmp_path, "")
    assert set(loaded.settings.grants) == {"reports"}
    assert loaded.warnings == ()


def test_only_files_that_end_in_toml_count_and_no_hidden_ones(tmp_path: Path, folder: Path) -> None:
    for name in (".reports.toml", "reports.toml~", "reports.toml.bak", ".reports.toml.swp"):
        (folder / name).write_text(REPORTS)
    assert set(load(tmp_path, GRANT).settings.grants) == {"billing"}


def test_every_drop_in_that_is_wrong_is_named_with_its_line(tmp_path: Path, folder: Path) -> None:
    (folder / "a.toml").write_text(GRANT)
    (folder / "b.toml").write_text("[grants.b\n")
    (folder / "c.toml").write_text(REPORTS + '[state]\nurl = "sqlite:other.db"\n')
    (folder / "d.toml").write_text("grants = 1\n")
    (folder / "e.toml").write_text(REPORTS)
    (folder / "f.toml").write_text(REPORTS)
    assert [line.partition("; see")[0] for line in lines(tmp_path, GRANT)] == [
        "grants.d/a.toml:2: grants.billing is written in rotator.toml:2 already; keep one of them",
        "grants.d/b.toml:1: not valid TOML: expected ']' at the end of a table declaration",
        "grants.d/c.toml:4: state does not belong into a drop-in, which holds [grants.NAME] only; "
        "write it into the configuration file",
        "grants.d/d.toml:1: grants is a table; write [grants.NAME]",
        "grants.d/f.toml:1: grants.reports is written in grants.d/e.toml:1 already; keep one of them",
    ]


def test_a_key_that_is_wrong_in_one_is_found_where_it_stands(tmp_path: Path, folder: Path) -> None:
    (folder / "reports.toml").write_text('\n[grants.reports]\nprovider = "omnifund"\nclientid = "2"\n')
    assert lines(tmp_path, GRANT) == [
        'grants.d/reports.toml:2: grants.reports.client_id is missing; add client_id = "…" under [grants.reports]',
        "grants.d/reports.toml:4: grants.reports.clientid is not a known key; did you mean client_id?",
    ]
