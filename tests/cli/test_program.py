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


def script(folder: Path, text: str) -> Path:
    """A program of that name which lies in no PATH, as a console script does in an environment of its own."""
    made = folder / "a bin" / "rotator"
    made.parent.mkdir()
    house = Path(program.__file__).parents[2]
    made.write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(house)!r})\n{text}")
    made.chmod(0o755)
    return made


def test_the_program_is_named_so_that_it_runs_from_anywhere(tmp_path: Path) -> None:
    made = script(tmp_path, 'from rotator.cli import program\nprint(program.typed("version"))\n')
    whole = f"{shlex.quote(str(made))} version"
    assert told(str(made), folder=tmp_path) == whole
    assert told("./a bin/rotator", folder=tmp_path) == whole
    assert told("rotator", folder=tmp_path, PATH=str(made.parent)) == whole
    assert shlex.split(whole) == [str(made), "version"]


def test_what_comes_after_an_installation_can_be_pasted_where_no_path_leads(tmp_path: Path) -> None:
    made = script(tmp_path, "from rotator.cli import host\nprint(host.following())\n")
    last = told(str(made), folder=tmp_path, PATH="/usr/bin:/bin").splitlines()[-1]
    assert last.endswith(f" {shlex.quote(str(made))} check && systemctl enable --now rotator")


def test_a_command_runs_where_the_credentials_of_its_configuration_are() -> None:
    line = program.within(plan(Path("/etc/rotator/shop/rotator.toml")), "check", "--online")
    assert line.startswith("systemd-run ")
    assert "-p LoadCredential=rotator:/etc/rotator/shop/credentials " in line
    assert "-p RuntimeDirectoryPreserve=yes " in line
    assert line.endswith(" check --online --config /etc/rotator/shop/rotator.toml")


def test_a_configuration_of_no_unit_of_ours_has_no_line_to_paste(tmp_path: Path) -> None:
    assert "$CREDENTIALS_DIRECTORY" in program.within(plan(tmp_path / "rotator.toml"), "check", "--online")
