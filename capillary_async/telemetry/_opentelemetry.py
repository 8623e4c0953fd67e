"""`OpenTelemetry`: spans and metrics of a session, by the stable semantic conventions for HTTP clients.

Invariant: no query, no id of a customer and no secret is in a span or a metric; a path has `{id}` in place of a number.
An observer, given to `AsyncSession` by users; `opentelemetry-api` (extra `otel`) is loaded with this file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from capillary_async._version import __version__
from capillary_async.telemetry._events import (
    AttemptEnded,
    AttemptStarted,
    CallEnded,
    CallStarted,
    Event,
    GateOpened,
    GateShut,
    KeyFinished,
    LimitChanged,
    PageRead,
    Waited,
)

__all__ = ["OpenTelemetry"]

_NAME = "capillary_async"
_SCHEMA = "https://opentelemetry.io/schemas/1.29.0"
# As the conventions advise for durations of HTTP requests.
_BOUNDS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
_LONG_BOUNDS = [*_BOUNDS, 30, 60, 120, 180]
# A segment of a path with a digit in it is a value, but for the version of the API.
_OWNERS = frozenset({"customer", "customers", "user", "users"})
_VERSION = re.compile(r"v\d+(?:\.\d+)?")
_ERROR = 400


class OpenTelemetry:
    """An observer that makes OpenTelemetry spans and metrics: `AsyncSession(..., observers=[OpenTelemetry()])`.

    Each call is one client span, each of its HTTP requests a child of it, and carries the child's `traceparent`. A call
    of a fan-out is a trace of its own, linked to the span in which the fan-out runs; another call is a child of the
    current span. Metrics: `http.client.request.duration` of each request; `capillary.client.call.duration`,
    `.wait.duration` (by reason), `.retries`, `.records`, `.duplicates`, `.keys`, `.concurrency.limit` and `.gate.shut`.

    Args:
        tracer_provider: The provider of tracers; None for the global one.
        meter_provider: The provider of meters; None for the global one.

    Example:
        >>> session = AsyncSession.from_env(observers=[OpenTelemetry()])  # doctest: +SKIP
    """

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self._tracer = trace.get_tracer(_NAME, __version__, tracer_provider, _SCHEMA)
        self._metrics = _Metrics(metrics.get_meter(_NAME, __version__, meter_provider, _SCHEMA))
        self._propagator = TraceContextTextMapPropagator()
        self._calls: dict[int, _Call] = {}
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            CallStarted: self._call_started,
            AttemptStarted: self._attempt_started,
            AttemptEnded: self._attempt_ended,
            CallEnded: self._call_ended,
            Waited: self._waited,
            GateShut: self._metrics.gate_shut,
            GateOpened: self._metrics.gate_opened,
            LimitChanged: self._metrics.limit_changed,
            PageRead: self._metrics.page_read,
            KeyFinished: self._metrics.key_finished,
        }

    def __call__(self, event: Event, /) -> None:
        """Take one record."""
        handle = self._handlers.get(type(event))
        if handle is not None:
            handle(event)

    def _call_started(self, event: CallStarted) -> None:
        template, url = _without_ids(event.path, event.base_url)
        attributes = {"http.request.method": event.method, "url.template": template, **_server(event.base_url)}
        probe = {"capillary.probe": True} if event.probe else {}
        here = trace.get_current_span().get_span_context()
        span = self._tracer.start_span(
            f"{event.method} {template}",
            context=Context() if event.fan_out else None,
            kind=SpanKind.CLIENT,
            links=[Link(here)] if event.fan_out and here.is_valid else None,
            attributes={**attributes, "capillary.priority": event.priority, **probe},
        )
        self._calls[event.call] = _Call(span, attributes, url)

    def _attempt_started(self, event: AttemptStarted) -> None:
        call = self._calls.get(event.call)
        if call is None:
            return
        inside = trace.set_span_in_context(call.span, Context())
        resent = {"http.request.resend_count": event.number - 1} if event.number > 1 else {}
        attributes = {**call.attributes, "url.full": call.url, **resent}
        method = call.attributes["http.request.method"]
        call.attempt = self._tracer.start_span(method, inside, SpanKind.CLIENT, attributes)
        self._propagator.inject(event.headers, trace.set_span_in_context(call.attempt, Context()))

    def _attempt_ended(self, event: AttemptEnded) -> None:
        call = self._calls.get(event.call)
        if call is None:
            return
        failed = {} if event.kind == "ok" else {"error.type": _error_type(event)}
        status = {} if event.status is None else {"http.response.status_code": event.status}
        if call.attempt is not None:
            call.attempt.set_attributes({**status, **failed})
            if event.kind != "ok":
                call.attempt.set_status(Status(StatusCode.ERROR))
            call.attempt.end()
            call.attempt = None
            self._metrics.requests.record(event.seconds, {**call.attributes, **status, **failed})
        if event.retried:
            self._metrics.retries.add(1, {**call.attributes, **failed})
            call.span.add_event("retry", {"capillary.slept": event.slept, **failed})

    def _call_ended(self, event: CallEnded) -> None:
        call = self._calls.pop(event.call, None)
        if call is None:
            return
        failed = {} if event.error is None else {"error.type": event.error}
        status = {} if event.status is None else {"http.response.status_code": event.status}
        call.span.set_attributes({"capillary.attempts": event.attempts, **status, **failed})
        if failed:
            call.span.set_status(Status(StatusCode.ERROR))
        call.span.end()
        self._metrics.calls.record(event.seconds, {**call.attributes, **failed})

    def _waited(self, event: Waited) -> None:
        self._metrics.waits.record(event.seconds, {"capillary.wait.reason": event.reason})
        call = self._calls.get(event.call)
        if call is not None:
            waited: dict[str, str | float] = {
                "capillary.wait.reason": event.reason,
                "capillary.wait.seconds": event.seconds,
            }
            call.span.add_event("waited", waited)


class _Call:
    """The span of a call under way, and that of its attempt."""

    __slots__ = ("attempt", "attributes", "span", "url")

    def __init__(self, span: Span, attributes: dict[str, Any], url: str) -> None:
        self.span = span
        self.attributes = attributes
        self.url = url
        self.attempt: Span | None = None


class _Metrics:
    """The instruments."""

    def __init__(self, meter: metrics.Meter) -> None:
        def seconds(name: str, description: str, bounds: list[float]) -> metrics.Histogram:
            return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=bounds)

        self.requests = seconds("http.client.request.duration", "Duration of HTTP client requests.", _BOUNDS)
        self.calls = seconds("capillary.client.call.duration", "Calls with retries and waits.", _LONG_BOUNDS)
        self.waits = seconds("capillary.client.wait.duration", "Waits of calls for their permits.", _LONG_BOUNDS)
        self.retries = meter.create_counter("capillary.client.retries", "{retry}", "Attempts after the first.")
        self._records = meter.create_counter("capillary.client.records", "{record}", "Records of pages.")
        self._duplicates = meter.create_counter("capillary.client.duplicates", "{record}", "Records dropped as known.")
        self._keys = meter.create_counter("capillary.client.keys", "{key}", "Keys that fan-outs finished.")
        self._limit = meter.create_gauge("capillary.client.concurrency.limit", "{request}", "The adaptive limit.")
        self._shut = meter.create_up_down_counter("capillary.client.gate.shut", "{session}", "Gates that are shut.")

    def gate_shut(self, event: GateShut) -> None:
        self._shut.add(1, {"capillary.gate.reason": event.reason})

    def gate_opened(self, event: GateOpened) -> None:
        self._shut.add(-1, {"capillary.gate.reason": event.reason})

    def limit_changed(self, event: LimitChanged) -> None:
        self._limit.set(event.limit)

    def page_read(self, event: PageRead) -> None:
        attributes = {"capillary.endpoint": event.endpoint}
        self._records.add(event.records, attributes)
        if event.duplicates:
            self._duplicates.add(event.duplicates, attributes)

    def key_finished(self, event: KeyFinished) -> None:
        failed = {} if event.error is None else {"error.type": event.error}
        self._keys.add(1, {"capillary.endpoint": event.endpoint, **failed})


def _server(base_url: str) -> dict[str, Any]:
    parts = urlsplit(base_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return {"server.address": parts.hostname or "", "server.port": port}


def _without_ids(path: str, base_url: str) -> tuple[str, str]:
    """The template of a path, and the URL with `REDACTED` for each value in the path."""
    segments = path.split("/")
    values = [_is_value(one, before) for one, before in zip(segments, ["", *segments], strict=False)]
    template = "/".join("{id}" if value else one for one, value in zip(segments, values, strict=True))
    hidden = "/".join("REDACTED" if value else one for one, value in zip(segments, values, strict=True))
    return template, f"{base_url}{hidden}"


def _is_value(segment: str, before: str) -> bool:
    """Whether a segment of a path is a value, e.g. the id of a customer."""
    odd = before in _OWNERS or re.search(r"[\d@%]", segment) is not None
    return odd and _VERSION.fullmatch(segment) is None


def _error_type(event: AttemptEnded) -> str:
    """The status where it is an error, as the conventions say; else the kind of the failure."""
    return str(event.status) if event.status is not None and event.status >= _ERROR else event.kind
