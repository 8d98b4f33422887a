"""Spans made of events: what belongs to which, from when until when, and that nothing of a provider is in them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from rotator.core import events
from rotator.core.errors import Misconfigured
from rotator.core.events import Event
from rotator.frontends import tracing
from tests.peers.collector import collector

AT = datetime(2026, 11, 23, 4, 5, 6, 789123, tzinfo=UTC)
SECRET = "s3cr3t-0123456789"


def after(milliseconds: int) -> datetime:
    return AT + timedelta(milliseconds=milliseconds)


def started(at: datetime = AT, attempt: int = 1) -> Event:
    return events.ExchangeStarted(at=at, grant="billing", kind="refresh_token", generation=6, attempt=attempt)


def rotated(at: datetime, **measured: timedelta) -> Event:
    event = events.Rotated(
        at=at, grant="billing", kind="refresh_token", generation=7, expires_at=at + timedelta(hours=1), due_at=None
    )
    return with_measures(event, measured)


def delivered(at: datetime, target: str = "app", **measured: timedelta) -> Event:
    event = events.Delivered(at=at, grant="billing", target=target, generation=7, found="older")
    return with_measures(event, measured)


def with_measures(event: Event, measured: dict[str, timedelta]) -> Event:
    """As events of an engine that measures have them."""
    for name, value in measured.items():
        object.__setattr__(event, name, value)
    return event


def failed(at: datetime) -> Event:
    return events.ExchangeFailed(
        at=at, grant="billing", kind="refresh_token", cls="busy", reason=f"HTTP 503 ({SECRET})", mend="", next_at=None,
        valid_until=None,
    )  # fmt: skip


def spans_of(*told: Event) -> dict[str, ReadableSpan]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    listener = tracing.Spans(provider.get_tracer("test"))
    for event in told:
        listener(event)
    provider.shutdown()
    spans = exporter.get_finished_spans()
    assert SECRET not in "".join(span.to_json() for span in spans)
    return {f"{span.name} {(span.attributes or {}).get('rotator.target', '')}".strip(): span for span in spans}


def window(span: ReadableSpan) -> tuple[int, int]:
    """From and until, in milliseconds after `AT`."""
    base = int(AT.timestamp()) * 1_000_000_000 + AT.microsecond * 1000
    assert span.start_time is not None and span.end_time is not None
    begin, end = span.start_time - base, span.end_time - base
    assert begin % 1_000_000 == end % 1_000_000 == 0, "whole milliseconds went in, and came out"
    return begin // 1_000_000, end // 1_000_000


def parent(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


MS = timedelta(milliseconds=1)


def test_a_rotation_is_a_trace_of_intent_exchange_save_and_publications() -> None:
    spans = spans_of(
        started(), rotated(after(250), took=230 * MS, save_took=7 * MS), delivered(after(270), took=10 * MS),
        delivered(after(400), "cluster", took=120 * MS),
    )  # fmt: skip
    assert {name: window(span) for name, span in spans.items()} == {
        "rotate": (0, 257), "intent": (0, 20), "exchange": (20, 250), "save": (250, 257), "publish app": (260, 270),
        "publish cluster": (280, 400),
    }  # fmt: skip
    root = spans.pop("rotate")
    assert parent(root) is None
    assert {parent(span) for span in spans.values()} == {root.context.span_id}
    assert {span.context.trace_id for span in spans.values()} == {root.context.trace_id}
    assert spans["exchange"].kind is SpanKind.CLIENT
    assert dict(root.attributes or {}) == {
        "rotator.grant": "billing", "rotator.exchange": "refresh_token", "rotator.generation": 6, "rotator.attempt": 1,
    }  # fmt: skip


def test_without_measurements_spans_go_from_event_to_event() -> None:
    spans = spans_of(started(), rotated(after(250)), delivered(after(270)))
    assert {name: window(span) for name, span in spans.items()} == {
        "rotate": (0, 250), "exchange": (0, 250), "publish app": (250, 270),
    }  # fmt: skip


def test_a_failed_exchange_names_its_class_and_not_the_words_of_the_provider() -> None:
    spans = spans_of(started(), failed(after(90)))
    assert set(spans) == {"rotate", "exchange"}
    for span in spans.values():
        assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "busy")
    assert (spans["rotate"].attributes or {})["rotator.outcome"] == "busy"


def test_a_target_that_is_not_written_is_an_error_of_its_trace() -> None:
    lost = events.DeliveryFailed(at=after(300), grant="billing", target="app", reason=SECRET, retry_at=after(900))
    spans = spans_of(started(), rotated(after(250)), lost, delivered(after(990)))
    assert spans["publish app"].context.trace_id == spans["rotate"].context.trace_id


def test_another_attempt_is_another_trace_and_the_first_does_not_stay_open() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    listener = tracing.Spans(provider.get_tracer("test"))
    for event in (started(), started(after(500), attempt=2), rotated(after(600))):
        listener(event)
    provider.shutdown()
    roots = [span for span in exporter.get_finished_spans() if span.name == "rotate"]
    assert [window(span) for span in roots] == [(0, 500), (500, 600)]
    assert len({span.context.trace_id for span in roots}) == 2


def test_what_no_exchange_led_to_stands_alone() -> None:
    repaired = events.Repaired(at=after(1), grant="billing", target="app", generation=7, found="altered")
    for told in ((delivered(after(1)),), (started(), rotated(AT), repaired)):
        assert parent(spans_of(*told)["publish app"]) is None
    # The end of an exchange that was never sent, and events of no trace at all.
    assert spans_of(failed(AT), events.Retired(at=AT, grant="billing"), events.Stopping(at=AT, in_flight=0)) == {}


# --- on the way to a collector --------------------------------------------------------------------------------------


def trace(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    async def test() -> None:
        face = tracing.Tracing(environ)
        await face.start()
        for event in (started(), rotated(after(250))):
            face.spans(event)
        await face.close()

    asyncio.run(test())


def test_what_waits_is_sent_before_the_end_and_the_environment_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as there:
        trace({"OTEL_EXPORTER_OTLP_ENDPOINT": there.url, "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=t1"}, monkeypatch)
    ((path, headers, _),) = there.requests
    assert path == "/v1/traces"
    assert headers["x-tenant"] == "t1"
    assert {span.name for span in there.spans} == {"rotate", "exchange"}
    assert there.resource["service.name"] == "rotator"
    assert not any("command" in key or "host" in key for key in there.resource)


def test_a_service_may_have_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as there:
        trace({"OTEL_EXPORTER_OTLP_ENDPOINT": there.url, "OTEL_SERVICE_NAME": "tokens"}, monkeypatch)
    assert there.resource["service.name"] == "tokens"


def test_a_collector_that_is_away_costs_spans_and_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    # Port 9 of loopback (discard) has no listener.
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    trace(environ, monkeypatch)


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL"),
    ],
)
def test_what_is_not_spoken_is_refused_by_name(environ: dict[str, str], told: str) -> None:
    with pytest.raises(Misconfigured, match=told):
        tracing.Tracing(environ)
