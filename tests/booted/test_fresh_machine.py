"""The README's transcript: from a Debian that was never used to a consumer that has its token, by the operator's own
commands. `make docs` writes it; here it is held to be true, times masked."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tests.booted import machine as machines
from tests.booted.conftest import CONFIG, HOUSE, Provider
from tests.booted.machine import Machine
from tests.peers.emulator import ACCOUNT

README = HOUSE / "README.md"
BEGIN, END = "<!-- transcript: written by `make docs` -->\n", "<!-- end of transcript -->"
CONSUMER = """\
[Unit]
Requires=rotator.service
After=rotator.service
[Service]
Type=oneshot
DynamicUser=yes
SupplementaryGroups=token-readers
ExecStart=/bin/sh -c 'echo "a token of $(wc -c < /run/rotator/billing/token) characters"'
[Install]
WantedBy=multi-user.target
"""
# What differs from run to run.
MASKED = re.compile(r"\b\d+(?:ms|s|m|h)\b|rotator_[\d.]+_\w+|rotator [\d.]+|generation \d+")


def transcript(machine: Machine, package: str) -> str:
    lines: list[str] = []

    def type_in(command: str, keep: str = ".*") -> None:
        done = machine.run("sh", "-c", f"cd /srv; {command}")
        lines.append(f"# {command}")
        lines.extend(line for line in (done.stdout + done.stderr).splitlines() if re.search(keep, line))

    type_in(f"apt install -y ./{package} 2>/dev/null", "^Setting up rotator")
    Provider(machine).start()
    machine.write("/etc/rotator/rotator.toml", CONFIG)
    type_in("cat /etc/rotator/rotator.toml")
    for name, value in (("client_secret", ACCOUNT.client_secret), ("password", ACCOUNT.password)):
        machine.write(f"/etc/rotator/credentials/{name}", value, 0o600)
    type_in("ls /etc/rotator/credentials")
    machine.write("/etc/systemd/system/app.service", CONSUMER)
    type_in("grep -E 'Requires|After|Groups|ExecStart' /etc/systemd/system/app.service")
    type_in("systemctl enable --now rotator app", "^$")
    type_in("journalctl -o cat -u rotator -u app", r"^(billing:|a token of|Started|Starting)")
    type_in("rotator status")
    return "\n".join(lines) + "\n"


def masked(text: str) -> str:
    text = re.sub(r"20\d\d-\d\d-\d\dT[\d:.]+(Z|\+00:00)", "TIME", MASKED.sub("MASKED", text))
    return re.sub(r" +", " ", text)


def test_the_transcript_of_the_readme_is_true(debian: Path, package: Path, tmp_path: Path) -> None:
    with machines.booted(tmp_path, debian, {f"/srv/{package.name}": package}) as machine:
        told = transcript(machine, package.name)
        journal = [entry["MESSAGE"] for entry in machine.journal()]
        steps = (r"billing: generation 1 published", r"Started rotator", r"Starting app", r"a token of \d+")
        order = [next(n for n, line in enumerate(journal) if re.match(step, line)) for step in steps]
        assert order == sorted(order), "the consumer starts after its token is there"
    block = f"```console\n{told}```\n"
    readme = README.read_text()
    before, _, rest = readme.partition(BEGIN)
    written, _, after = rest.partition(END)
    assert written or BEGIN in readme, "the README has no place for it"
    if os.environ.get("DOCS") == "write":
        README.write_text(f"{before}{BEGIN}{block}{END}{after}")
        return
    assert masked(block) == masked(written), "write it anew: make docs"
