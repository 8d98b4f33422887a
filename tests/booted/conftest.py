"""One machine for all tests of a session, with the Debian package of this checkout; one provider inside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.stage import wait_for
from tests.booted import machine as machines
from tests.booted.machine import PATIENCE, Machine
from tests.peers.emulator import ACCOUNT

HOUSE = Path(__file__).parents[2]
# The release whose Python the package is built for, and what any server of it has.
CODENAME = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line).get(
    "VERSION_CODENAME", "bookworm"
)
SERVER = ("systemd", "systemd-sysv", "dbus", "python3", "ca-certificates", "curl", "iproute2")
PORT = 8765
AT = f"http://127.0.0.1:{PORT}"
CONFIG = f"""\
providers.omnifund.token_url = "{AT}/oauth/v2/token"
grants.billing = {{ provider = "omnifund", client_id = "{ACCOUNT.client_id}", client_secret = {{ credential = \
"client_secret" }}, username = "{ACCOUNT.username}", password = {{ credential = "password" }}, targets = {{ app = {{ \
file = "billing/token", group = "token-readers" }} }} }}
""".replace("\\\n", "")
TOKEN = "/run/rotator/billing/token"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "whole: told only with BOOTED=all")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("BOOTED") == "all":
        return
    # Left out, not skipped: on a CI machine a skip says that something is absent.
    left_out = [item for item in items if item.get_closest_marker("whole")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def package() -> Path:
    """The newest that `make deb` has built."""
    found = sorted((HOUSE / "dist").glob("rotator_*.deb"), key=lambda path: path.stat().st_mtime)
    if not found:
        pytest.skip("there is no package; make deb builds it")
    return found[-1]


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a Debian that was never used, with what a server has."""
    if reason := machines.why_not():
        pytest.skip(reason)
    if shutil.which("mmdebstrap") is None:
        pytest.skip("mmdebstrap is not on this machine")
    root = tmp_path_factory.mktemp("debian") / "root"
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(SERVER)}", CODENAME, str(root)],
        check=True, timeout=600,
    )  # fmt: skip
    return root


@pytest.fixture(scope="session")
def machine(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if reason := machines.why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("machine")
    with machines.booted(folder, Path("/"), {"/srv/rotator.deb": package}) as booted:
        booted.run("apt-get", "install", "-y", "-q", "/srv/rotator.deb")
        yield booted


@dataclass
class Provider:
    """The emulated OmniFund in the machine, as a unit of its own."""

    machine: Machine

    def start(self) -> None:
        self.machine.run(
            "systemd-run", "--quiet", "--collect", "--unit=provider", "--service-type=exec", "/usr/bin/rotator",
            "emulate", "--port", str(PORT),
        )  # fmt: skip
        wait_for(lambda: self.machine.succeeds("curl", "-sf", f"{AT}/_lab/faults"), "the provider", PATIENCE)

    def stop(self) -> None:
        self.machine.run("systemctl", "stop", "provider", check=False)

    def faults(self, **switches: object) -> None:
        self.machine.run("curl", "-sf", "-X", "POST", f"{AT}/_lab/faults", "--json", json.dumps(switches))

    def entries(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.machine.say("curl", "-sf", f"{AT}/_lab/log"))["requests"]
        return found

    def count(self, kind: str) -> int:
        return sum(entry["kind"] == kind for entry in self.entries())


@dataclass
class Service:
    """rotator.service in the machine, as freshly installed and configured."""

    machine: Machine
    provider: Provider

    def start(self) -> None:
        self.machine.run("systemctl", "start", "rotator")

    def credential(self, name: str, value: str) -> None:
        self.machine.write(f"/etc/rotator/credentials/{name}", value, 0o600)

    def configure(self, text: str) -> None:
        self.machine.write("/etc/rotator/rotator.toml", text)

    def health(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.machine.run("rotator", "status", "--json", check=False).stdout)
        return found

    def generation(self) -> int:
        return int(self.health()["grants"]["billing"]["generation"])

    @property
    def token(self) -> str:
        return self.machine.read(TOKEN)

    def main_pid(self) -> str:
        return self.machine.unit("rotator", "MainPID")["MainPID"]


@pytest.fixture
def service(machine: Machine) -> Iterator[Service]:
    provider = Provider(machine)
    provider.start()
    its = Service(machine, provider)
    its.configure(CONFIG)
    its.credential("client_secret", ACCOUNT.client_secret)
    its.credential("password", ACCOUNT.password)
    yield its
    machine.run("systemctl", "stop", "rotator", "app", "app-token.path", check=False)
    machine.run("systemctl", "kill", "-s", "CONT", "provider", check=False)
    provider.stop()
    machine.run(
        "sh", "-c",
        "systemctl reset-failed; rm -rf /var/lib/rotator /run/rotator /etc/rotator/credentials*/* "
        "/run/systemd/system/*.d /etc/systemd/system/app*; systemctl daemon-reload; "
        "journalctl -q --rotate --vacuum-time=1ms",
    )  # fmt: skip


@pytest.fixture
def until(machine: Machine) -> Callable[[Callable[[], object], str], None]:
    return lambda look, what: wait_for(look, what, PATIENCE)
