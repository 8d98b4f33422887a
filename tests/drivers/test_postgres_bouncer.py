"""Behind PgBouncer in transaction mode, where each transaction may meet another session. Told only where PGBOUNCER
names the program: ``PGBOUNCER=/usr/sbin/pgbouncer make test``."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from tests.contracts.stores import NOW, FakeClock, granted, intent, new
from tests.drivers.test_postgres import opened
from tests.peers import openbao, ports
from tests.peers.postgres import ADMIN, Postgres

BOUNCER = os.environ.get("PGBOUNCER")
DAEMONS, GRANTS = 6, 40

if BOUNCER:

    def test_daemons_share_a_few_sessions(
        database_server: Postgres, tmp_path: Path, figures: Callable[[str], None]
    ) -> None:
        assert BOUNCER is not None
        database, port = database_server.database(), ports.free()
        settings = tmp_path / "bouncer.ini"
        settings.write_text(
            f"[databases]\n{database} = host=127.0.0.1 port={database_server.port} user={ADMIN}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\nunix_socket_dir =\n"
            "pool_mode = transaction\ndefault_pool_size = 2\nlogfile = /dev/null\n"
        )
        tmp_path.chmod(0o755)
        for parent in tmp_path.parents:
            if parent.name.startswith("pytest"):
                parent.chmod(0o755)
        become = ["runuser", "-u", "postgres", "--preserve-environment", "--"] if os.geteuid() == 0 else []
        process = subprocess.Popen([*become, BOUNCER, str(settings)], stdin=subprocess.DEVNULL)
        try:
            openbao.wait(lambda: _answers(port), "PgBouncer")
            asyncio.run(_rotate_together(f"postgresql://{ADMIN}@127.0.0.1:{port}/{database}"))
            sessions = database_server.do(
                f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND pid <> pg_backend_pid()"
            )
            figures(f"PgBouncer, transaction mode: {DAEMONS} daemons rotated over {sessions[0][0]} sessions")
            assert sessions[0][0] <= 2
        finally:
            process.terminate()
            process.wait()


def _answers(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def _rotate_together(url: str) -> None:
    clock = FakeClock()
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(opened(url, clock)) for _ in range(DAEMONS)]
        names = [f"grant_{number:02}" for number in range(GRANTS)]
        for name in names:
            await stores[0].enrol(new(name))

        async def rotate(number: int, name: str) -> None:
            store, owner = stores[number % DAEMONS], f"daemon-{number % DAEMONS}"
            lease, grant = await store.lease(name, owner, clock.moment(), timedelta(seconds=45))
            await store.save(replace(grant, intent=intent(grant, lease.until)), expected=grant.generation, lease=lease,
                             now=NOW)  # fmt: skip
            await store.save(granted(grant), expected=grant.generation, lease=lease, now=NOW)
            await store.release(lease)

        for number in range(5):
            await asyncio.gather(*(rotate(number + index, name) for index, name in enumerate(names)))
            await asyncio.gather(*(store.news(names) for store in stores))
            await asyncio.gather(*(store.fleet(f"daemon-{index}") for index, store in enumerate(stores)))
        assert [one.generation for one in await stores[0].grants()] == [5] * GRANTS
