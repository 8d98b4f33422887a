"""What a reload cannot change is told."""

from __future__ import annotations

from pathlib import Path

from rotator import settings
from rotator.assembly import lasting
from rotator.settings import Settings


def read(folder: Path, text: str) -> Settings:
    config = folder / "rotator.toml"
    config.write_text(text)
    return settings.load(config, {}).settings


def test_each_change_is_told_once_and_what_is_as_it_was_is_not(tmp_path: Path) -> None:
    http = '[http]\naddress = "127.0.0.1:9465"\n'
    kept = lasting.Lasting(read(tmp_path, http))
    changed = '[http]\naddress = "127.0.0.1:9466"\n'
    told = "what changed in {} counts from the next start only; restart rotator"
    assert kept.warning(read(tmp_path, http)) is None
    assert kept.warning(read(tmp_path, changed)) == told.format("[http]")
    assert kept.warning(read(tmp_path, changed)) is None
    more = f'{changed}token = {{ file = "/run/token" }}\n[readiness]\nleast = "10s"\n'
    assert kept.warning(read(tmp_path, more)) == told.format("[readiness], [http]")
    assert kept.warning(read(tmp_path, http)) is None, "as at the start: nothing is to be done"
    assert kept.warning(read(tmp_path, changed)) == told.format("[http]")


def test_every_section_is_either_read_anew_or_told() -> None:
    anew = {"providers", "grants", "vault", "discovery", "kubernetes"}
    assert {*lasting.SECTIONS, *anew} == set(Settings.model_fields)
