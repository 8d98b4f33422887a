"""A command finds the folders of the unit whose configuration it reads: held against the units themselves."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from rotator.assembly import plan as plans
from rotator.assembly import services, states
from rotator.assembly.plan import Plan
from rotator.settings import Loaded, Settings

UNITS = Path(__file__).parents[2] / "systemd"
NAMES = ("rotator.service", "rotator@.service", "rotator-vault.service")


def plan(path: str, **environ: str) -> Plan:
    """As `assembly.read` makes it of a file there; none has to be there for that."""
    return Plan(Loaded(Settings(), Path(path), {}), environ, Path(path))


def keys(unit: str) -> dict[str, str]:
    """What a unit says, for the instance `shop`; of a key that is written twice the last."""
    text = (UNITS / unit).read_text().replace("%i", "shop")
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


def config_of(unit: str) -> str:
    return keys(unit)["ExecStart"].rpartition(" --config ")[2]


@pytest.mark.parametrize("unit", NAMES)
def test_a_command_looks_where_the_unit_of_its_configuration_writes(unit: str) -> None:
    told, made = keys(unit), plan(config_of(unit), HOME="/srv/somebody", XDG_RUNTIME_DIR="/run/user/0")
    assert plans.state_directory(made) == Path("/var/lib", told["StateDirectory"])
    assert plans.runtime_directory(made) == Path("/run", told["RuntimeDirectory"])
    found = services.of(Path(config_of(unit)))
    assert found is not None
    assert found.unit == unit.replace("@.", "@shop.")


@pytest.mark.parametrize("unit", NAMES)
def test_the_line_that_lends_gives_what_the_unit_gives(unit: str) -> None:
    found = services.of(Path(config_of(unit)))
    assert found is not None
    words = shlex.split(found.lends("/usr/bin/rotator check"))
    assert words[0] == "systemd-run" and words[-2:] == ["/usr/bin/rotator", "check"]
    given = dict(one.split("=", 1) for one in words if "=" in one)
    assert given.pop("RuntimeDirectoryPreserve") == "yes", "else the command takes published tokens with it"
    told = keys(unit)
    assert given == {key: told[key] for key in given}
    assert {key for key in told if key.startswith(("LoadCredential", "StateDir", "RuntimeDir", "DynamicUser"))} <= {
        *given, "RuntimeDirectoryPreserve",
    }  # fmt: skip


def test_the_line_in_the_documents_is_the_one_that_is_printed() -> None:
    found = services.of(Path("/etc/rotator/rotator.toml"))
    assert found is not None
    line = found.lends("/usr/bin/rotator check --online --config /etc/rotator/rotator.toml")
    text = (UNITS.parent / "docs" / "systemd.md").read_text()
    assert line in re.sub(r" \\\n +", " ", text)


def test_profiles_have_states_of_their_own() -> None:
    one, other = plan("/etc/rotator/shop/rotator.toml"), plan("/etc/rotator/bank/rotator.toml")
    assert states.folder(one) == Path("/var/lib/rotator/shop/state")
    assert states.folder(other) == Path("/var/lib/rotator/bank/state")


def test_what_the_service_manager_says_counts_before_the_path() -> None:
    made = plan("/etc/rotator/shop/rotator.toml", STATE_DIRECTORY="/srv/one:/srv/two", RUNTIME_DIRECTORY="/srv/run")
    assert plans.state_directory(made) == Path("/srv/one")
    assert plans.runtime_directory(made) == Path("/srv/run")


@pytest.mark.parametrize("path", ["/etc/rotator/other.toml", "/etc/rotator/a/b/rotator.toml", "/etc/elsewhere.toml"])
def test_another_file_of_the_system_is_of_no_unit_but_shares_the_folders(path: str) -> None:
    assert services.of(Path(path)) is None
    assert plans.state_directory(plan(path)) == Path("/var/lib/rotator")


def test_a_link_counts_as_what_it_is_called(tmp_path: Path) -> None:
    """A configuration of one's own that is a link into the system's is the system's, as before."""
    link = tmp_path / "rotator.toml"
    link.symlink_to("/etc/rotator/shop/rotator.toml")
    assert plans.state_directory(plan(str(link))) == Path("/var/lib/rotator/shop")


def test_a_users_own_has_the_users_own_folders(tmp_path: Path) -> None:
    made = plan(str(tmp_path / "rotator.toml"), HOME="/srv/me")
    assert services.of(tmp_path / "rotator.toml") is None
    assert plans.state_directory(made) == Path("/srv/me/.local/state/rotator")
