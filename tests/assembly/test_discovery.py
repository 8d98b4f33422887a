"""How often a folder of grants in a Vault is looked at."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from rotator.assembly import inspection
from rotator.assembly.discovery import Discovery
from tests.contracts.stores import FakeClock


@contextmanager
def empty_vault() -> Iterator[tuple[str, list[str]]]:
    """Its URL, and what it was asked."""
    asked: list[str] = []

    class Answers(BaseHTTPRequestHandler):
        def answer(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.send_response(404)
            body = b'{"errors": []}'
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_LIST = do_POST = do_PUT = answer  # noqa: N815 (as http.server calls them)

        def log_message(self, format: str, *args: object) -> None:
            """It is quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_folder_is_looked_at_every_30_s_though_beats_come_a_little_early(tmp_path: Path) -> None:
    """By default sweeps are 10 s apart and looks 30 s: each third finds that it is time."""
    with empty_vault() as (url, asked):
        config = tmp_path / "rotator.toml"
        config.write_text(
            f'[vault.default]\naddress = "{url}"\nallow_plain_http = true\nauth = {{ token_file = "{tmp_path}/t" }}\n'
            '[discovery.vault]\nprefix = "kv/clients"\nprovider = "omnifund"\nfile = "{grant}/token"\n'
        )
        config.chmod(0o600)
        (tmp_path / "t").write_text("a-token")
        (tmp_path / "t").chmod(0o600)

        async def story() -> list[bool]:
            async def retired(_: str) -> None:
                """Nobody is."""

            clock, looked = FakeClock(), list[bool]()
            found = Discovery(inspection.read(config, {}), clock, lambda _: None, lambda: None, retired)  # type: ignore[arg-type]
            clock.pass_time(timedelta(milliseconds=2))
            for _ in range(7):
                before = len(asked)
                await found.tend({})
                looked.append(len(asked) > before)
                clock.pass_time(timedelta(seconds=9.999))
            return looked

        assert asyncio.run(story()) == [True, False, False, True, False, False, True]
