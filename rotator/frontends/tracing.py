"""Spans of every rotation for OpenTelemetry, made of events: a listener of the bus like any other.

A trace is one rotation of one grant. Below `rotate` stand `intent` (until it is durable that a token is about to be
spent), `exchange`, `save`, and a `publish` for each target, which may end after it. Where an event does not say how
long something took, the span goes from event to event, and what cannot be told apart is one span. There are names,
numbers and classes of outcomes in a span: no URL, no header, no body, no text of a provider.

The SDK honours the OTEL_* variables by itself: endpoint, headers, sampler, resource, batches. It costs memory and a
thread, so it is imported only where traces are enabled.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from rotator import __version__
from rotator.core import events, lean
from rotator.core.errors import Misconfigured
from rotator.core.events import Event

SERVICE = "rotator"
FAREWELL = timedelta(seconds=5)
Attributes = dict[str, str | int]


@lean.dataclass(frozen=True, slots=True)
class _Rotation:
    """An exchange that has begun, or the last that ended, of one grant."""

    span: trace.Span
    began: datetime

    @property
    def context(self) -> Context:
        return trace.set_span_in_context(self.span, Context())


class Spans:
    """The listener. ``tracer`` is the SDK's; grants are remembered for as long as they are enrolled."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer
        self._begun: dict[str, _Rotation] = {}
        # The trace that what is published now belongs to, and when what led to it was over.
        self._last: dict[str, tuple[_Rotation, datetime]] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case events.ExchangeStarted():
                self._begin(event)
            case events.Rotated():
                self._end(event, event.grant, "")
            case events.ExchangeFailed():
                self._end(event, event.grant, event.cls)
            case events.Latched():
                self._end(event, event.grant, getattr(event, "cls", "refused"))
            case events.Delivered() | events.Repaired() | events.DeliveryFailed():
                self._publish(event)
            case events.Retired():
                self._begun.pop(event.grant, None)
                self._last.pop(event.grant, None)

    def _begin(self, event: events.ExchangeStarted) -> None:
        left = self._begun.pop(event.grant, None)
        if left is not None:
            left.span.end(_ns(event.at))
        attributes: Attributes = {
            "rotator.grant": event.grant, "rotator.exchange": event.kind, "rotator.generation": event.generation,
            "rotator.attempt": event.attempt,
        }  # fmt: skip
        # An empty context: whatever else may trace in this process, a rotation has no parent.
        root = self._tracer.start_span("rotate", Context(), attributes=attributes, start_time=_ns(event.at))
        self._begun[event.grant] = _Rotation(root, event.at)

    def _end(self, event: Event, grant: str, outcome: str) -> None:
        rotation = self._begun.pop(grant, None)
        if rotation is None:
            return
        took, save_took = _span_of(event, "took"), _span_of(event, "save_took")
        sent = rotation.began if took is None else max(rotation.began, event.at - took)
        if sent > rotation.began:
            self._child(rotation, "intent", rotation.began, sent)
        self._child(rotation, "exchange", sent, event.at, failed=outcome, kind=trace.SpanKind.CLIENT)
        saved = event.at
        if save_took is not None:
            saved += save_took
            self._child(rotation, "save", event.at, saved)
        if outcome:
            rotation.span.set_attribute("rotator.outcome", outcome)
            rotation.span.set_status(trace.StatusCode.ERROR, outcome)
        rotation.span.end(_ns(saved))
        self._last[grant] = rotation, saved

    def _publish(self, event: events.Delivered | events.Repaired | events.DeliveryFailed) -> None:
        known = self._last.get(event.grant)
        attributes: Attributes = {"rotator.grant": event.grant, "rotator.target": event.target}
        failed = "not written" if isinstance(event, events.DeliveryFailed) else ""
        if not isinstance(event, events.DeliveryFailed):
            attributes |= {"rotator.generation": event.generation, "rotator.found": event.found}
        took = _span_of(event, "took")
        began = event.at if took is None else event.at - took
        if known is None or isinstance(event, events.Repaired):
            # After a start, and what stood right and was altered: no rotation led to it.
            self._child(None, "publish", began, event.at, attributes, failed)
            return
        rotation, saved = known
        if took is None and not failed:
            began = min(saved, event.at)
        self._child(rotation, "publish", began, event.at, attributes, failed)

    def _child(
        self, rotation: _Rotation | None, name: str, began: datetime, ended: datetime,
        attributes: Attributes | None = None, failed: str = "", kind: trace.SpanKind = trace.SpanKind.INTERNAL,
    ) -> None:  # fmt: skip
        context = Context() if rotation is None else rotation.context
        span = self._tracer.start_span(name, context, kind=kind, attributes=attributes or {}, start_time=_ns(began))
        if failed:
            span.set_status(trace.StatusCode.ERROR, failed)
        span.end(_ns(max(began, ended)))


def _span_of(event: Event, name: str) -> timedelta | None:
    value: Any = getattr(event, name, None)
    return value if isinstance(value, timedelta) else None


def _ns(at: datetime) -> int:
    # In whole microseconds: a float of seconds since 1970 has no room for them.
    return (at - EPOCH) // timedelta(microseconds=1) * 1000


EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


class Tracing:
    """Spans on their way to a collector; a face of the daemon, so that the last are sent before it ends."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Raises Misconfigured where OTEL_* asks for what is not there."""
        named = "OTEL_SERVICE_NAME" in environ or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        attributes: Attributes = {"service.version": __version__, **({} if named else {"service.name": SERVICE})}
        # Not at exit: by then nobody may wait, and the daemon has closed it.
        self._provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_exporter(environ)))
        self.spans = Spans(self._provider.get_tracer(SERVICE, __version__))

    async def start(self) -> None:
        """The listener stands since the start; nothing is opened before the first span is sent."""

    async def close(self) -> None:
        """Send what waits, for `FAREWELL` at most: a collector that is away must not hold up a stop. In a thread of its
        own, which dies with the process."""
        import asyncio

        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def farewell() -> None:
            self._provider.shutdown()
            loop.call_soon_threadsafe(done.set)

        threading.Thread(target=farewell, name="traces", daemon=True).start()
        try:
            async with asyncio.timeout(FAREWELL.total_seconds()):  # noqa: TID251 (of a socket, not of the engine)
                await done.wait()
        except TimeoutError:
            pass


def _exporter(environ: Mapping[str, str]) -> SpanExporter:
    wanted = environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    if wanted == "console":
        import sys

        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter(out=sys.stderr)
    if wanted != "otlp":
        raise Misconfigured("OTEL_TRACES_EXPORTER is none that is known here", mend="otlp, console or none")
    kind = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if kind not in (None, "", "http/protobuf"):
        raise Misconfigured(
            "OTEL_EXPORTER_OTLP_PROTOCOL asks for a protocol that is not spoken here",
            mend="set it to http/protobuf; the port of a collector for that is 4318",
        )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
