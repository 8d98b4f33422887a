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
    http, changed = (f'[http]\naddress = "127.0.0.1:{port}"\n' for port in (9465, 9466))
    more = f'{changed}token = {{ file = "/run/token" }}\n[readiness]\nleast = "10s"\n'
    heard: list[str] = []
    kept = lasting.Lasting(read(tmp_path, http), heard.append)
    told = "what changed in {} counts from the next start only; restart rotator"
    for text, sections in (
        (http, None), (changed, "[http]"), (changed, None), (more, "[readiness], [http]"), (http, None),
        (changed, "[http]"),
    ):  # fmt: skip
        heard.clear()
        kept.use(read(tmp_path, text))
        assert heard == ([] if sections is None else [told.format(sections)])


def test_every_section_is_either_read_anew_or_told() -> None:
    anew = {"providers", "grants", "vault", "discovery", "kubernetes"}
    assert {*lasting.SECTIONS, *anew} == set(Settings.model_fields)
