"""buildah and podman on a storage of their own, with settings that work for root on any machine: runc, cgroups by
file system, the host's network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HOUSE = Path(__file__).parents[2]
BASE = "localhost/python:slim"
IMAGE = "localhost/rotator:test"
PACKAGES = ("python3", "python3-venv", "python3-pip", "ca-certificates")
# Of the base alone, so that pip in it finds its interpreter's name as in Docker's own images.
PYTHON = 'ln -s python3 "$1/usr/bin/python"'
# A day of 2026: whatever is built from one checkout has one time.
EPOCH = "1767225600"

CONTAINERS = """\
[containers]
netns = "host"
cgroups = "enabled"
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""


def why_not() -> str:
    """What this machine lacks for it; empty where nothing."""
    if os.geteuid() != 0:
        return "containers with a network and limits want root here"
    absent = [tool for tool in ("buildah", "podman", "runc", "catatonit", "mmdebstrap") if shutil.which(tool) is None]
    return f"{absent[0]} is not on this machine" if absent else ""


@dataclass(frozen=True)
class Engine:
    """The tools, on a storage below ``folder``."""

    folder: Path

    @property
    def environ(self) -> dict[str, str]:
        return {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "TMPDIR": str(self.folder),
        }

    def prepare(self) -> None:
        (self.folder / "containers.conf").write_text(CONTAINERS)
        (self.folder / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{self.folder}/graph"\nrunroot = "{self.folder}/run"\n'
        )
        (self.folder / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')

    def run(self, *command: str, check: bool = True, within: float = 300.0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=self.environ, cwd=self.folder, timeout=within
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def say(self, *command: str) -> str:
        return self.run(*command).stdout.strip()

    def make_base(self) -> None:
        """A Debian with its own Python, as no registry is asked for one."""
        tar = self.folder / "base.tar"
        self.run(
            "mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}",
            f"--customize-hook={PYTHON}", codename(), str(tar),
        )  # fmt: skip
        self.run("podman", "import", "--quiet", str(tar), BASE)
        tar.unlink()

    def download(self) -> Path:
        """A build context: the checkout, and all that would be downloaded for the base's Python."""
        context = self.folder / "context"
        shutil.copytree(
            HOUSE, context, ignore=shutil.ignore_patterns(".git", ".venv", "dist", "wheels", ".*_cache", "__pycache__"),
        )  # fmt: skip
        pip = (sys.executable, "-m", "pip", "--python", "/usr/bin/python3", "--disable-pip-version-check", "--quiet")
        fetch = (*pip, "download", "--no-deps", "-d", str(context / "wheels"))
        self.run(*fetch, "--require-hashes", "-r", str(HOUSE / "requirements" / "run.txt"))
        # What builds ours, and the one dependency that has no wheel.
        self.run(*pip, "download", "-d", str(context / "wheels"), "hatchling>=1.27,<2", "setuptools", "wheel")
        return context

    def build(self, context: Path, name: str) -> str:
        """The image from the Dockerfile as it stands; its id."""
        self.run(
            "buildah", "bud", "--isolation", "chroot", "--format", "docker", "--timestamp", EPOCH, "--no-cache",
            "--signature-policy", str(self.folder / "policy.json"), "--build-arg", f"BASE={BASE}",
            "--build-arg", "PIP_NO_INDEX=1", "--build-arg", f"SOURCE_DATE_EPOCH={EPOCH}", "-t", name, str(context),
        )  # fmt: skip
        return self.say("podman", "image", "inspect", "--format", "{{.Id}}", name)


def codename() -> str:
    """Of the Debian that this machine is."""
    lines = Path("/etc/os-release").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line).get("VERSION_CODENAME", "bookworm")


def scratch() -> Path:
    """A folder with a short name: sockets lie in it."""
    return Path(tempfile.mkdtemp(prefix="rotator-", dir="/var/tmp"))
