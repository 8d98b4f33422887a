"""Which of our units a configuration belongs to, by its path: the folders that the unit is given, and how a command
gets what systemd gives to the unit alone.

A command that an operator types has none of the unit's environment (``STATE_DIRECTORY``, ``CREDENTIALS_DIRECTORY``),
and must still find that unit's daemon, never another's.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from rotator.core import lean

SYSTEM = Path("/etc")
OURS = SYSTEM / "rotator"
FILE = "rotator.toml"
ALONE = "rotator-vault"
# What an instance of a unit may be called (systemd.unit(5)); a folder of another name is no profile.
# None that begins with a dot: `..`, and `..data` of a volume in Kubernetes.
INSTANCE = re.compile(r"[A-Za-z0-9:_\\-][A-Za-z0-9:_.\\-]*")


@lean.dataclass(frozen=True, slots=True)
class Service:
    """One of the units in ``systemd/``. ``folder`` is its StateDirectory= and RuntimeDirectory=, ``home`` the folder of
    its configuration and credentials. ``lives_alone``: its user exists only while it runs."""

    unit: str
    folder: str
    home: Path
    lives_alone: bool = False

    @property
    def state(self) -> Path:
        return Path("/var/lib") / self.folder

    @property
    def runtime(self) -> Path:
        return Path("/run") / self.folder

    def lends(self, command: str) -> str:
        """A line that runs the command as the unit's user with its credentials and folders, for a person to paste.

        ``RuntimeDirectoryPreserve=yes``: without it the published tokens would be gone when the command ends."""
        runtime, state = ("0700", "0700") if self.lives_alone else ("0711", "0700")
        given = [
            *(["DynamicUser=yes"] if self.lives_alone else []),
            f"User={ALONE if self.lives_alone else 'rotator'}",
            f"RuntimeDirectory={self.folder}", f"RuntimeDirectoryMode={runtime}", "RuntimeDirectoryPreserve=yes",
            f"StateDirectory={self.folder}", f"StateDirectoryMode={state}",
            f"LoadCredential=rotator:{self.home / 'credentials'}",
            f"LoadCredentialEncrypted=encrypted:{self.home / 'credentials.encrypted'}",
        ]  # fmt: skip
        told = " ".join(f"-p {shlex.quote(one)}" for one in given)
        return f"systemd-run --quiet --pipe --wait --collect {told} {command}"


def of(config: Path | None) -> Service | None:
    """The unit that is started with this configuration; None where it is none of ours. A link counts as what it is
    called before what it points to, as the unit names it so."""
    if config is None:
        return None
    return next((found for path in (config.absolute(), config.resolve()) if (found := _named(path))), None)


def folders_of(config: Path | None) -> Service | None:
    """As `of`; any other configuration of the system's own shares the folders of rotator.service."""
    found = of(config)
    if found is None and config is not None and config.resolve().is_relative_to(SYSTEM):
        return Service("rotator.service", "rotator", OURS)
    return found


def _named(path: Path) -> Service | None:
    if path == OURS / FILE:
        return Service("rotator.service", "rotator", OURS)
    if path == OURS / f"{ALONE}.toml":
        return Service(f"{ALONE}.service", ALONE, OURS, lives_alone=True)
    name = path.parent.name
    if path == OURS / name / FILE and INSTANCE.fullmatch(name):
        return Service(f"rotator@{name}.service", f"rotator/{name}", OURS / name)
    return None
