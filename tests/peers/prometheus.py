"""A real Prometheus on loopback, which scrapes what a test runs and judges it by the rules that are shipped."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.peers import ports

RULES = Path(__file__).parents[2] / "config" / "prometheus" / "rotator.rules.yaml"
PATIENCE = 20.0
EVERY = "250ms"


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running server."""

    url: str

    def ask(self, query: str) -> list[tuple[dict[str, str], float]]:
        """Every series that the query gives now: (labels, value)."""
        told = self._get(f"/api/v1/query?{urllib.parse.urlencode({'query': query})}")
        return [(one["metric"], float(one["value"][1])) for one in told["result"]]

    def firing(self) -> set[str]:
        """The names of all alerts that fire."""
        return {labels["alertname"] for labels, _ in self.ask('ALERTS{alertstate="firing"}')}

    def trouble(self) -> list[str]:
        """Why targets could not be scraped."""
        return [one["lastError"] for one in self._get("/api/v1/targets")["activeTargets"] if one["lastError"]]

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=PATIENCE) as answer:
            return json.load(answer)["data"]


@contextmanager
def serve(folder: Path, scraped: str) -> Iterator[Prometheus]:
    """Scrape ``scraped`` (host:port) as job "rotator", several times a second; ends with the block."""
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("prometheus is not installed")
    port, config = ports.free(), folder / "prometheus.json"
    config.write_text(
        json.dumps(
            {
                "global": {"scrape_interval": EVERY, "scrape_timeout": EVERY, "evaluation_interval": EVERY},
                "rule_files": [str(RULES)],
                "scrape_configs": [{"job_name": "rotator", "static_configs": [{"targets": [scraped]}]}],
            }
        )
    )
    log = folder / "prometheus.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [
                binary, f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}", "--log.level=warn",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
        )  # fmt: skip
    served = Prometheus(f"http://127.0.0.1:{port}")
    try:
        _wait_ready(served, process, log)
        yield served
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _wait_ready(served: Prometheus, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(f"{served.url}/-/ready", timeout=PATIENCE):
                return
        except OSError:
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.05)
