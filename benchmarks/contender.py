"""One contender in a process of its own: ``python -m benchmarks.contender NAME …`` prints one line of JSON.

Each sends token requests and reads the answers; only ``rotator`` also makes every intent and every answer durable and
publishes every token.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from benchmarks import rotations

FORM = {
    "grant_type": "refresh_token", "client_id": "1_3bcbxd9e24g0gk4swg0kwgcwg4o8k8g4g888kwc44gcc0gwwk4",
    "client_secret": "a client_secret of some length", "refresh_token": f"{0:086d}",
}  # fmt: skip
TMPFS = Path("/dev/shm")


def measured(count: int, seconds: float, cpu: float, **more: object) -> dict[str, object]:
    return {"per_second": count / seconds, "cpu_us": cpu / count * 1e6, "seconds": seconds, **more}


async def _shared(count: int, in_flight: int, one: Callable[[], Awaitable[object]]) -> dict[str, object]:
    """``count`` requests by ``in_flight`` workers, after a fifth of them to warm up."""

    async def run(left: int) -> None:
        async def worker() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await one()

        await asyncio.gather(*(worker() for _ in range(in_flight)))

    await run(max(1, count // 5))
    since, cpu = time.perf_counter(), time.process_time()
    await run(count)
    return measured(count, time.perf_counter() - since, time.process_time() - cpu)


async def rotator(asked: argparse.Namespace) -> dict[str, object]:
    from benchmarks import herd

    place = TMPFS if TMPFS.is_dir() else Path(tempfile.gettempdir())
    with (
        tempfile.TemporaryDirectory(prefix="rotator-bench-") as state,
        tempfile.TemporaryDirectory(prefix="rotator-bench-", dir=place) as run,
        open(os.devnull, "w") as log,
    ):
        shape = herd.Shape(
            url=asked.url, count=asked.count, in_flight=asked.in_flight, state=Path(state), run=Path(run),
            ca_file=asked.ca,
        )  # fmt: skip
        async with herd.Herd(shape, log) as served:
            await served.round()
            if asked.profile:
                import cProfile

                with cProfile.Profile() as profile:
                    found = [await served.round()]
                profile.dump_stats(asked.profile)
            else:
                found = [await served.round() for _ in range(asked.rounds)]
    best = sorted(found, key=lambda one: one.cpu)[len(found) // 2]
    return measured(
        asked.count, best.seconds, best.cpu, stall_ms=min(one.stall for one in found) * 1e3,
        stall_cpu_ms=min(one.stall_cpu for one in found) * 1e3,
        slowest=max(one.seconds for one in found),
    )  # fmt: skip


async def aiohttp_post(asked: argparse.Namespace) -> dict[str, object]:
    import aiohttp

    tls = _tls(asked) if asked.ca else False
    kept = aiohttp.TCPConnector(limit=0, ssl=tls, force_close=asked.cold)
    async with aiohttp.ClientSession(connector=kept) as session:

        async def one() -> object:
            async with session.post(asked.url, data=FORM) as answer:
                return await answer.json()

        return await _shared(asked.count, asked.in_flight, one)


async def authlib(asked: argparse.Namespace) -> dict[str, object]:
    from authlib.integrations.httpx_client import AsyncOAuth2Client

    verify = _tls(asked) if asked.ca else True
    async with AsyncOAuth2Client(FORM["client_id"], FORM["client_secret"], verify=verify, timeout=60) as client:
        return await _shared(
            asked.count, asked.in_flight, lambda: client.refresh_token(asked.url, refresh_token=FORM["refresh_token"])
        )


async def requests_oauthlib(asked: argparse.Namespace) -> dict[str, object]:
    """In threads, each with a session of its own."""
    import threading
    from concurrent.futures import ThreadPoolExecutor

    os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"
    from requests_oauthlib import OAuth2Session

    own = threading.local()

    def one() -> None:
        if not hasattr(own, "session"):
            own.session = OAuth2Session(FORM["client_id"], token={"refresh_token": FORM["refresh_token"]})
            own.session.verify = str(asked.ca) if asked.ca else True
        own.session.refresh_token(asked.url, client_id=FORM["client_id"], client_secret=FORM["client_secret"])

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(asked.in_flight) as pool:
        return await _shared(asked.count, asked.in_flight, lambda: loop.run_in_executor(pool, one))


async def socket(asked: argparse.Namespace) -> dict[str, object]:
    """asyncio streams and nothing else; ``--cold`` opens a connection for each request."""
    parts, body = urlsplit(asked.url), urlencode(FORM).encode()
    tls = _tls(asked) if asked.ca else None
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        f"Connection: {'close' if asked.cold else 'keep-alive'}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    payload, idle = head.encode() + body, []

    async def one() -> object:
        reader, writer = idle.pop() if idle else await asyncio.open_connection(parts.hostname, parts.port, ssl=tls)
        writer.write(payload)
        told = await reader.readuntil(b"\r\n\r\n")
        length = int(told.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
        answer = json.loads(await reader.readexactly(length))
        if asked.cold:
            writer.transport.abort()
        else:
            idle.append((reader, writer))
        return answer

    return await _shared(asked.count, asked.in_flight, one)


def _tls(asked: argparse.Namespace) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=asked.ca)


CONTENDERS = {
    "rotator": rotator, "aiohttp": aiohttp_post, "authlib": authlib, "requests-oauthlib": requests_oauthlib,
    "socket": socket,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("--url", required=True)
    parser.add_argument("--ca", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--in-flight", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--cores", choices=("one", "all"), default="all")
    asked = parser.parse_args()
    if asked.cores == "one":
        os.sched_setaffinity(0, {rotations.core()})
    json.dump(asyncio.run(CONTENDERS[asked.name](asked)), sys.stdout)
    print()


if __name__ == "__main__":
    main()
