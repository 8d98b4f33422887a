"""The unit files, judged by systemd's own tools, and what `rotator install` does with them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from rotator.cli import words
from rotator.frontends import units

HOUSE = Path(__file__).parents[2]
SYSTEMD = HOUSE / "systemd"
# Tenths of systemd-analyze's exposure level: file targets and group sharing; Vault alone.
WORST = {"rotator.service": 16, "rotator@.service": 16, "rotator-vault.service": 11}
PREFIX, PROGRAM = PurePosixPath("/usr"), PurePosixPath("/usr/bin/rotator")


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not on this machine")
    environ = {**os.environ, "SYSTEMD_LOG_LEVEL": "warning"}
    return subprocess.run([tool, *words], capture_output=True, text=True, check=False, timeout=60, env=environ)


def judged(folder: Path, name: str, drop_ins: tuple[int, ...] = ()) -> Path:
    """A copy whose user and program there are on any machine; everything else is as it stands."""
    text = (SYSTEMD / name).read_text()
    text = re.sub(r"^Exec(Start|Reload)=\S+", rf"Exec\1={shutil.which('true')}", text, flags=re.MULTILINE)
    text = re.sub(r"^(User|Group)=rotator$", r"\1=root", text, flags=re.MULTILINE)
    text = re.sub(r"^SupplementaryGroups=.*$", "", text, flags=re.MULTILINE)
    copy = folder / name.replace("@.", "@profile.")
    copy.write_text(text)
    return copy


@pytest.mark.parametrize("name", [*units.UNITS, *(f"examples/{one}" for one in units.EXAMPLES)])
def test_a_unit_is_clean(name: str, tmp_path: Path) -> None:
    for one in (*units.UNITS, *(f"examples/{one}" for one in units.EXAMPLES)):
        (tmp_path / one).parent.mkdir(exist_ok=True)
        judged(tmp_path, one)
    for example in (tmp_path / "examples").iterdir():
        shutil.copy(example, tmp_path)
    copy = tmp_path / Path(name).name.replace("@.", "@profile.")
    done = analyze("verify", "--man=no", str(copy))
    told = [line for line in done.stderr.splitlines() if str(tmp_path) in line or copy.name in line]
    assert (done.returncode, told) == (0, []), done.stderr


@pytest.mark.parametrize("name", units.UNITS)
def test_a_unit_is_no_more_exposed_than_it_was(name: str) -> None:
    done = analyze("security", "--offline=yes", f"--threshold={WORST[name]}", "--no-pager", str(SYSTEMD / name))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


@pytest.mark.parametrize("name", units.UNITS)
def test_a_unit_starts_a_command_that_there_is(name: str) -> None:
    start = re.search(rf"^ExecStart={units.PROGRAM} (.+)$", (SYSTEMD / name).read_text(), re.MULTILINE)
    assert start is not None
    assert words.parser().parse_args(start[1].split()).word == "run"


def test_the_template_is_the_plain_unit_with_folders_of_its_own() -> None:
    plain, template = ((SYSTEMD / name).read_text().splitlines() for name in units.UNITS[:2])
    differing = [(one, other) for one, other in zip(plain, template, strict=True) if one != other]
    assert len(differing) == 8
    for one, other in differing:
        assert other.replace(" (%i)", "").replace("/%i", "") == one


def install(root: Path, *words: str, program: bool = True) -> subprocess.CompletedProcess[str]:
    more = ["--program", "/usr/bin/rotator"] if program and words[0] == "install" else []
    command = [sys.executable, "-m", "rotator", *words, "--root", str(root), *more]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


def files(root: Path) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_installing_twice_changes_nothing_and_uninstalling_leaves_only_what_is_the_operators(tmp_path: Path) -> None:
    if shutil.which("systemctl") is None:
        pytest.skip("there is no systemd here")
    done = install(tmp_path, "install", "--systemd", "--dry-run")
    assert done.returncode == 0 and "would be written  /usr/local/lib/systemd/system/rotator.service" in done.stdout
    assert files(tmp_path) == {}
    assert install(tmp_path, "install", "--systemd").returncode == 0
    first = files(tmp_path)
    assert {f"usr/local/lib/systemd/system/{name}" for name in units.UNITS} <= set(first)
    assert "usr/local/lib/sysusers.d/rotator.conf" in first and "etc/rotator/rotator.toml" in first
    again = install(tmp_path, "install", "--systemd")
    assert (again.returncode, again.stdout) == (0, "") and "in place already" in again.stderr
    (tmp_path / "etc/rotator/rotator.toml").write_text("[grants.mine]")
    done = install(tmp_path, "install", "--systemd")
    assert done.stdout == "kept  /etc/rotator/rotator.toml\n"
    done = install(tmp_path, "uninstall")
    assert done.returncode == 0, done.stderr
    assert files(tmp_path) == {"etc/rotator/rotator.toml": "[grants.mine]"}
    assert not (tmp_path / "usr/local/lib/systemd/system/rotator.service.d").exists()
    assert install(tmp_path, "uninstall", "--purge").returncode == 64, "asks first"
    assert install(tmp_path, "uninstall", "--purge", "--yes").returncode == 0
    assert files(tmp_path) == {}


def test_drop_ins_are_for_the_systemd_that_knows_them(tmp_path: Path) -> None:
    def put(version: int) -> set[str]:
        list(units.install(units.pieces(PREFIX, PROGRAM, version), tmp_path, dry=False))
        return {path.name for path in (tmp_path / "usr/lib/systemd/system").glob("rotator.service.d/*")}

    assert put(252) == set()
    assert put(255) == {"50-systemd-253.conf", "50-systemd-254.conf"}
    assert put(261) == {f"50-systemd-{since}.conf" for since in units.DROP_INS}
    assert put(252) == set(), "an older systemd gets rid of what it does not know"


def test_the_first_configuration_sets_nothing() -> None:
    text = units.first_configuration()
    assert "#[grants.billing]" in text
    assert [line for line in text.splitlines() if line and not line.startswith("#")] == []


def test_a_program_that_the_sandbox_hides_is_refused(tmp_path: Path) -> None:
    if shutil.which("systemctl") is None:
        pytest.skip("there is no systemd here")
    hidden = tmp_path / "bin" / "rotator"
    hidden.parent.mkdir()
    hidden.write_text(f"#!{sys.executable}\nfrom rotator.__main__ import main\nmain()\n")
    hidden.chmod(0o755)
    done = subprocess.run(
        [str(hidden), "install", "--systemd", "--root", str(tmp_path / "stage")],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    place = next((one for one in ("/tmp", "/var/tmp", "/home", "/root") if str(tmp_path).startswith(one)), None)
    if place is None:
        pytest.skip("temporary files lie where the sandbox looks")
    assert done.returncode == 64 and f"lies in {place}" in done.stderr
    assert not (tmp_path / "stage").exists()


@pytest.mark.parametrize(("told", "version"), [("systemd 252 (252.39-1~deb12u2)\n+PAM", 252), ("upstart 1", None)])
def test_the_version_of_systemd_is_read(told: str, version: int | None) -> None:
    assert units.version_of(told) == version
