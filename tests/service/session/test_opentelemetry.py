"""`telemetry.OpenTelemetry` with the real SDK: spans, links, metrics, and `traceparent` as the server saw it."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.paths import ROOT
from support.raw_server import Answer, RawServer, http, said

from capillary_async import AsyncSession, Limits, OAuthClient, RetryPolicy
from capillary_async.errors import CapillaryError
from capillary_async.telemetry import OpenTelemetry

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

Make = Callable[..., AsyncSession]
OK = http(b'{"a": 1}')
TOKEN_PATH = "v3/oauth/token/generate"
TOKEN = said({"data": {"accessToken": "t0k3n-0f-0urs", "ttlSeconds": 300}, "errors": None})


class Seen:
    """Providers that keep what they are given in memory."""

    def __init__(self) -> None:
        self._spans, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers, self.meters = TracerProvider(), MeterProvider([self._reader])
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.observer = OpenTelemetry(self.tracers, self.meters)
        self.tracer = self.tracers.get_tracer("test")

    @property
    def spans(self) -> list[ReadableSpan]:
        """In the order of their beginning."""
        return sorted(self._spans.get_finished_spans(), key=lambda span: span.start_time or 0)

    @property
    def metrics(self) -> dict[str, list[tuple[dict[str, Any], Any]]]:
        """By name: attributes and value of each series; of histograms the count."""
        data = self._reader.get_metrics_data()
        resources = [] if data is None else data.resource_metrics
        scopes = [scope for resource in resources for scope in resource.scope_metrics]
        return {
            metric.name: [
                (dict(point.attributes or {}), getattr(point, "value", None) or getattr(point, "count", 0))
                for point in metric.data.data_points
            ]
            for scope in scopes
            for metric in scope.metrics
        }

    def text(self) -> str:
        """All that is exported."""
        return "".join(span.to_json() for span in self.spans) + json.dumps(self.metrics)

    def close(self) -> None:
        self.tracers.shutdown()
        self.meters.shutdown()


@pytest.fixture
def seen() -> Iterator[Seen]:
    made = Seen()
    yield made
    made.close()


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_one_span_a_call_and_one_child_an_attempt(session_at: Make, seen: Seen):
    """With the conventions' attributes, and no id, query or secret."""
    answers = (http(b"", 503), http(b'{"data": []}', headers={"X-CAP-REQUEST-ID": "r-1"}))
    async with RawServer(*answers) as server:
        session = session_at(server.url, observers=[seen.observer])
        await session.request("GET", "/v2/customers/565039505/loyaltyEvents", params={"mobile": "hunted"})
        wire = [request.headers["traceparent"] for request in server.seen]
        place = {"server.address": "127.0.0.1", "server.port": server.port}
        url = f"{server.url}/v2/customers/REDACTED/loyaltyEvents"
    call, first, second = seen.spans
    template = "/v2/customers/{id}/loyaltyEvents"
    same = {"http.request.method": "GET", "url.template": template, **place}
    assert call.name == f"GET {template}"
    assert attributes(call) == {
        **same, "capillary.priority": "interactive", "capillary.attempts": 2, "http.response.status_code": 200,
    }  # fmt: skip
    assert attributes(first) == {
        **same, "url.full": url, "http.response.status_code": 503, "error.type": "503",
    }  # fmt: skip
    assert attributes(second) == {
        **same, "url.full": url, "http.response.status_code": 200, "http.request.resend_count": 1,
    }  # fmt: skip
    assert [span.kind for span in seen.spans] == [SpanKind.CLIENT] * 3
    codes = [span.status.status_code for span in seen.spans]
    assert codes == [StatusCode.UNSET, StatusCode.ERROR, StatusCode.UNSET]
    assert first.parent == second.parent == call.context
    assert [event.name for event in call.events] == ["retry"]
    ids = [(format_trace_id(one.context.trace_id), format_span_id(one.context.span_id)) for one in (first, second)]
    assert [value.split("-")[:3] for value in wire] == [["00", *pair] for pair in ids]
    assert [int(value[-2:], 16) & 1 for value in wire] == [1, 1]  # sampled
    for private in ("565039505", "hunted", "till", "Basic"):
        assert private not in seen.text()


async def test_a_call_is_a_child_of_the_current_span(session_at: Make, seen: Seen):
    async with RawServer(OK) as server:
        session = session_at(server.url, observers=[seen.observer])
        with seen.tracer.start_as_current_span("handler") as handler:
            await session.request("GET", "/path")
    _, call, attempt = seen.spans
    assert call.parent == handler.get_span_context()
    assert attempt.parent == call.context


async def test_the_pages_of_a_list_are_children_of_their_caller(session_at: Make, seen: Seen):
    """Though tasks of their own read ahead."""

    class Server(RawServer):
        def answer_to(self, target: str) -> Answer:
            number = int(target.partition("&page=")[2].partition("&")[0])
            return said([{"id": number * 100 + at, "customer_id": 5} for at in range(100)]) if number < 4 else said([])

    async with Server() as server:
        session = session_at(server.url, observers=[seen.observer])
        with seen.tracer.start_as_current_span("handler") as handler:
            rows = session.points_allocation.by_event(entity_id=1, customer_id=5, event_type_id=1)
            await rows.options(max_items=250).collect()
    calls = [span for span in seen.spans if span.name.startswith("GET /")]
    assert len(calls) > 2
    assert all(span.parent == handler.get_span_context() for span in calls)


async def test_the_calls_of_a_fan_out_are_linked_to_their_caller(session_at: Make, seen: Seen):
    """Each is a trace of its own, so that a million keys make no trace of a million spans; the tree is documented."""

    class Server(RawServer):
        def answer_to(self, target: str) -> Answer:
            customer = target.split("/")[3]
            if sum("/7/" in one.target for one in self.seen) == 1 and customer == "7":
                return http(b"", 502)
            return said({"data": [{"id": int(customer), "customerId": int(customer)}]})

    async with Server() as server:
        session = session_at(server.url, observers=[seen.observer], limits=Limits(concurrency=1))
        with seen.tracer.start_as_current_span("nightly") as nightly:
            await session.loyalty_events.list_many([7, 8]).options(concurrency=2).collect()
    calls = [span for span in seen.spans if span.name.startswith("GET /")]
    assert [span.parent for span in calls] == [None, None]
    assert [[link.context for link in span.links] for span in calls] == [[nightly.get_span_context()]] * 2
    traces = {span.context.trace_id for span in seen.spans}
    assert len(traces) == 3
    assert tree(seen.spans) in (ROOT / "docs" / "reference" / "telemetry.md").read_text()


def tree(spans: list[ReadableSpan]) -> str:
    """The spans as text: children below their parents, links by the names of what they lead to."""
    names = {span.context.span_id: span.name for span in spans}

    def lines(span: ReadableSpan, depth: int) -> Iterator[str]:
        links = "".join(f" (linked to {names[link.context.span_id]})" for link in span.links)
        shown = [attributes(span).get(name) for name in ("http.response.status_code", "error.type")]
        said = ", ".join(str(value) for value in dict.fromkeys(map(str, filter(None, shown)))) if depth else ""
        yield f"{'   ' * depth}{span.name}{links}{f' -> {said}' if said else ''}"
        for child in spans:
            if child.parent is not None and child.parent.span_id == span.context.span_id:
                yield from lines(child, depth + 1)

    return "\n".join(line for span in spans if span.parent is None for line in lines(span, 0))


async def test_metrics_by_the_conventions(session_at: Make, seen: Seen):
    async with RawServer(http(b"", 429, {"Retry-After": "0.01"}), said({"data": []}), http(b"", 404)) as server:
        session = session_at(server.url, observers=[seen.observer], retry=RetryPolicy(backoff=0))
        await session.loyalty_events.list_many([5]).collect()
        with pytest.raises(CapillaryError):
            await session.request("GET", "/v2/customers/9")
    found = seen.metrics
    requests = found["http.client.request.duration"]
    durations = [(one["http.response.status_code"], one.get("error.type"), number) for one, number in requests]
    assert sorted(durations) == [(200, None, 1), (404, "404", 1), (429, "429", 1)]
    assert {one["url.template"] for one, _ in requests} == {
        "/v2/customers/{id}/loyaltyEvents", "/v2/customers/{id}",
    }  # fmt: skip
    assert sum(number for _, number in found["capillary.client.call.duration"]) == 2
    assert [number for _, number in found["capillary.client.retries"]] == [1]
    assert [(one["capillary.endpoint"], number) for one, number in found["capillary.client.keys"]] == [
        ("loyalty_events.list_many", 1)
    ]
    assert [number for _, number in found["capillary.client.concurrency.limit"]] == [5]
    assert [one for one, _ in found["capillary.client.gate.shut"]] == [{"capillary.gate.reason": "retry-after"}]


async def test_the_token_and_its_secret_are_not_exported(session_at: Make, seen: Seen):
    async with RawServer(OK, **{TOKEN_PATH: [TOKEN]}) as server:
        session = session_at(server.url, auth=OAuthClient("key", "s3cret-s3cret"), observers=[seen.observer])
        await session.request("GET", "/path")
        assert all("traceparent" in request.headers for request in server.seen)
    assert f"POST /{TOKEN_PATH}" in [span.name for span in seen.spans]
    for secret in ("s3cret", "t0k3n"):
        assert secret not in seen.text()


async def test_a_cancelled_call_ends_its_spans(session_at: Make, seen: Seen):
    async with RawServer(OK.but(then="stall", data=b"")) as server:
        call = asyncio.ensure_future(session_at(server.url, observers=[seen.observer]).request("GET", "/path"))
        await server.until(1)
        call.cancel()
        await asyncio.wait([call])
    call_span, attempt = seen.spans
    assert attributes(attempt)["error.type"] == "cancelled"
    assert attributes(call_span)["error.type"] == "CancelledError"
    assert not seen.observer._calls


async def test_without_a_provider_nothing_is_sent(session_at: Make):
    """The global one of a process that has set none up."""
    async with RawServer(OK) as server:
        assert await session_at(server.url, observers=[OpenTelemetry()]).request("GET", "/path") == {"a": 1}
        assert "traceparent" not in server.seen[0].headers


async def test_one_observer_for_two_sessions(session_at: Make, seen: Seen):
    async with RawServer(OK) as one, RawServer(OK) as two:
        calls = [session_at(server.url, observers=[seen.observer]).request("GET", "/path") for server in (one, two)]
        await asyncio.gather(*calls)
        assert {attributes(span)["server.port"] for span in seen.spans} == {one.port, two.port}
    assert len(seen.spans) == 4
