"""What is told about the metrics is what there is: docs/metrics.md, the dashboard, the rules, the runbook."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rotator.frontends import metrics
from rotator.frontends.metrics import catalogue, grants

yaml = pytest.importorskip("yaml")

HOUSE = Path(__file__).parents[2]
PAGE = HOUSE / "docs" / "metrics.md"
RUNBOOK = HOUSE / "docs" / "runbook.md"
BOARD = HOUSE / "config" / "grafana" / "rotator.json"
FOLDER = HOUSE / "config" / "prometheus"
RULES = FOLDER / "rotator.rules.yaml"
CASES = FOLDER / "rotator.test.yaml"
WRITES = os.environ.get("DOCS") == "write"

HEAD = """\
# Metrics

`/metrics` of the HTTP server (`[http] address`) speaks OpenMetrics 1.0 or the older text of Prometheus, as the scraper
asks. This page is written by `make docs` from the code.

```yaml
scrape_configs:
  - job_name: rotator
    static_configs: [{{targets: ["localhost:9465"]}}]
rule_files: [rotator.rules.yaml]          # config/prometheus; runbook.md tells what to do
```

`config/grafana/rotator.json` is a dashboard. In Kubernetes: `config/kubernetes/monitoring`.

- **Points in time, not “seconds left”**: `rotator_token_expiration_timestamp_seconds - time()` is exact when asked.
- **Words are those of `rotator status` and of the log.** States: {states}. Outcomes: {outcomes}.
- **Everything begins at 0**, so that a rate sees the first event. Vaults appear with their first use.
- **Labels** hold names of the configuration and words of this page; never a secret, a hash, a path or a URL.
- **Histograms** have no exemplars. Counters begin anew with the process.

## How many series

With T targets a grant has {plain} + {target} × T series ({one} with one target), a provider {provider}, a kind of
target {kind}, a Vault {vault}, the daemon some 50. Beyond `metrics.per_grant_up_to` grants (default {up_to}) only
those that are not well (not fresh, not published, or overdue) have series of their own, {most} at most;
`rotator_grants_omitted` says how many have none. `rotator_refresh_total` is then told for each provider (without
`grant`), `rotator_publish_total` for each kind of target: no alert is lost by it, and sums over grants stay what they
are.

Grants of the register have no series of their own, well or not, and their exchanges count in `rotator_refresh_total`
only where that is told for each provider. `rotator_register_grants` counts them: RotatorRegisterExpired tells when many
lost their valid token, RotatorRegisterResting when some wait for a person (`standing="resting"`),
RotatorRegisterOverdue when some are due and have no turn (`standing="overdue"`). Which ones they are is for
`rotator grants list` to say: [runbook.md](runbook.md).

## What it costs

On a calm machine (`python -m benchmarks --only scrape`, load 0.8): the page of 10 000 grants with the default bound
takes 5.5 ms of processor time (a whole scrape 16 ms), with a series for each 108 ms (250 ms); a rotation becomes
readable 0 ms and 8.6 ms later beside them at the median, at the 99th percentile 68 ms where it is 11 to 20 ms without a
scraper.

`python -m benchmarks --only scrape`. One run on a busy machine (load 9 to 17), the page alone: 10 000 grants with the
default bound are 12 kB and 9 ms of processor time, with series for each 25 MB and 160 ms; no slice between two turns of
the loop took longer than 3 ms in the median. The server adds 4 ms and 60 ms. prometheus_client wrote the same series in
one slice of 7.7 s and kept 190 MB for them, which is why the page is written by hand. A daemon without `[http] address`
loads none of it and counts nothing.

Where each of ten thousand grants is to have series, give Prometheus a `scrape_timeout` of 30 s: a page of 25 MB is sent
in a thousand pieces, and rotations go between them.

## All of them

| metric | type | labels | meaning |
|---|---|---|---|
"""


def page() -> str:
    def series(*labels: str) -> int:
        """How many lines the families with exactly these labels, and one of words, make."""
        words = {
            "state": len(catalogue.STATES), "outcome": len(catalogue.OUTCOMES), "code": len(catalogue.CODES),
            "operation": len(catalogue.OPERATIONS),
        }  # fmt: skip
        total = 0
        for one in metrics.FAMILIES:
            more = [label for label in one.labels if label not in labels]
            if one.labels[: len(labels)] == labels and set(more) <= set(words):
                lines = len(one.buckets) + 3 if one.buckets else 1
                for label in more:
                    told = {("kind", "outcome"): catalogue.PUBLISHED, ("vault", "outcome"): catalogue.LOGINS}
                    lines *= len(told.get((labels[-1], label), ())) or words[label]
                total += lines
        return total

    plain, target = series(*catalogue.GRANT), series(*catalogue.TARGET)
    head = HEAD.format(
        states=", ".join(f"*{one}*" for one in catalogue.STATES),
        outcomes=", ".join(f"*{one}*" for one in catalogue.OUTCOMES),
        plain=plain, target=target, one=plain + target, provider=series("provider"), kind=series("kind"),
        vault=series("vault"), up_to=metrics.PER_GRANT_UP_TO, most=grants.MOST_SHOWN,
    )  # fmt: skip
    lines = [
        f"| `{one.name}` | {one.type} | {' '.join(f'`{label}`' for label in one.labels) or '–'} | {one.help} |"
        for one in metrics.FAMILIES
    ]
    return head + "\n".join(lines) + "\n"


def test_the_page_of_metrics_says_what_is_exported() -> None:
    if WRITES:
        PAGE.write_text(page())
    made, stands = page(), PAGE.read_text()
    assert stands == made, by_hand(stands, made)


def by_hand(stands: str, made: str) -> str:
    """Why a written page is not what its writer makes, for who changed the wrong one of the two."""
    lines = zip_longest(stands.splitlines(keepends=True), made.splitlines(keepends=True), fillvalue="")
    number, line = next((number, one) for number, (one, other) in enumerate(lines, start=1) if one != other)
    return (
        f"docs/metrics.md:{number} was edited by hand, or the code has moved on: nothing writes {line!r}. Words belong "
        "into HEAD of tests/prometheus/test_documents.py or the help of a family in rotator/frontends/metrics/"
        "catalogue.py; then DOCS=write pytest tests/prometheus/test_documents.py writes the page"
    )


def test_a_page_that_was_edited_by_hand_is_told_as_that() -> None:
    told = by_hand(page().replace("## What it costs", "## What it costs you"), page())
    assert "edited by hand" in told
    assert "## What it costs you" in told
    assert "HEAD of tests/prometheus/test_documents.py" in told


def dashboard() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dashboard", HOUSE / "packaging" / "dashboard.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_dashboard_is_what_its_script_makes() -> None:
    text = dashboard().text()
    if WRITES:
        BOARD.write_text(text)
    assert BOARD.read_text() == text, "write it anew: make docs"


# --- names ------------------------------------------------------------------------------------------------------

EXPORTED = {
    name + suffix
    for one in metrics.FAMILIES
    for name in (one.name,)
    for suffix in (("_bucket", "_sum", "_count", "") if one.buckets else ("",))
}


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\b(?:rotator|process)_[a-z_]+[a-z]\b", text))


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def test_every_name_that_is_asked_for_is_exported() -> None:
    asked = {rule["alert"]: names_in(rule["expr"]) for rule in rules()}
    asked["dashboard"] = {
        name
        for panel in json.loads(BOARD.read_text())["panels"]
        for target in panel.get("targets", ())
        for name in names_in(target["expr"])
    }
    asked["cases"] = {
        name
        for case in yaml.safe_load(CASES.read_text())["tests"]
        for series in case["input_series"]
        for name in names_in(series["series"])
    }
    asked |= {path.name: names_in(path.read_text()) for path in (PAGE, RUNBOOK)}
    unknown = {where: names - EXPORTED for where, names in asked.items() if names - EXPORTED}
    assert unknown == {}
    assert len(asked["dashboard"]) > 25


def test_the_dashboard_shows_every_metric() -> None:
    text = BOARD.read_text()
    assert [one.name for one in metrics.FAMILIES if one.name not in text] == []


def test_labels_that_are_asked_for_are_those_of_the_metric() -> None:
    """A state or an outcome that there is not would keep an alert silent for ever."""
    words = {
        "state": catalogue.STATES, "outcome": (*catalogue.OUTCOMES, *catalogue.LOGINS),
        "standing": catalogue.STANDINGS,
    }  # fmt: skip
    for rule in rules():
        for label, told in re.findall(r'(\w+)!?="([^"]*)"', rule["expr"]):
            assert label == "job" or told in words[label], rule["alert"]


# --- rules ------------------------------------------------------------------------------------------------------


def test_whoever_has_no_series_of_his_own_is_told_of_all_the_same() -> None:
    """Grants of the register, and one daemon among several."""
    asked = " ".join(rule["expr"] for rule in rules())
    for standing in ("valid", "resting", "overdue"):
        assert f'rotator_register_grants{{standing="{standing}"}}' in asked
    assert any(rule["expr"].startswith('up{job="rotator"} == 0') for rule in rules())


def test_every_rule_tells_who_acts_and_what_to_do() -> None:
    headings = re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert sorted(set(headings)) == sorted({rule["alert"] for rule in rules()})
    for rule in rules():
        notes = rule["annotations"]
        assert notes["summary"] and notes["description"].endswith(".")
        assert notes["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("warning", "critical")
    for section in re.split(r"^## ", RUNBOOK.read_text(), flags=re.MULTILINE)[1:]:
        assert all(f"**{part}" in section for part in ("What it means.", "What to look at.", "At night.")), section


def test_the_runbook_tells_of_every_end_after_which_nobody_starts_it_again() -> None:
    unit, text = (HOUSE / "systemd" / "rotator.service").read_text(), RUNBOOK.read_text()
    (codes,) = re.findall(r"^RestartPreventExitStatus=(.*)$", unit, re.MULTILINE)
    assert [code for code in codes.split() if f"xit code {code}" not in text] == []
    assert "rotator state reset" in text


def test_no_rule_waits_for_as_long_as_a_token_of_an_hour_is_renewed_ahead() -> None:
    minutes = [int(rule.get("for", "0m").removesuffix("m")) for rule in rules()]
    assert max(minutes) <= 10


def test_every_alert_has_a_case_where_it_fires_and_one_where_it_does_not() -> None:
    fires: dict[str, set[str]] = {}
    silent = set()
    for case in yaml.safe_load(CASES.read_text())["tests"]:
        for one in case["alert_rule_test"]:
            alerts = {alert["exp_labels"]["severity"] for alert in one["exp_alerts"]}
            fires.setdefault(one["alertname"], set()).update(alerts)
            if not alerts:
                silent.add(one["alertname"])
    wanted: dict[str, set[str]] = {}
    for rule in rules():
        wanted.setdefault(rule["alert"], set()).add(rule["labels"]["severity"])
    assert fires == wanted
    assert silent == set(wanted)


@pytest.mark.parametrize("words", [("check", "rules", RULES), ("test", "rules", CASES)])
def test_promtool_agrees(words: tuple[str, str, Path]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (package prometheus) is not installed")
    done = subprocess.run(
        [promtool, *map(str, words)], cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def test_promtool_understands_every_panel(tmp_path: Path) -> None:
    """As recording rules, with Grafana's variables filled in."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (package prometheus) is not installed")
    queries = [
        target["expr"].replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*")
        for panel in json.loads(BOARD.read_text())["panels"]
        for target in panel.get("targets", ())
    ]
    told = [{"record": f"panel:query:{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "panels.yaml").write_text(json.dumps({"groups": [{"name": "panels", "rules": told}]}))
    done = subprocess.run(
        [promtool, "check", "rules", "panels.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
