"""What is printed to be typed again runs as it stands: the whole path, and the unit's own credentials."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from rotator.assembly.plan import Plan
from rotator.cli import program
from rotator.settings import Loaded, Settings


def plan(path: Path) -> Plan:
    return Plan(Loaded(Settings(), path, {}), {}, path)


def told(*command: str, folder: Path, **environ: str) -> str:
    """What `typed` says in a process that was started so."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=30, cwd=folder, env={"PYTHONPATH": "", **environ}
    )
    return done.stdout.strip()


def test_the_program_is_named_so_that_it_runs_from_anywhere(tmp_path: Path) -> None:
    house = Path(program.__file__).parents[2]
    script = tmp_path / "a bin" / "rotator"
    script.parent.mkdir()
    script.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(house)!r})\nfrom rotator.cli import program\n"
        'print(program.typed("version"))\n'
    )
    script.chmod(0o755)
    whole = f"{shlex.quote(str(script))} version"
    assert told(str(script), folder=tmp_path) == whole
    assert told("./a bin/rotator", folder=tmp_path) == whole
    assert told("rotator", folder=tmp_path, PATH=str(script.parent)) == whole
    assert shlex.split(whole) == [str(script), "version"]


def test_a_command_runs_where_the_credentials_of_its_configuration_are() -> None:
    line = program.within(plan(Path("/etc/rotator/shop/rotator.toml")), "check", "--online")
    assert line.startswith("systemd-run ")
    assert "-p LoadCredential=rotator:/etc/rotator/shop/credentials " in line
    assert "-p RuntimeDirectoryPreserve=yes " in line
    assert line.endswith(" check --online --config /etc/rotator/shop/rotator.toml")


def test_a_configuration_of_no_unit_of_ours_has_no_line_to_paste(tmp_path: Path) -> None:
    assert "$CREDENTIALS_DIRECTORY" in program.within(plan(tmp_path / "rotator.toml"), "check", "--online")
