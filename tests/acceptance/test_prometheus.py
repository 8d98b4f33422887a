"""A real Prometheus scrapes the real daemon through an outage of its provider, and the right alert fires."""

from __future__ import annotations

import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics import parser

from rotator.frontends import metrics
from tests.acceptance import stage as stages
from tests.acceptance.stage import Stage, wait_for
from tests.peers import ports, prometheus
from tests.peers.emulator import ACCOUNT

SECONDS = 5
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with stages.opened(tmp_path, access_seconds=SECONDS) as opened:
        yield opened


def listen(stage: Stage) -> str:
    """Configure the daemon to answer at a free port; returns the address."""
    address = f"127.0.0.1:{ports.free()}"
    stage.configure(head=f'[http]\naddress = "{address}"\n')
    return address


def scrape(address: str, accept: str = "") -> str:
    asked = urllib.request.Request(f"http://{address}/metrics", headers={"Accept": accept} if accept else {})
    with urllib.request.urlopen(asked, timeout=stages.PATIENCE) as answer:
        text: str = answer.read().decode()
        return text


def test_an_outage_is_seen_and_told_by_the_alert_that_is_meant_for_it(stage: Stage, tmp_path: Path) -> None:
    address = listen(stage)
    with stage.daemon(), prometheus.serve(tmp_path, address) as server:
        fresh = 'rotator_grant_state{grant="billing", state="fresh"} == 1'
        wait_for(lambda: server.ask(fresh), f"a scraped grant; {server.trouble()}")
        rotated = 'rotator_refresh_total{grant="billing", outcome="granted"} >= 2'
        wait_for(lambda: server.ask(rotated), "a rotation that was counted")
        assert server.trouble() == []
        assert "RotatorTokenExpired" not in server.firing()

        stage.provider.faults.outage = True
        wait_for(lambda: "RotatorTokenExpired" in server.firing(), "the alert")
        ((labels, _),) = server.ask('ALERTS{alertname="RotatorTokenExpired", alertstate="firing"}')
        assert (labels["grant"], labels["severity"]) == ("billing", "critical")
        # Nobody is told to log in for an outage, and nobody's daemon is gone.
        assert not server.firing() & {"RotatorGrantLatched", "RotatorReauthRequired", "RotatorAbsent"}
        (failed,) = server.ask('sum(rotator_refresh_total{outcome!="granted"})')
        assert failed[1] > 0

        stage.provider.faults.outage = False
        stage.rotator("rotate", "billing", "--force")
        wait_for(lambda: "RotatorTokenExpired" not in server.firing(), "the end of the alert")


def test_the_page_of_a_real_daemon_is_whole_and_holds_no_secret(stage: Stage) -> None:
    address = listen(stage)
    with stage.daemon():
        wait_for(lambda: 'outcome="granted"} 2' in scrape(address), "two rotations")
        text, older = scrape(address, OPENMETRICS), scrape(address)
        token = stage.token.read_text()
    found = {one.name for one in parser.text_string_to_metric_families(text)}
    # Nobody stands in the register, which is then not told.
    told = [one for one in metrics.FAMILIES if one.name != "rotator_register_grants"]
    assert found == {one.name.removesuffix("_total") for one in told}
    for measured in ("rotator_refresh_duration_seconds", "rotator_save_duration_seconds",
                     "rotator_publish_duration_seconds", "rotator_answer_to_readable_seconds"):  # fmt: skip
        counts = [line for line in text.splitlines() if line.startswith(f"{measured}_count")]
        assert counts and all(float(line.rpartition(" ")[2]) >= 1 for line in counts), measured
    for secret in (token, ACCOUNT.password, ACCOUNT.client_secret, ACCOUNT.client_id, ACCOUNT.username,
                   stage.provider.token_url, str(stage.folder)):  # fmt: skip
        assert secret not in text
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (package prometheus) is not installed")
    done = subprocess.run([promtool, "check", "metrics"], input=older, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_daemon_without_http_loads_nothing_of_it(stage: Stage) -> None:
    """Neither the page nor what it counts with: the bus has one listener, the log."""
    program = (
        "import sys, asyncio\nfrom pathlib import Path\nimport os\nfrom rotator import assembly\n"
        f"plan = assembly.read(Path({str(stage.config)!r}), os.environ)\n"
        "async def build():\n    return assembly.build(plan)\n"
        "asyncio.run(build())\n"
        "names = ('rotator.frontends.metrics', 'rotator.frontends.http', 'starlette', 'uvicorn')\n"
        "print([name for name in names if name in sys.modules])\n"
    )
    done = subprocess.run(
        [*stage.command("run", config=False)[:1], "-c", program], env=stage.environ(), capture_output=True, text=True,
        timeout=stages.PATIENCE, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
