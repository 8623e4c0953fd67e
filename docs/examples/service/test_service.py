"""Tests of the service with the sandbox of the pytest plugin: no server is started but the sandbox."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from capillary_async.sandbox import Sandbox, ServerFailure

pytest.importorskip("opentelemetry.exporter.prometheus")

import service


@pytest.fixture
def capillary_sandbox_options() -> dict[str, Any]:
    return {"customers": 20, "whales": 1, "whale_rows": 2000}


@pytest.fixture
async def client(capillary_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    monkeypatch.setenv("CAPILLARY_BASE_URL", capillary_sandbox.url)
    monkeypatch.setenv("CAPILLARY_USERNAME", capillary_sandbox.username)
    monkeypatch.setenv("CAPILLARY_PASSWORD", capillary_sandbox.password)
    async with service.app.router.lifespan_context(service.app):
        transport = httpx.ASGITransport(service.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as opened:
            yield opened


def points_of(sandbox: Sandbox, customer_id: int) -> str:
    query = f"program_id={sandbox.program_id}&point_category_id={sandbox.point_category_id}"
    return f"/customers/{customer_id}/points?{query}"


async def test_points_are_streamed_whole(client: httpx.AsyncClient, capillary_sandbox: Sandbox) -> None:
    customer_id = capillary_sandbox.customer_ids[0]
    answer = await client.get(points_of(capillary_sandbox, customer_id))
    assert answer.status_code == 200
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert len(rows) == len(capillary_sandbox.allocations(customer_id))


async def test_a_client_that_goes_ends_the_reading(client: httpx.AsyncClient, capillary_sandbox: Sandbox) -> None:
    """2,000 rows are 20 pages; after the first one nobody listens any more."""
    path, _, query = points_of(capillary_sandbox, capillary_sandbox.whale_ids[0]).partition("?")
    gone = asyncio.Event()
    sent: list[bytes] = []

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body" and message["body"]:
            sent.append(message["body"])
            gone.set()
            await asyncio.sleep(0.05)

    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET",
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
        "headers": [], "client": ("127.0.0.1", 1), "server": ("service", 80),
    }  # fmt: skip
    await service.app(scope, receive, send)
    assert len(sent) < 5
    await asyncio.sleep(0.1)  # what was sent arrives
    requests = capillary_sandbox.requests
    assert requests < 12
    await asyncio.sleep(0.1)
    assert capillary_sandbox.requests == requests
    assert service.app.state.capillary.stats.in_flight == 0


async def test_an_error_has_a_status_of_its_own(client: httpx.AsyncClient, capillary_sandbox: Sandbox) -> None:
    """Since the first page is read before the answer begins."""
    capillary_sandbox.add_faults(ServerFailure(503, retry_after=500))
    answer = await client.get(points_of(capillary_sandbox, capillary_sandbox.customer_ids[0]))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "500")


async def test_ready_while_the_service_answers(client: httpx.AsyncClient, capillary_sandbox: Sandbox) -> None:
    answer = await client.get("/ready")
    assert answer.status_code == 200
    assert answer.json()["gate"] == "open"
    capillary_sandbox.add_faults(ServerFailure(500))
    assert (await client.get("/ready")).status_code == 503
    assert (await client.get("/live")).status_code == 200


async def test_correlation_ids(
    client: httpx.AsyncClient, capillary_sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """From the caller to Capillary, into the log, and back; of two requests at once, each has its own."""
    path = points_of(capillary_sandbox, capillary_sandbox.customer_ids[0])
    with caplog.filtering(service.with_correlation), caplog.at_level(logging.DEBUG, "capillary_async"):
        answers = await asyncio.gather(
            *(client.get(path, headers={service.HEADER: name}) for name in ("one", "two")), client.get("/live")
        )
    assert [answer.headers[service.HEADER] for answer in answers[:2]] == ["one", "two"]
    assert len(answers[2].headers[service.HEADER]) == 32
    assert {seen.headers[service.HEADER] for seen in capillary_sandbox.journal} == {"one", "two"}
    assert {vars(record)["correlation"] for record in caplog.records if record.name == "capillary_async"} == {
        "one", "two",
    }  # fmt: skip


async def test_metrics_for_prometheus(client: httpx.AsyncClient, capillary_sandbox: Sandbox) -> None:
    """By the names of the HTTP conventions, without any id of a customer."""
    customer_id = capillary_sandbox.customer_ids[0]
    await client.get(points_of(capillary_sandbox, customer_id))
    text = (await client.get("/metrics")).text
    assert "http_client_request_duration_seconds_count{" in text
    assert "capillary_client_records_total{" in text
    assert str(customer_id) not in text


async def test_the_end_waits_for_no_request_and_leaves_none(capillary_sandbox: Sandbox, monkeypatch: Any) -> None:
    """Servers end requests before the lifespan ends; what is still read then is cancelled with the session."""
    for name in ("url", "username", "password"):
        variable = {"url": "BASE_URL"}.get(name, name.upper())
        monkeypatch.setenv(f"CAPILLARY_{variable}", getattr(capillary_sandbox, name))
    async with service.app.router.lifespan_context(service.app):
        session = service.app.state.capillary
        reading = asyncio.ensure_future(session.loyalty_events.list(capillary_sandbox.customer_ids[0]).collect())
        await asyncio.sleep(0)
    with suppress(RuntimeError, asyncio.CancelledError):
        await reading
    assert session.closed
    assert capillary_sandbox.in_flight == 0
