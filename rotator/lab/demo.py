"""`rotator demo`: the real daemon against the emulated provider, and a reader that never stops reading.

Three processes: this one serves the provider and draws; the daemon is `rotator run` with a configuration and a
state in a temporary folder; the reader uses the token file and counts what the provider says to it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from rotator.core.errors import RotatorError, Unavailable
from rotator.drivers.clock import SystemClock, boottime
from rotator.lab import emulator

Ask = Callable[[Path], dict[str, Any]]
Update = Callable[["Scene", list[str]], None]

CONTROL = "state/state/control"
TICK = timedelta(milliseconds=250)
STARTUP = timedelta(seconds=20)
BAR = 24

CONFIG = """\
[providers.demo]
token_url = "{url}/oauth/v2/token"
login_url = "{url}/api/login"
reuse = "harmless"

[grants.billing]
description = "read by the reader below"
provider = "demo"
client_id = "{client_id}"
client_secret = {{ file = "{folder}/client_secret" }}
username = "{username}"
password = {{ file = "{folder}/password" }}

[grants.billing.targets.app]
file = "{folder}/run/billing/token"

[grants.reports]
description = "the same client, published as JSON and as a header for curl"
provider = "demo"
client_id = "{client_id}"
client_secret = {{ file = "{folder}/client_secret" }}
username = "{username}"
password = {{ file = "{folder}/password" }}

[grants.reports.targets.json]
file = "{folder}/run/reports/token.json"
format = "json"

[grants.reports.targets.curl]
file = "{folder}/run/reports/header"
format = "header"
"""


@dataclass(slots=True)
class Scene:
    """What is shown: the daemon's own snapshot, the reader's counts, and the rotations seen so far."""

    folder: Path
    url: str
    until: timedelta
    ask: Ask
    grants: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    rotations: dict[str, int] = field(default_factory=dict)
    problem: str = ""

    @property
    def token_file(self) -> Path:
        return self.folder / "run/billing/token"

    def learn(self, document: dict[str, Any]) -> list[str]:
        """Take a snapshot in; returns the grants that rotated since the last."""
        rotated = []
        for name, grant in document["grants"].items():
            before = self.grants.get(name, {}).get("generation", 0)
            if before and grant["generation"] > before:
                self.rotations[name] = self.rotations.get(name, 0) + grant["generation"] - before
                rotated.append(name)
        self.grants = document["grants"]
        return rotated


def show(*, span: timedelta, access_ttl: timedelta, ask: Ask) -> int:
    """Run the demo and return 0 only if tokens rotated and the reader never met a missing or invalid one.

    ``ask`` fetches the daemon's snapshot from the control socket at a path."""
    return asyncio.run(_show(span, access_ttl, ask))


async def _show(span: timedelta, access_ttl: timedelta, ask: Ask) -> int:
    folder = Path(tempfile.mkdtemp(prefix="rotator-demo-"))
    clock = SystemClock()
    serving: asyncio.Task[None] | None = None
    try:
        provider, account = emulator.account(access_ttl=access_ttl)
        ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(emulator.serve(provider, on_ready=ready.set_result))
        url = f"http://127.0.0.1:{await ready}"
        _furnish(folder, url, account)
        scene = Scene(folder, url, boottime() + span, ask)
        print(f"provider  {url}, access tokens live {access_ttl.total_seconds():g} s")  # noqa: T201
        print(f"token     {scene.token_file}")  # noqa: T201
        print(f"config    {folder / 'rotator.toml'}")  # noqa: T201
        await _play(scene, clock)
        return _summary(scene)
    finally:
        clock.stop()
        if serving is not None:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        shutil.rmtree(folder, ignore_errors=True)


def _furnish(folder: Path, url: str, account: emulator.Account) -> None:
    config = CONFIG.format(url=url, folder=folder, client_id=account.client_id, username=account.username)
    (folder / "rotator.toml").write_text(config)
    for name, value in (("client_secret", account.client_secret), ("password", account.password)):
        path = folder / name
        path.touch(mode=0o600)
        path.write_text(value)
    for name in ("run/billing", "run/reports", "state"):
        (folder / name).mkdir(parents=True)


async def _play(scene: Scene, clock: SystemClock) -> None:
    words = ("run", "--config", str(scene.folder / "rotator.toml"), "--log-level", "error")
    daemon = await _spawn("-m", "rotator", *words, environ={"STATE_DIRECTORY": str(scene.folder / "state")})
    reader: asyncio.subprocess.Process | None = None
    counting: asyncio.Task[None] | None = None
    try:
        await _wait_published(scene, clock, daemon)
        reader = await _spawn("-m", "rotator.lab.reader", f"{scene.url}/api/login", str(scene.token_file), pipes=True)
        counting = asyncio.create_task(_count(scene, reader))
        await _watch(scene, clock, daemon)
    finally:
        if reader is not None and reader.stdin is not None:
            reader.stdin.close()
            await reader.wait()
        if counting is not None:
            await counting
        if daemon.returncode is None:
            daemon.send_signal(signal.SIGTERM)
            await daemon.wait()


async def _spawn(*words: str, environ: dict[str, str] | None = None, pipes: bool = False) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE if pipes else None
    # What is configured by the environment is another daemon's.
    ours = {name: value for name, value in os.environ.items() if not name.startswith("ROTATOR_")}
    return await asyncio.create_subprocess_exec(
        sys.executable, *words, env=ours | (environ or {}), stdin=pipe, stdout=pipe,
        # Ctrl-C is for this process, which then ends the others in order.
        start_new_session=True,
    )  # fmt: skip


async def _count(scene: Scene, reader: asyncio.subprocess.Process) -> None:
    assert reader.stdout is not None  # noqa: S101 (spawned with a pipe)
    async for line in reader.stdout:
        scene.counts = json.loads(line)


async def _wait_published(scene: Scene, clock: SystemClock, daemon: asyncio.subprocess.Process) -> None:
    """Until the token stands and the daemon answers: either may come first."""
    until = boottime() + STARTUP
    while not (scene.token_file.exists() and await _answers(scene)):
        if daemon.returncode is not None or boottime() > until:
            raise Unavailable("the demo's daemon did not come up", mend="run it with `rotator run` to see why")
        await clock.wait_until(clock.now() + TICK)
    scene.until += boottime() - (until - STARTUP)


async def _answers(scene: Scene) -> bool:
    try:
        scene.learn(await asyncio.to_thread(scene.ask, scene.folder / CONTROL))
    except RotatorError:
        return False
    return True


async def _watch(scene: Scene, clock: SystemClock, daemon: asyncio.subprocess.Process) -> None:
    with _live() if sys.stdout.isatty() else nullcontext(_say) as update:
        while boottime() < scene.until and daemon.returncode is None:
            rotated: list[str] = []
            try:
                rotated = scene.learn(await asyncio.to_thread(scene.ask, scene.folder / CONTROL))
            except RotatorError as error:
                scene.problem = error.what
            update(scene, rotated)
            await clock.wait_until(clock.now() + TICK)
    if daemon.returncode is not None:
        scene.problem = f"the daemon ended with exit code {daemon.returncode}"


# --- what is shown ----------------------------------------------------------------------------------------------


def bar(grant: dict[str, Any], width: int = BAR) -> str:
    """What is left of a token's life, as a bar."""
    left, whole = grant["expires_in"] or 0.0, grant["lifetime"] or 1.0
    full = round(width * min(1.0, left / whole))
    return "█" * full + "·" * (width - full)


def _line(scene: Scene, name: str) -> str:
    grant = scene.grants[name]
    left = grant["expires_in"] or 0.0
    return (
        f"{name:<8} {bar(grant)} {left:5.1f} s left  generation {grant['generation']:<3} "
        f"rotations {scene.rotations.get(name, 0):<3} {grant['state']}"
    )


def _read_line(scene: Scene) -> str:
    counts = scene.counts or {"valid": 0, "invalid": 0, "missing": 0}
    return f"reader   valid {counts['valid']}  invalid {counts['invalid']}  missing {counts['missing']}"


def _say(scene: Scene, rotated: list[str]) -> None:
    """Away from a terminal: one line for each rotation."""
    for name in rotated:
        print(f"rotated  {_line(scene, name)}  | {_read_line(scene)}", flush=True)  # noqa: T201


@contextmanager
def _live() -> Iterator[Update]:
    from rich.live import Live
    from rich.text import Text

    with Live(Text(""), refresh_per_second=8) as live:

        def update(scene: Scene, rotated: list[str]) -> None:
            lines = [_line(scene, name) for name in sorted(scene.grants)]
            left = max(0.0, (scene.until - boottime()).total_seconds())
            live.update(Text("\n".join([*lines, _read_line(scene), f"         {left:.0f} s to go"])))

        yield update


def _summary(scene: Scene) -> int:
    counts = {"valid": 0, "invalid": 0, "missing": 0, "unanswered": 0} | scene.counts
    total = sum(scene.rotations.values())
    print(  # noqa: T201
        f"summary   {total} rotations; the reader presented the token {counts['valid'] + counts['invalid']} times: "
        f"{counts['valid']} valid, {counts['invalid']} invalid, {counts['missing']} missing"
    )
    if scene.problem:
        print(f"problem   {scene.problem}")  # noqa: T201
    good = counts["valid"] > 0 and counts["invalid"] == counts["missing"] == 0 and not scene.problem
    if good and not total:
        print("result    no rotation yet: let it run for longer, by --for")  # noqa: T201
        return 1
    print("result    the reader never saw an invalid token" if good else "result    NOT as promised")  # noqa: T201
    return 0 if good else 1
