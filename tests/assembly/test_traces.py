"""Traces need both a wish in the configuration and a place in the environment; else nothing of them is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rotator import assembly
from rotator.assembly import traces

PLACE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


def plan(folder: Path, text: str, environ: dict[str, str]) -> assembly.Plan:
    config = folder / "rotator.toml"
    config.write_text(text)
    return assembly.read(config, {"STATE_DIRECTORY": str(folder), **environ}, check=False)


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        ("", PLACE),
        ("[traces]\nenabled = false\n", PLACE),
        ("[traces]\nenabled = true\n", {}),
        ("[traces]\nenabled = true\n", {**PLACE, "OTEL_SDK_DISABLED": "true"}),
        ("[traces]\nenabled = true\n", {**PLACE, "OTEL_TRACES_EXPORTER": "none"}),
    ],
)
def test_one_of_the_two_is_not_enough(tmp_path: Path, text: str, environ: dict[str, str]) -> None:
    program = (
        "import sys, pathlib; from rotator import assembly; from rotator.assembly import traces; "
        f"config = pathlib.Path({str(tmp_path / 'rotator.toml')!r}); config.write_text({text!r}); "
        f"plan = assembly.read(config, {{'STATE_DIRECTORY': {str(tmp_path)!r}, **{environ!r}}}, check=False); "
        "print(traces.of(plan), [name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "None []"


def test_a_wish_without_a_place_is_warned_about(tmp_path: Path) -> None:
    wish = "[traces]\nenabled = true\n"
    (told,) = traces.warnings(plan(tmp_path, wish, {}))
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in told
    assert traces.warnings(plan(tmp_path, wish, PLACE)) == traces.warnings(plan(tmp_path, "", {})) == ()
