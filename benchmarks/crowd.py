"""``python -m benchmarks.crowd CONFIG PORT UP_TO``: the daemon of CONFIG with a metrics page over ten thousand grants.

They are made up, so that what a scrape does to a rotation is measured and not what ten thousand rotations do to it.
Everything else is the real thing: the loop, the store, the server, the page.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rotator import assembly
from rotator.core import events
from rotator.core.health import GrantHealth, Health, ProviderHealth, State, TargetHealth
from rotator.drivers import clock
from rotator.frontends.http.application import Sources as Pages
from rotator.frontends.http.history import History
from rotator.frontends.http.server import Place, Server
from rotator.frontends.metrics import Metrics, Sources

GRANTS = 10_000


def snapshot() -> Health:
    """As many fresh grants, each published to a file."""
    now = datetime.now(UTC)
    return Health(
        now,
        tuple(
            GrantHealth(
                name=f"grant_{number:05}", provider="omnifund", state=State.FRESH, reason="", generation=4,
                issued_at=now, expires_at=now + timedelta(hours=1), due_at=now + timedelta(minutes=45),
                passwords_left=3, targets=(TargetHealth("app", f"file:/run/rotator/{number}/token", 4),),
                published=True, refreshed_at=now, refresh_ends_at=now + timedelta(days=14),
            )
            for number in range(GRANTS)
        ),
        providers=(ProviderHealth("omnifund", 0, 0, False),),
    )  # fmt: skip


def counting(per_grant_up_to: int, shown: Health) -> Metrics:
    """What counts, after each of them was rotated and published once."""
    counts = Metrics("bench", clock.SystemClock(), Sources(), per_grant_up_to=per_grant_up_to)
    for grant in shown.grants:
        counts(
            events.Rotated(
                at=shown.at, grant=grant.name, provider=grant.provider, kind="refresh_token", generation=4,
                expires_at=shown.at, due_at=shown.at, took=timedelta(milliseconds=80),
                save_took=timedelta(milliseconds=2),
            )
        )  # fmt: skip
        counts(
            events.Delivered(
                at=shown.at, grant=grant.name, target="app", generation=4, found="missing", kind="file",
                took=timedelta(milliseconds=2), since_answer=timedelta(milliseconds=4),
            )
        )  # fmt: skip
    return counts


async def serve(config: Path, port: int, per_grant_up_to: int) -> None:
    built = assembly.build(assembly.read(config, os.environ))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, built.daemon.stop)
    shown = snapshot()
    pages = Pages(
        version="bench", snapshot=lambda: shown, history=History(shown.at), token=None,
        metrics=counting(per_grant_up_to, shown).expose,
        on_defect=lambda doing, error: print(doing, error, file=sys.stderr),
    )  # fmt: skip
    await built.daemon.serve((*built.faces, Server(Place("127.0.0.1", port), pages)))


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
