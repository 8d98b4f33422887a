"""What a container on this machine does not enforce, shown in a kernel of its own: user-mode Linux, with systemd as its
process 1 and control groups of version 2. Slow, hence part of the whole only."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.booted.conftest import CONFIG, PORT
from tests.peers.emulator import ACCOUNT

pytestmark = pytest.mark.whole

PATIENCE = 600.0
# In place of the daemon, under its very unit: what the unit allows is asked, not what the daemon does.
GREEDY = """\
[Service]
Type=exec
Restart=no
WatchdogSec=0
ExecStart=
ExecStart=/usr/bin/python3 -I /srv/{name}.py
"""
MEMORY = 'held = b"x" * (400 << 20)\nprint("MEMORY HELD", flush=True)\n'
TASKS = """\
import threading, time
started = 0
try:
    for _ in range(200):
        threading.Thread(target=time.sleep, args=(5,), daemon=True).start()
        started += 1
except RuntimeError:
    pass
print("TASKS", started, flush=True)
"""
NETWORK = """\
import socket
for host in ("127.0.0.1", "10.9.9.9"):
    try:
        socket.create_connection((host, {port}), 5).close()
        print("NETWORK", host, "reached", flush=True)
    except OSError as error:
        print("NETWORK", host, error.strerror, flush=True)
""".replace("{port}", str(PORT))
SCRIPT = f"""\
exec > /dev/console 2>&1
echo
ip link set lo up; ip addr add 10.9.9.9/32 dev lo
systemd-run --quiet --unit=provider /usr/bin/rotator emulate --port {PORT}
until curl -sf http://127.0.0.1:{PORT}/_lab/faults >/dev/null; do sleep 1; done
systemctl start rotator
echo "ASKED token $(wc -c < /run/rotator/billing/token)"
cd /sys/fs/cgroup/system.slice/rotator.service; echo "ASKED high $(cat memory.peak || cat memory.current)"; cd /
systemctl stop rotator
ask() {{
    mkdir -p "/run/systemd/system/$1.service.d"
    cp "/srv/$2.conf" "/run/systemd/system/$1.service.d/90-test.conf"
    systemctl daemon-reload
    systemctl start "$1"
    while [ "$(systemctl show -P ActiveState "$1")" = active ]; do sleep 1; done
    echo "ASKED $2 $(systemctl show -P Result "$1")"
    journalctl -o cat -u "$1" -n 5 | grep -E "^(MEMORY|TASKS|NETWORK)" || true
}}
ask rotator memory
ask rotator tasks
cp /etc/rotator/rotator.toml /etc/rotator/rotator-vault.toml
ask rotator-vault network
echo "ASKED end"
systemctl poweroff --force
"""
UNIT = """\
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/sh /srv/limits.sh
[Install]
WantedBy=multi-user.target
"""


def test_limits_of_memory_tasks_and_network_hold(
    debian: Path, package: Path, tmp_path: Path, figures: Callable[[str], None]
) -> None:
    kernel = shutil.which("linux.uml")
    if kernel is None:
        pytest.skip("user-mode-linux is not on this machine")
    image = prepare(debian, package, tmp_path)
    told = boot(kernel, image, tmp_path)
    asked = dict(re.findall(r"ASKED (\w+) (\S+)", told))
    assert int(asked["token"]) > 40, told
    figures(f"user-mode Linux: the daemon's control group held {int(asked['high']) / 1048576:.0f} MiB of 256")
    assert asked["memory"] == "oom-kill" and "MEMORY HELD" not in told, told
    started = re.search(r"TASKS (\d+)", told)
    assert started is not None and 0 < int(started[1]) < 64, told
    assert "NETWORK 127.0.0.1 reached" in told, told
    refused = re.search(r"NETWORK 10\.9\.9\.9 (.+)", told)
    assert refused is not None and "reached" not in refused[1], told


def prepare(debian: Path, package: Path, folder: Path) -> Path:
    """A disk with the package installed and the script that asks."""
    root, image = folder / "root", folder / "disk.img"
    subprocess.run(["cp", "-a", debian, root], check=True)
    shutil.copy(package, root / "srv" / "rotator.deb")
    subprocess.run(["chroot", root, "dpkg", "-i", "/srv/rotator.deb"], check=True, capture_output=True)
    files = {
        "srv/limits.sh": SCRIPT, "srv/memory.py": MEMORY, "srv/tasks.py": TASKS, "srv/network.py": NETWORK,
        "srv/memory.conf": GREEDY.format(name="memory"), "srv/tasks.conf": GREEDY.format(name="tasks"),
        "srv/network.conf": GREEDY.format(name="network") + "IPAddressDeny=any\nIPAddressAllow=localhost\n",
        "etc/systemd/system/limits.service": UNIT, "etc/rotator/rotator.toml": CONFIG,
        "etc/rotator/credentials/client_secret": ACCOUNT.client_secret,
        "etc/rotator/credentials/password": ACCOUNT.password,
    }  # fmt: skip
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    wants = root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (wants / "limits.service").symlink_to("/etc/systemd/system/limits.service")
    subprocess.run(["mke2fs", "-q", "-F", "-d", root, image, "900M"], check=True, capture_output=True)
    shutil.rmtree(root)
    return image


def boot(kernel: str, image: Path, folder: Path) -> str:
    """What the machine writes to its console until it is off."""
    command = [
        kernel, "mem=700M", f"ubd0={image}", "root=/dev/ubda", "rw", "init=/lib/systemd/systemd",
        "systemd.unified_cgroup_hierarchy=1", "con=null", "con0=fd:0,fd:1", "quiet",
    ]  # fmt: skip
    log = folder / "console"
    with log.open("wb") as console:
        machine = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True,
            env={**os.environ, "TMPDIR": str(folder)},
        )  # fmt: skip
    try:
        machine.wait(PATIENCE)
    finally:
        if machine.poll() is None:
            os.killpg(machine.pid, signal.SIGKILL)
            machine.wait()
    return log.read_text(errors="replace")
