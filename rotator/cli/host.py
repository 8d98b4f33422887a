"""`rotator install` and `uninstall`: at home under systemd with one command."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from rotator.cli import program
from rotator.core.errors import BadUsage, Misconfigured
from rotator.frontends import units

HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 (names to refuse, nothing is written there)
NEXT = """\
next:
  1. the configuration   {config}
  2. each secret          install -m 0600 /dev/stdin /etc/rotator/credentials/NAME
     or encrypted         systemd-creds encrypt --name=encrypted_NAME - /etc/rotator/credentials.encrypted/NAME
     either way it is     {{ credential = "NAME" }}
  3. look, then start     {check} && systemctl enable --now rotator"""


def install(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Units, user, folders and a commented configuration; twice is as good as once."""
    if not arguments.systemd:
        raise BadUsage("install for what?", mend="rotator install --systemd")
    root = _root(arguments)
    started = _program(arguments.program)
    wanted = units.pieces(PurePosixPath(arguments.prefix), started, _version())
    done = _told(units.install(wanted, root, dry=arguments.dry_run), arguments.dry_run)
    if arguments.dry_run:
        return 0
    if root == Path("/"):
        library = f"{arguments.prefix}/lib"
        _run("systemd-sysusers", f"{library}/sysusers.d/rotator.conf")
        _run("systemd-tmpfiles", "--create", f"{library}/tmpfiles.d/rotator.conf")  # noqa: S108 (a folder of settings)
        _reload()
        if done:
            print(following(), file=sys.stderr)
    if not done:
        print("rotator: everything is in place already", file=sys.stderr)
    return 0


def uninstall(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Stop the services and take the files away; configuration and state stay unless told."""
    root = _root(arguments)
    if arguments.purge and not arguments.yes and not arguments.dry_run:
        _confirm()
    if root == Path("/") and not arguments.dry_run and Path("/run/systemd/system").is_dir():
        names = [unit.replace("@.", "@*.") for unit in units.UNITS]
        _run("systemctl", "stop", *names)
        _run("systemctl", "disable", "--quiet", *(unit for unit in units.UNITS if "@" not in unit))
    wanted = units.pieces(PurePosixPath(arguments.prefix), PurePosixPath(units.PROGRAM), _version())
    done = _told(units.uninstall(wanted, root, purge=arguments.purge, dry=arguments.dry_run), arguments.dry_run)
    if root == Path("/") and not arguments.dry_run:
        _reload()
    if not done:
        print("rotator: nothing is installed there", file=sys.stderr)
    elif not arguments.purge:
        print("rotator: configuration and state are kept; --purge takes them away too", file=sys.stderr)
    return 0


def following() -> str:
    """What is to do after `install`, as it can be pasted: this program may lie in no PATH."""
    return NEXT.format(config=units.CONFIG, check=program.typed("check"))


def _told(changes: Iterable[units.Change], dry: bool) -> int:
    """Print each; the number of those that changed something."""
    count = 0
    try:
        for change in changes:
            print(f"{'would be ' if dry and change.done != 'kept' else ''}{change.done}  {change.path}")
            count += change.done != "kept"
    except OSError as error:
        raise BadUsage(
            f"{error.filename}: {os.strerror(error.errno or 0)}", mend="run it as root, or give --root DIR to stage it"
        ) from None
    return count


def _root(arguments: argparse.Namespace) -> Path:
    if not arguments.prefix.startswith("/"):
        raise BadUsage(f"--prefix {arguments.prefix} is not absolute", mend="such as /usr/local")
    return Path(arguments.root)


def _program(given: str | None) -> PurePosixPath:
    """What the units start. Raises BadUsage for a place that their sandbox hides."""
    found = given or shutil.which(sys.argv[0]) or shutil.which("rotator")
    if found is None or not found.startswith("/") or Path(found).name == "__main__.py":
        raise BadUsage("the program rotator is not in PATH", mend="name it with --program /usr/bin/rotator")
    real = Path(found).resolve()
    hidden = [place for place in HIDDEN if Path(place) in real.parents]
    if given is None and hidden:
        raise BadUsage(
            f"{real} lies in {hidden[0]}, which the service cannot see (ProtectHome=, PrivateTmp=)",
            mend="install it elsewhere: python3 -m venv /opt/rotator && /opt/rotator/bin/pip install token-rotator",
        )
    return PurePosixPath(found)


def _version() -> int:
    """Raises Misconfigured where there is no systemd."""
    try:
        done = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=False)  # noqa: S607
    except OSError:
        raise Misconfigured(
            "there is no systemd on this machine", mend="see docs/kubernetes.md for containers"
        ) from None
    version = units.version_of(done.stdout)
    if version is None:
        raise Misconfigured(f"systemctl --version said {done.stdout[:40]!r}", mend="is it systemd?")
    return version


def _run(*command: str) -> None:
    """A command of systemd's own; what it complains of is told, and is no end."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"rotator: warning: {' '.join(command[:2])}: {done.stderr.strip() or done.returncode}", file=sys.stderr)


def _reload() -> None:
    if Path("/run/systemd/system").is_dir():
        _run("systemctl", "daemon-reload")


def _confirm() -> None:
    if not sys.stdin.isatty():
        raise BadUsage("uninstall --purge asks before it acts, and there is no terminal", mend="add --yes")
    print("This deletes configuration, credentials and refresh tokens; every grant must log in anew.", file=sys.stderr)
    if input("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise BadUsage("nothing was changed")
