"""The metrics page: what is counted, how it is written, and that those who read such pages for a living agree."""

from __future__ import annotations

import itertools
import math
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics_parser

from rotator.core import errors, events
from rotator.core.grants import OutcomeClass
from rotator.core.health import Census, GrantHealth, Health, ProviderHealth, State, TargetHealth
from rotator.core.policy import Moment
from rotator.drivers import vault
from rotator.frontends import metrics
from rotator.frontends.metrics import Metrics, Sources, catalogue, counts, exposition, grants, process
from rotator.lab import world

NOW = datetime(2026, 11, 23, 4, 5, 6, 789000, tzinfo=UTC)
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@dataclass
class Tally:
    """What a Vault's tally tells."""

    ends_at: datetime | None = None
    logins: dict[str, int] = field(default_factory=dict)
    requests: dict[tuple[str, str], int] = field(default_factory=dict)


def grant(name: str = "billing", state: State = State.FRESH, **changes: Any) -> GrantHealth:
    given: dict[str, Any] = {
        "name": name, "provider": "omnifund", "state": state, "reason": "", "generation": 4, "issued_at": NOW,
        "expires_at": NOW + HOUR, "due_at": NOW + HOUR * 0.75, "passwords_left": 3,
        "targets": (TargetHealth("app", f"file:/run/rotator/{name}/token", 4),), "published": True,
        "refreshed_at": NOW, "refresh_ends_at": NOW + 14 * 24 * HOUR,
    }  # fmt: skip
    return GrantHealth(**{**given, **changes})


def snapshot(*shown: GrantHealth, gates: Iterable[ProviderHealth] = (), register: Census | None = None) -> Health:
    return Health(NOW, shown or (grant(),), providers=tuple(gates), register=register)


def page(*told: events.Event, of: Health | None = None, accept: str = "", **more: Any) -> str:
    async def story() -> str:
        served = Metrics("1.2.3", world.VirtualClock(), more.pop("sources", Sources()), **more)
        for event in told:
            served(event)
        return b"".join(served.expose(of or snapshot(), accept)[1]).decode()

    return world.run(story)


def read(text: str) -> Samples:
    """By the parser of prometheus_client for the older text; every line is one sample."""
    found: Samples = {}
    for family in parser.text_string_to_metric_families(text):
        for one in family.samples:
            key = one.name, frozenset(one.labels.items())
            assert key not in found, key
            found[key] = one.value
    return found


def value(text: str, name: str, **labels: str) -> float:
    return read(text)[name, frozenset(labels.items())]


def rotated(name: str = "billing", provider: str = "omnifund", **changes: Any) -> events.Rotated:
    given: dict[str, Any] = {
        "at": NOW, "grant": name, "provider": provider, "kind": "refresh_token", "generation": 4,
        "expires_at": NOW + HOUR, "due_at": NOW + HOUR * 0.75, "took": SECOND * 0.3, "save_took": SECOND * 0.004,
    }  # fmt: skip
    return events.Rotated(**{**given, **changes})


def failed(outcome: OutcomeClass, name: str = "billing", **changes: Any) -> events.ExchangeFailed:
    given: dict[str, Any] = {
        "at": NOW, "grant": name, "provider": "omnifund", "kind": "refresh_token", "cls": outcome.value, "reason": "x",
        "mend": "", "next_at": None, "valid_until": None,
    }  # fmt: skip
    return events.ExchangeFailed(**{**given, **changes})


def delivered(kind: type[events.TargetSettled] = events.Delivered, **changes: Any) -> events.TargetSettled:
    given: dict[str, Any] = {
        "at": NOW, "grant": "billing", "target": "app", "generation": 4, "found": "missing", "kind": "file",
        "took": SECOND * 0.002, "since_answer": SECOND * 0.006,
    }  # fmt: skip
    return kind(**{**given, **changes})


def undelivered(kind: type[events.DeliveryFailed]) -> events.DeliveryFailed:
    return kind(at=NOW, grant="billing", target="app", reason="disk full", retry_at=NOW + SECOND, kind="file")


# --- the text ---------------------------------------------------------------------------------------------------

FULL = {
    "told": (rotated(), failed(OutcomeClass.BUSY), delivered()),
    "of": snapshot(
        grant(), grant("crm", State.LATCHED, due_at=None, published=False, failures=2),
        grant("new", State.EMPTY, issued_at=None, expires_at=None, refreshed_at=None, refresh_ends_at=None,
              passwords_left=None, published=False),
        gates=[ProviderHealth("omnifund", 3, 2, True)], register=Census(total=9, valid=7, resting=1, overdue=2),
    ),
    "sources": Sources(
        dropped=lambda: {"log": 5, "metrics": 0}, notify_errors=lambda: 2,
        vaults=lambda: {"default": Tally(NOW, {"granted": 1}, {("read", "2xx"): 7})},
    ),
}  # fmt: skip


def full(accept: str) -> str:
    return page(*FULL["told"], of=FULL["of"], accept=accept, sources=FULL["sources"])  # type: ignore[misc, arg-type]


def test_openmetrics_is_what_its_own_parser_takes_and_has_every_metric() -> None:
    text = full(OPENMETRICS)
    assert text.endswith("# EOF\n")
    found = {one.name: one for one in openmetrics_parser.text_string_to_metric_families(text)}
    assert set(found) == {one.name.removesuffix("_total") for one in metrics.FAMILIES}
    for family in metrics.FAMILIES:
        parsed = found[family.name.removesuffix("_total")]
        assert (parsed.type, parsed.documentation) == (family.type, family.help)
        for sample in parsed.samples:
            assert set(sample.labels) - {"le"} == set(family.labels), family.name
            assert sample.exemplar is None and sample.timestamp is None


def test_the_older_text_says_the_same() -> None:
    lines = {line for line in full(OPENMETRICS).splitlines() if not line.startswith("#")}
    older = [line for line in full("text/plain").splitlines() if not line.startswith("#")]
    # The process has moved on between the two.
    assert {one for one in older if not one.startswith("process_")} == {
        one for one in lines if not one.startswith("process_")
    }
    assert len(read(full(""))) == len(older)
    kinds = {one.name: one.type for one in parser.text_string_to_metric_families(full(""))}
    assert kinds == {one.name.removesuffix("_total"): one.type for one in metrics.FAMILIES}


def test_promtool_finds_nothing_to_remark() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (package prometheus) is not installed")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=full("").encode(), capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", exposition.TEXT),
        ("*/*", exposition.TEXT),
        ("text/plain", exposition.TEXT),
        ("application/openmetrics-text", exposition.OPENMETRICS),
        (OPENMETRICS, exposition.OPENMETRICS),
        ("application/openmetrics-text;version=0.0.1", exposition.OPENMETRICS),
        ("application/openmetrics-text; version=2.0.0, text/plain", exposition.TEXT),
        ("application/openmetrics-text;q=0.2,text/plain;q=0.8", exposition.TEXT),
        ("Application/OpenMetrics-Text; Version=1.0.0; escaping=allow-utf-8; q=0.6, text/plain;q=0.5",
         exposition.OPENMETRICS),
        ("application/openmetrics-text;q=0", exposition.TEXT),
        ("application/openmetrics-text;q=what", exposition.TEXT),
        (";;,=,q=", exposition.TEXT),
        ("application/vnd.google.protobuf;q=0.9,application/openmetrics-text;version=1.0.0;q=0.8,*/*;q=0.2",
         exposition.OPENMETRICS),
    ],
)  # fmt: skip
def test_the_accept_header_chooses(accept: str, chosen: str) -> None:
    async def story() -> str:
        return Metrics("1", world.VirtualClock(), Sources()).expose(snapshot(), accept)[0]

    assert world.run(story) == chosen


@pytest.mark.parametrize(
    "hostile", ['a"b', "a\\b", "a\nb", 'x"} 1\nrotator_forged{y="', "ü→", "\ud800", "%s", "{0}", ""]
)
@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_no_name_can_forge_a_line(hostile: str, accept: str) -> None:
    one = grant(hostile, provider=hostile, targets=(TargetHealth(hostile, f"file:{hostile}", 4),))
    text = page(of=snapshot(one, gates=[ProviderHealth(hostile, 0, 0, False)]), accept=accept)
    parse = openmetrics_parser.text_string_to_metric_families if accept else parser.text_string_to_metric_families
    samples = [sample for family in parse(text) for sample in family.samples]
    assert {sample.labels["grant"] for sample in samples if "grant" in sample.labels} == {
        hostile.replace("\ud800", "?")
    }
    assert not [sample for sample in samples if "forged" in sample.name]


def test_everything_begins_at_zero() -> None:
    """A rate needs a first sample: no label set comes into being with its first event."""
    vaults = {"default": Tally()}
    before = read(page(sources=Sources(dropped=lambda: {"log": 0}, vaults=lambda: vaults)))
    after = read(page(
        rotated(), *(failed(one) for one in OutcomeClass if one is not OutcomeClass.GRANTED), delivered(),
        delivered(events.Repaired), undelivered(events.DeliveryFailed),
        sources=Sources(dropped=lambda: {"log": 0}, vaults=lambda: vaults),
    ))  # fmt: skip
    assert before.keys() == after.keys()
    counters = {one.name for one in metrics.FAMILIES if one.type == catalogue.COUNTER} - {"process_cpu_seconds_total"}
    assert {key[0] for key, one in before.items() if key[0] in counters and one} == set()


def test_the_page_comes_in_pieces_of_which_none_is_large() -> None:
    many = snapshot(*(grant(f"grant_{number}") for number in range(2000)))

    async def story() -> list[bytes]:
        return list(Metrics("1", world.VirtualClock(), Sources(), per_grant_up_to=5000).expose(many, "")[1])

    chunks = world.run(story)
    assert len(chunks) > 50
    assert max(map(len, chunks)) < 5 * exposition.CHUNK


# --- what is counted --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", list(OutcomeClass))
def test_exchanges_are_counted_by_outcome(outcome: OutcomeClass) -> None:
    event: events.Event = rotated() if outcome is OutcomeClass.GRANTED else failed(outcome)
    if outcome is OutcomeClass.REFUSED:
        event = events.Latched(
            at=NOW, grant="billing", provider="omnifund", cls=outcome.value, reason="x", mend="", took=SECOND
        )
    text = page(event)
    for one in OutcomeClass:
        counted = value(text, "rotator_refresh_total", provider="omnifund", grant="billing", outcome=one.value)
        assert counted == (one is outcome)


def test_durations_stand_in_their_buckets() -> None:
    text = page(rotated(), rotated(took=SECOND * 40, save_took=SECOND * 0.001), failed(OutcomeClass.DOUBTFUL))
    name = "rotator_refresh_duration_seconds"
    assert value(text, f"{name}_bucket", provider="omnifund", le="0.25") == 0
    assert value(text, f"{name}_bucket", provider="omnifund", le="0.5") == 1
    assert value(text, f"{name}_bucket", provider="omnifund", le="30.0") == 1
    assert value(text, f"{name}_bucket", provider="omnifund", le="+Inf") == 2
    assert value(text, f"{name}_count", provider="omnifund") == 2, "what was not measured is not there"
    assert value(text, f"{name}_sum", provider="omnifund") == pytest.approx(40.3)
    # A bound belongs to its bucket.
    assert value(text, "rotator_save_duration_seconds_bucket", le="0.001") == 1


def test_publications_are_counted_by_target_and_kind() -> None:
    told = [delivered(), delivered(events.Repaired), undelivered(events.DeliveryFailed)]
    text = page(*told, undelivered(events.DeliveryStillFailing))
    marks = {"provider": "omnifund", "grant": "billing", "target": "app", "kind": "file"}
    counted = [value(text, "rotator_publish_total", **marks, outcome=one) for one in catalogue.PUBLISHED]
    assert counted == [1, 1, 2]
    assert value(text, "rotator_publish_duration_seconds_count", kind="file") == 2
    assert value(text, "rotator_answer_to_readable_seconds_count", kind="file") == 1, "a repair is no answer"
    assert value(text, "rotator_publish_last_success_timestamp_seconds", **marks) == NOW.timestamp()
    assert value(text, "rotator_published_expiration_timestamp_seconds", **marks) == (NOW + HOUR).timestamp()


def test_a_target_that_holds_nothing_of_ours_counts_as_expired_for_ever() -> None:
    behind = grant(targets=(TargetHealth("app", "vault:default/kv/x", None, "sealed"),), published=False)
    marks = {"provider": "omnifund", "grant": "billing", "target": "app", "kind": "vault"}
    assert value(page(of=snapshot(behind)), "rotator_published_expiration_timestamp_seconds", **marks) == 0


def test_the_daemon_tells_of_itself() -> None:
    text = page(
        events.StoreTroubled(at=NOW, reason="x", doing="y"),
        events.StoreTroubled(at=NOW, reason="x", doing="y", sweep=True),
        events.TaskFailed(at=NOW, doing="x", error="y"),
        events.ClockJumped(at=NOW, by=-HOUR),
        events.ClockJumped(at=NOW, by=HOUR),
        events.ClockJumped(at=NOW, by=HOUR, slept=True),
        events.ClockBehind(at=NOW, high_water=NOW + HOUR),
        events.BreakerOpened(at=NOW, provider="omnifund", grants=5, reason="x", until=NOW),
        events.ReloadRejected(at=NOW, reason="x"),
        of=FULL["of"], sources=FULL["sources"],
    )  # fmt: skip
    assert value(text, "rotator_store_errors_total") == 2
    assert value(text, "rotator_scheduler_missed_total") == 1
    assert value(text, "rotator_defects_total") == 1
    assert [value(text, "rotator_clock_jumps_total", direction=one) for one in catalogue.JUMPS] == [1, 2, 1]
    assert value(text, "rotator_provider_breaker_opened_total", provider="omnifund") == 1
    assert value(text, "rotator_provider_breaker_open", provider="omnifund") == 1
    assert value(text, "rotator_provider_waiting", provider="omnifund") == 3
    assert value(text, "rotator_provider_in_flight", provider="omnifund") == 2
    assert value(text, "rotator_config_last_reload_successful") == 0
    assert value(text, "rotator_events_dropped_total", listener="log") == 5
    assert value(text, "rotator_notify_errors_total") == 2
    assert value(text, "rotator_vault_requests_total", vault="default", operation="read", code="2xx") == 7
    assert value(text, "rotator_vault_login_total", vault="default", outcome="granted") == 1
    assert value(text, "rotator_vault_token_expiration_timestamp_seconds", vault="default") == NOW.timestamp()
    assert value(text, "rotator_grants", provider="omnifund", state=State.LATCHED.value) == 1
    assert value(text, "rotator_grants_published", provider="omnifund") == 1


def test_a_reload_mends_and_forgets_who_left() -> None:
    left = events.Reloaded(at=NOW + HOUR, added=(), changed=(), removed=("billing",))
    text = page(rotated(), delivered(), events.ReloadRejected(at=NOW, reason="x"), left)
    assert value(text, "rotator_config_last_reload_successful") == 1
    stamp = value(text, "rotator_config_last_reload_success_timestamp_seconds")
    assert stamp == (NOW + HOUR).timestamp()
    marks = {"provider": "omnifund", "grant": "billing"}
    assert value(text, "rotator_refresh_total", **marks, outcome="granted") == 0
    marks |= {"target": "app", "kind": "file"}
    assert value(text, "rotator_publish_total", **marks, outcome="delivered") == 0


# --- how many series --------------------------------------------------------------------------------------------


def test_too_many_grants_leave_series_to_those_that_are_not_well() -> None:
    shown = [
        *(grant(f"well_{number}") for number in range(5)),
        grant("latched", State.LATCHED, due_at=None),
        grant("behind", published=False),
        grant("overdue", due_at=NOW - SECOND),
    ]
    text = page(rotated("well_1"), delivered(), of=snapshot(*shown), per_grant_up_to=7)
    named = {dict(key[1]).get("grant") for key in read(text)} - {None}
    assert named == {"latched", "behind", "overdue"}
    assert value(text, "rotator_grants_omitted", provider="omnifund") == 5
    assert value(text, "rotator_refresh_total", provider="omnifund", outcome="granted") == 1
    assert value(text, "rotator_publish_total", kind="file", outcome="delivered") == 1
    assert value(text, "rotator_grants", provider="omnifund", state="fresh") == 7


def test_however_many_are_ill_the_series_are_bounded() -> None:
    def series(number: int) -> int:
        shown = (grant(f"grant_{one}", State.EXPIRED) for one in range(number))
        return len(read(page(of=snapshot(*shown), per_grant_up_to=50)))

    assert series(3000) == series(grants.MOST_SHOWN + 1)


def test_grants_that_come_and_go_by_the_hundred_thousand_are_counted_in_sum_alone() -> None:
    async def story() -> None:
        served = Metrics("1", world.VirtualClock(), Sources())
        for number in range(counts.MOST + 500):
            served(replace(rotated(), grant=f"g{number}"))
            served(replace(delivered(), grant=f"g{number}"))
        kept = served._counts
        assert len(kept.exchanges) == len(kept.publications) == len(kept.published_at) == counts.MOST
        assert sum(map(sum, kept.by_provider.values())) == sum(map(sum, kept.by_kind.values())) == counts.MOST + 500

    world.run(story)


def test_the_register_is_told_in_numbers_and_not_at_all_where_it_is_empty() -> None:
    text = page(of=snapshot(register=Census(total=9, valid=7, resting=1, overdue=2)))
    told = {one: value(text, "rotator_register_grants", standing=one) for one in catalogue.STANDINGS}
    assert told == {"total": 9, "valid": 7, "resting": 1, "overdue": 2}
    assert "rotator_register_grants{" not in page(of=snapshot(register=Census(0, 0, 0, 0)))


def test_no_label_but_those_of_the_catalogue_and_no_value_but_names_and_words() -> None:
    text = full("")
    words = {
        *catalogue.STATES, *catalogue.OUTCOMES, *catalogue.PUBLISHED, *catalogue.JUMPS, *catalogue.LOGINS,
        *catalogue.OPERATIONS, *catalogue.CODES, *catalogue.STANDINGS,
        "billing", "crm", "new", "omnifund", "app", "file", "log", "metrics",
        "default", "1.2.3",
    }  # fmt: skip
    for name, labels in read(text):
        for label, told in labels:
            assert told in words or label in ("le", "python"), (name, label, told)
    assert "/run/rotator" not in text


# --- the process and the loop -----------------------------------------------------------------------------------


def test_the_process_is_told_from_its_own_folder_alone(tmp_path: Path) -> None:
    moment = Moment(NOW, "boot", timedelta(seconds=500))
    (tmp_path / "stat").write_text("7 (a) b) (c) R " + " ".join(str(number) for number in range(4, 53)))
    (tmp_path / "limits").write_text("Limit Soft Hard Units\nMax open files            1024       4096    files\n")
    (tmp_path / "fd").mkdir()
    for name in "012":
        (tmp_path / "fd" / name).touch()
    found = dict(process.samples(moment, tmp_path))
    assert found[catalogue.CPU] == pytest.approx((14 + 15) / 100)
    assert found[catalogue.STARTED] == pytest.approx(NOW.timestamp() - (500 - 0.22), abs=0.01)
    assert found[catalogue.VIRTUAL] == 23
    assert found[catalogue.OPEN_FILES] == 3
    assert found[catalogue.MOST_FILES] == 1024


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    assert list(process.samples(Moment(NOW, "boot", SECOND), tmp_path)) == []
    (tmp_path / "stat").write_text("cut off")
    (tmp_path / "limits").write_text("Max open files            unlimited  unlimited    files\n")
    assert [math.isinf(figure) for _, figure in process.samples(Moment(NOW, "boot", SECOND), tmp_path)] == [True]


def test_a_loop_that_stood_still_is_seen() -> None:
    async def story() -> str:
        clock = world.VirtualClock()
        served = Metrics("1", clock, Sources(), beat=timedelta(seconds=2))
        await served.start()
        await clock.pass_time(timedelta(seconds=7))
        text = b"".join(served.expose(snapshot(), "")[1]).decode()
        await served.close()
        clock.stop()
        return text

    text = world.run(story)
    assert value(text, "rotator_event_loop_lag_seconds_count") == 3
    assert value(text, "rotator_event_loop_lag_seconds_bucket", le="0.001") == 3


def test_a_lag_counts_from_where_the_beats_stand() -> None:
    """Neither the first one nor one that rang late is where the later ones are measured from."""

    class Ticking(world.VirtualClock):
        awake: timedelta
        ring: Callable[[], None]

        def moment(self) -> Moment:
            return Moment(NOW, "boot", self.awake, self.awake)

        def beat(self, name: str, every: timedelta, ring: Callable[[], None]) -> None:
            self.ring = ring

    async def story() -> list[float]:
        clock = Ticking()
        served = Metrics("1", clock, Sources(), beat=timedelta(seconds=10))
        await served.start()
        totals = []
        for at in (3.5, 13, 23.25, 48, 53.5):
            clock.awake = timedelta(seconds=at)
            clock.ring()
            text = b"".join(served.expose(snapshot(), "")[1]).decode()
            totals.append(value(text, "rotator_event_loop_lag_seconds_sum"))
        return totals

    # The first tells nothing, the second that the first was late; then 0.25 s, 15 s of which one was missed, and 0.5 s.
    assert world.run(story) == [0, 0, 0.25, 15.25, 15.75]


def test_names_follow_the_conventions() -> None:
    for one in metrics.FAMILIES:
        assert one.name.startswith(("rotator_", "process_"))
        assert (one.type == catalogue.COUNTER) == one.name.endswith("_total")
        assert one.help.endswith(".") and "\n" not in one.help
        assert (one.type == catalogue.HISTOGRAM) == bool(one.buckets)
        assert list(one.buckets) == sorted(one.buckets)
    names = [one.name for one in metrics.FAMILIES]
    assert not [pair for pair in itertools.combinations(names, 2) if pair[0] == pair[1]]


def test_whatever_a_vault_is_counted_by_has_its_place() -> None:
    tally = vault.Tally()
    for method in ("get", "post", "put", "patch", "delete", "list", "head"):
        for status in (None, *range(200, 600)):
            tally.answered(method, status)
    for error in (errors.Refused("x"), errors.Unavailable("x"), errors.Misconfigured("x"), errors.Transient("x")):
        tally.not_logged_in(error)
    tally.logged_in(NOW)
    assert set(tally.requests) == set(itertools.product(catalogue.OPERATIONS, catalogue.CODES))
    assert set(tally.logins) == set(catalogue.LOGINS)
