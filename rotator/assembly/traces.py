"""Whether there are traces, and where from: without them OpenTelemetry is not imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rotator.assembly.plan import Plan
from rotator.core import extras

if TYPE_CHECKING:
    from rotator.frontends.tracing import Tracing

# Any of these names a place (opentelemetry.io, "OTLP exporter configuration" and "general SDK configuration").
PLACES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")


def of(plan: Plan) -> Tracing | None:
    """None unless both the configuration wants traces and the environment says where they go.

    Both, for each alone is an accident: platforms put OTEL_* into every process, and a daemon that holds refresh tokens
    must not begin to send because of its surroundings; and the SDK without a place sends to localhost:4318, whoever
    listens there. Raises Misconfigured where the package is not installed.
    """
    environ = plan.environ
    if not plan.settings.traces.enabled or not any(environ.get(name) for name in PLACES):
        return None
    if environ.get("OTEL_TRACES_EXPORTER") == "none" or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from rotator.frontends.tracing import Tracing
    except ImportError:
        raise extras.lacking("traces.enabled needs the packages of OpenTelemetry", "otel") from None
    return Tracing(environ)


def warnings(plan: Plan) -> tuple[str, ...]:
    """What the daemon tells at its start where traces are wanted and can go nowhere."""
    if not plan.settings.traces.enabled or any(plan.environ.get(name) for name in PLACES):
        return ()
    return ("traces.enabled has no effect: set OTEL_EXPORTER_OTLP_ENDPOINT in the environment of the service",)
