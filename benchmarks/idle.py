"""Processes at rest, all at the same time: the same neighbours, the same minute.

Ours with one file, ours with everything on (a Vault, the page, the metrics), `bao agent`, and where it is installed
`oidc-agent`, which gets a token when somebody asks and so has nothing to do here.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import aims, stage
from benchmarks.provider import Provider
from tests.peers import openbao, ports

DAY = 86_400
OIDC_AGENT = "oidc-agent"


@dataclass
class Idle:
    """PSS and private memory in MiB, voluntary context switches of all threads per minute, processor seconds a day."""

    pss: float
    private: float
    wakeups: float
    cpu: float


@dataclass
class Found:
    ours: Idle
    everything: Idle
    agent: Idle
    oidc: Idle | None


def measure(provider: Provider, server: openbao.OpenBao, *, settle: float, watch: float) -> Found:
    with ExitStack() as opened:
        agent = opened.enter_context(stage.agent(server))
        daemon = opened.enter_context(stage.fresh(provider))
        whole = opened.enter_context(stage.fresh(provider, _everything(server)))
        (whole.home / "vault-token").write_text(server.token)
        made = [(daemon, daemon.token), (whole, whole.token), (agent, agent.rendered)]
        groups = [[opened.enter_context(stage.running(one, awaited))[0].pid] for one, awaited in made]
        if shutil.which(OIDC_AGENT):
            groups.append(opened.enter_context(_oidc_agent()))
        time.sleep(settle)
        before = [_counts(pids) for pids in groups]
        time.sleep(watch)
        after = [_counts(pids) for pids in groups]
        found = [
            Idle(
                sum(_rollup(pid, "Pss") for pid in pids),
                sum(_rollup(pid, "Private_Clean", "Private_Dirty") for pid in pids),
                (late[0] - early[0]) * 60 / watch,
                (late[1] - early[1]) * DAY / watch,
            )
            for pids, early, late in zip(groups, before, after, strict=True)
        ]
        ours, everything, peer, *others = found
        return Found(ours, everything, peer, others[0] if others else None)


def _everything(server: openbao.OpenBao) -> str:
    """What is added to the configuration; {home} is the daemon's."""
    return f"""
        [grants.billing.targets.vault]
        vault = "{server.mount_kv()}/billing"

        [vault.default]
        address = "{server.url}"
        allow_plain_http = true
        auth = {{{{ token_file = "{{home}}/vault-token" }}}}

        [http]
        address = "127.0.0.1:{ports.free()}"
        """


@contextmanager
def _oidc_agent() -> Iterator[list[int]]:
    """Two processes: one that speaks to its clients and one that would refresh."""
    with tempfile.TemporaryDirectory(prefix="rotator-bench-") as folder:
        process = stage.spawn([OIDC_AGENT, "--console", f"--socket-path={folder}/socket"], Path(folder), {})
        try:
            time.sleep(1)
            yield [process.pid, *_children(process)]
        finally:
            stage.stop(process)


def _children(process: subprocess.Popen[bytes]) -> list[int]:
    """See proc_pid_task(5)."""
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in text.split()]


def _counts(pids: Sequence[int]) -> tuple[int, float]:
    """Voluntary switches (proc_pid_status(5)) and processor seconds (the first figure of schedstat, in nanoseconds);
    a thread that ends between listing and reading counts as none."""
    switches, spent = 0, 0.0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            try:
                status, stat = (task / "status").read_text(), (task / "schedstat").read_text()
            except OSError:
                continue
            switches += int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
            spent += int(stat.split()[0]) / 1e9
    return switches, spent


def _rollup(pid: int, *names: str) -> float:
    """See proc_pid_smaps(5)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.partition(":")[0] in names) / 1024


def rows(found: Found) -> list[tuple[str, str, str]]:
    ours, everything, agent, oidc = found.ours, found.everything, found.agent, found.oidc
    told = [
        ("idle memory, PSS, one file target", f"{ours.pss:.1f} MiB", aims.told("≤ 36 MB", ours.pss <= 36)),
        (
            "… everything on: a Vault, the page, metrics",
            f"{everything.pss:.1f} MiB",
            aims.told("≤ 42 MB", everything.pss <= 42),
        ),
        ("… of `bao agent`", f"{agent.pss:.1f} MiB", "–"),
        ("idle memory, private pages: one file / everything / `bao agent`", _each(found, "private", "MiB"), "–"),
        (
            "idle wake-ups per minute: one file / everything / `bao agent`",
            _each(found, "wakeups", ""),
            aims.told("≤ 6 with one file", ours.wakeups <= 6),
        ),
        ("idle processor seconds a day: one file / everything / `bao agent`", _each(found, "cpu", "s"), "–"),
    ]
    if oidc is not None:
        shown = f"{oidc.pss:.1f} MiB, {oidc.wakeups:.0f} a minute, {oidc.cpu:.0f} s a day"
        told.append((f"`{OIDC_AGENT}`, which waits to be asked: PSS, wake-ups, processor time", shown, "–"))
    return told


def _each(found: Found, what: str, unit: str) -> str:
    digits = 1 if unit == "MiB" else 0
    values = (getattr(one, what) for one in (found.ours, found.everything, found.agent))
    return f"{' / '.join(f'{value:.{digits}f}' for value in values)} {unit}".rstrip()
