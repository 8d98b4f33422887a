"""Writes config/grafana/rotator.json, a dashboard over the metrics of docs/metrics.md.

``python packaging/dashboard.py``; made by a script, so that no panel asks for a metric that there is not.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rotator.frontends.metrics import catalogue

PLACE = Path(__file__).parents[1] / "config" / "grafana" / "rotator.json"
CHOSEN = 'job=~"$job", instance=~"$instance"'
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24
RANGE = "$__rate_interval"


def of(family: catalogue.Family, more: str = "", suffix: str = "") -> str:
    """The series of a metric on the chosen instances."""
    return f"{family.name}{suffix}{{{CHOSEN}{', ' + more if more else ''}}}"


def quantile(share: float, family: catalogue.Family, by: str) -> str:
    series = of(family, suffix="_bucket")
    names = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({names}) (rate({series}[{RANGE}])))"


def panel(kind: str, title: str, about: str, queries: list[tuple[str, str]], **more: Any) -> dict[str, Any]:
    """One panel; a query is (expression, legend)."""
    instant = kind in ("stat", "table")
    return {
        "type": kind,
        "title": title,
        "description": about,
        "datasource": SOURCE,
        "targets": [
            {
                "refId": chr(ord("A") + number), "datasource": SOURCE, "expr": expr, "legendFormat": legend,
                "instant": instant, "range": not instant, **({"format": "table"} if kind == "table" else {}),
            }
            for number, (expr, legend) in enumerate(queries)
        ],
        "fieldConfig": {"defaults": {"unit": more.pop("unit", "short"), **more.pop("defaults", {})}, "overrides": []},
        "options": more.pop("options", {}),
        **more,
    }  # fmt: skip


def good_below(*steps: tuple[str, float | None]) -> dict[str, Any]:
    return {"thresholds": {"mode": "absolute", "steps": [{"color": colour, "value": at} for colour, at in steps]}}


def rows() -> list[tuple[str, list[tuple[int, int, dict[str, Any]]]]]:
    """(title, [(width, height, panel)]) from top to bottom."""
    return [("At a glance", glance()), ("Grants", grants()), ("Providers", providers()), ("Targets", targets()),
            ("Vault", vault()), ("The daemon", daemon())]  # fmt: skip


def glance() -> list[tuple[int, int, dict[str, Any]]]:
    ill = good_below(("green", None), ("red", 1))
    left = f"min({of(catalogue.EXPIRATION)} - time())"
    person = 'state=~"latched|needs a person"'
    return [
        (4, 4, panel("stat", "Grants", "All that are configured.", [(f"sum({of(catalogue.GRANTS)})", "")])),
        (4, 4, panel("stat", "Not published", "Without a valid token in every target.",
                     [(f"sum({of(catalogue.GRANTS)}) - sum({of(catalogue.GRANTS_PUBLISHED)})", "")], defaults=ill)),
        (4, 4, panel("stat", "A person must act", "Latched, or without a way to log in.",
                     [(f"sum({of(catalogue.GRANTS, person)})", "")], defaults=ill)),
        (4, 4, panel("stat", "Shortest time left", "Of the token that expires first.", [(left, "")], unit="s",
                     defaults=good_below(("red", None), ("orange", 300), ("green", 600)))),
        (4, 4, panel("stat", "Providers that do not answer", "Whose breaker is open.",
                     [(f"sum({of(catalogue.BREAKER_OPEN)})", "")], defaults=ill)),
        (4, 4, panel("stat", "Version", "", [(of(catalogue.BUILD), "{{version}}")],
                     options={"textMode": "name"})),
    ]  # fmt: skip


def grants() -> list[tuple[int, int, dict[str, Any]]]:
    not_fresh = of(catalogue.STATE, 'state!="fresh"')
    lifetime = f"({of(catalogue.EXPIRATION)} - {of(catalogue.ISSUED)})"
    return [
        (12, 8, panel("timeseries", "Left of each token's lifetime", "Renewed at 75 %; below 20 % something is off.",
                      [(f"({of(catalogue.EXPIRATION)} - time()) / {lifetime}", "{{grant}}")], unit="percentunit",
                      defaults={"min": 0, "max": 1})),
        (12, 8, panel("timeseries", "Grants by state", "", [(f"sum by (state) ({of(catalogue.GRANTS)})", "{{state}}")],
                      defaults={"custom": {"stacking": {"mode": "normal"}, "fillOpacity": 30}})),
        (12, 8, panel("table", "Not fresh", "", [(f"{not_fresh} == 1", "")])),
        (6, 8, panel("timeseries", "Refresh tokens: days left", "Estimated by the provider's refresh_lifetime.",
                     [(f"{of(catalogue.REFRESH_EXPIRATION)} - time()", "{{grant}}")], unit="s")),
        (6, 8, panel("timeseries", "Password exchanges left", "What may still be spent of each budget.",
                     [(f"min by (grant) ({of(catalogue.BUDGET)})", "{{grant}}")])),
        (12, 6, panel("timeseries", "Failures in a row", "", [(f"{of(catalogue.FAILURES)} > 0", "{{grant}}")])),
        (12, 6, panel("timeseries", "Since the last success", "",
                      [(f"time() - {of(catalogue.LAST_SUCCESS)}", "{{grant}}")], unit="s")),
    ]  # fmt: skip


def providers() -> list[tuple[int, int, dict[str, Any]]]:
    outcomes = f"sum by (outcome) (rate({of(catalogue.EXCHANGES)}[{RANGE}]))"
    overdue = f"{of(catalogue.RENEWAL)} < time()"
    return [
        (12, 8, panel("timeseries", "Exchanges by outcome", "", [(outcomes, "{{outcome}}")], unit="reqps")),
        (12, 8, panel("timeseries", "Duration of an exchange", "From before the request until the answer.",
                      [(quantile(0.5, catalogue.EXCHANGE_SECONDS, "provider"), "{{provider}} p50"),
                       (quantile(0.99, catalogue.EXCHANGE_SECONDS, "provider"), "{{provider}} p99")], unit="s")),
        (12, 6, panel("timeseries", "At the gate", "Who waits for a turn, and who is at work.",
                      [(of(catalogue.WAITING), "{{provider}} waiting"),
                       (of(catalogue.IN_FLIGHT), "{{provider}} at work"),
                       (f"count by (provider) ({overdue})", "{{provider}} due")])),
        (12, 6, panel("timeseries", "Breaker", "", [(of(catalogue.BREAKER_OPEN), "{{provider}} open"),
                      (f"increase({of(catalogue.BREAKER_OPENED)}[{RANGE}])", "{{provider}} opened")])),
        (24, 6, panel("timeseries", "The register", "Grants that were entered in bulk.",
                      [(of(catalogue.REGISTER), "{{standing}}")])),
    ]  # fmt: skip


def targets() -> list[tuple[int, int, dict[str, Any]]]:
    behind = (
        f"count by (kind) ({of(catalogue.PUBLISHED_EXPIRATION)} < on (job, instance, provider, grant) group_left "
        f"{of(catalogue.EXPIRATION)})"
    )
    return [
        (8, 8, panel("timeseries", "Answer until readable", "What readers wait for after a rotation.",
                     [(quantile(0.5, catalogue.READABLE_SECONDS, "kind"), "{{kind}} p50"),
                      (quantile(0.99, catalogue.READABLE_SECONDS, "kind"), "{{kind}} p99")], unit="s")),
        (8, 8, panel("timeseries", "Publications by outcome", "", [
            (f"sum by (kind, outcome) (rate({of(catalogue.PUBLICATIONS)}[{RANGE}]))", "{{kind}} {{outcome}}")],
            unit="ops")),
        (8, 8, panel("timeseries", "Targets behind", "That do not hold the newest token.", [(behind, "{{kind}}")])),
        (12, 6, panel("timeseries", "Save and publication", "p99 of each.",
                      [(quantile(0.99, catalogue.SAVE_SECONDS, ""), "save"),
                       (quantile(0.99, catalogue.PUBLISH_SECONDS, "kind"), "{{kind}}")], unit="s")),
        (12, 6, panel("timeseries", "Since a target was written", "",
                      [(f"time() - ({of(catalogue.PUBLISHED_AT)} > 0)", "{{grant}} {{target}}")], unit="s")),
    ]  # fmt: skip


def vault() -> list[tuple[int, int, dict[str, Any]]]:
    return [
        (8, 6, panel("timeseries", "Left of the login", "", [
            (f"{of(catalogue.VAULT_EXPIRATION)} - time()", "{{vault}}")], unit="s")),
        (8, 6, panel("timeseries", "Logins", "", [
            (f"sum by (vault, outcome) (increase({of(catalogue.VAULT_LOGINS)}[{RANGE}]))", "{{vault}} {{outcome}}")])),
        (8, 6, panel("timeseries", "Requests by status", "", [
            (f"sum by (vault, code) (rate({of(catalogue.VAULT_REQUESTS)}[{RANGE}]))", "{{vault}} {{code}}")],
            unit="reqps")),
    ]  # fmt: skip


def daemon() -> list[tuple[int, int, dict[str, Any]]]:
    troubles = (
        (catalogue.MISSED, "sweeps missed"), (catalogue.STORE_ERRORS, "store"), (catalogue.DEFECTS, "defects"),
        (catalogue.CLOCK_JUMPS, "clock {{direction}}"), (catalogue.EVENTS_DROPPED, "events dropped {{listener}}"),
        (catalogue.NOTIFY_ERRORS, "sd_notify"),
    )  # fmt: skip
    return [
        (8, 6, panel("timeseries", "What went wrong", "", [
            (f"increase({of(family)}[{RANGE}])", legend) for family, legend in troubles])),
        (8, 6, panel("timeseries", "Lag of the event loop", "", [
            (quantile(0.5, catalogue.LAG, "instance"), "{{instance}} p50"),
            (quantile(0.99, catalogue.LAG, "instance"), "{{instance}} p99")], unit="s")),
        (8, 6, panel("timeseries", "Configuration", "1: the last reload was taken over.", [
            (of(catalogue.RELOAD_GOOD), "{{instance}}")])),
        (6, 6, panel("timeseries", "Memory", "", [(of(catalogue.RESIDENT), "resident {{instance}}"),
                     (of(catalogue.VIRTUAL), "virtual {{instance}}")], unit="bytes")),
        (6, 6, panel("timeseries", "Processor", "", [(f"rate({of(catalogue.CPU)}[{RANGE}])", "{{instance}}")])),
        (6, 6, panel("timeseries", "Open files", "", [(of(catalogue.OPEN_FILES), "open {{instance}}"),
                     (of(catalogue.MOST_FILES), "limit {{instance}}")])),
        (6, 6, panel("timeseries", "Up for, and since the last reload", "", [
            (f"time() - {of(catalogue.STARTED)}", "up {{instance}}"),
            (f"time() - {of(catalogue.RELOADED_AT)}", "reloaded {{instance}}"),
            (f"sum({of(catalogue.GRANTS_OMITTED)})", "grants without series")], unit="s")),
    ]  # fmt: skip


def board() -> dict[str, Any]:
    """The whole dashboard, laid out row by row."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, cells in rows():
        panels.append({
            "type": "row", "title": title, "collapsed": False, "panels": [],
            "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
        })  # fmt: skip
        y, x, height = y + 1, 0, 0
        for width, tall, one in cells:
            if x + width > WIDTH:
                y, x, height = y + height, 0, 0
            panels.append({**one, "gridPos": {"x": x, "y": y, "w": width, "h": tall}})
            x, height = x + width, max(height, tall)
        y += height
    for number, one in enumerate(panels, 1):
        one["id"] = number
    return {
        "title": "rotator", "uid": "rotator", "tags": ["rotator", "oauth2"], "schemaVersion": 39, "version": 1,
        "editable": True, "refresh": "30s", "time": {"from": "now-6h", "to": "now"}, "timezone": "browser",
        "templating": {"list": [
            {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"},
            variable("job", f"label_values({catalogue.BUILD.name}, job)"),
            variable("instance", f'label_values({catalogue.BUILD.name}{{job=~"$job"}}, instance)'),
        ]},
        "annotations": {"list": []}, "links": [], "panels": panels,
    }  # fmt: skip


def variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name, "type": "query", "label": name, "datasource": SOURCE, "query": {"query": query, "refId": name},
        "definition": query, "refresh": 2, "sort": 1, "multi": True, "includeAll": True,
        "current": {"text": "All", "value": "$__all"},
    }  # fmt: skip


def text() -> str:
    return json.dumps(board(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PLACE.parent.mkdir(parents=True, exist_ok=True)
    PLACE.write_text(text())
    print(f"wrote {PLACE.relative_to(Path.cwd())}" if PLACE.is_relative_to(Path.cwd()) else PLACE)
    sys.exit(0)
