"""A web service on one session: readiness, correlation ids, metrics, a streamed answer, and an end in good order.

Run it with `uvicorn service:app --timeout-graceful-shutdown 20`; the environment names cluster and credentials.
"""

import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import date
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from capillary_async import AsyncSession, CapillaryError, CustomerNotFoundError, Handler, RetryPolicy, Timeouts
from capillary_async import Request as Call
from capillary_async import Response as Answer
from capillary_async.telemetry import OpenTelemetry

HEADER = "X-Correlation-ID"
correlation: ContextVar[str] = ContextVar("correlation", default="-")


# --- correlation ids: from the caller, into each log record, and on to Capillary --------------------------------------


class Correlated:
    """Sets the id for the request's own task; every task that the session starts for it inherits that."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Take the caller's id, or make one, and answer with it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        found = dict(scope["headers"]).get(HEADER.lower().encode(), b"").decode("latin-1")
        token = correlation.set(found if found.isascii() and found.isprintable() and found else uuid.uuid4().hex)

        async def answering(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (HEADER.lower().encode(), correlation.get().encode())]
            await send(message)

        try:
            await self._app(scope, receive, answering)
        finally:
            correlation.reset(token)


async def correlated(call: Call, handler: Handler) -> Answer:
    """Send the id along with each call of the session."""
    return await handler(call.with_header(HEADER, correlation.get()))


def with_correlation(record: logging.LogRecord) -> bool:
    """A filter for the handlers of the log: `%(correlation)s` beside the session's own fields."""
    record.correlation = correlation.get()
    return True


# --- one session for the process --------------------------------------------------------------------------------------


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the session with the server; at its end, requests are over, and the session closes its connections."""
    meters = MeterProvider([PrometheusMetricReader()])
    observer = OpenTelemetry(meter_provider=meters)
    try:
        async with AsyncSession.from_env(observers=[observer], middlewares=[correlated]) as capillary:
            app.state.capillary = capillary
            app.state.probe = capillary.with_options(retry=RetryPolicy(attempts=1), timeouts=Timeouts(call=2))
            yield
    finally:
        meters.shutdown()


app = FastAPI(lifespan=lifespan)
app.add_middleware(Correlated)


@app.exception_handler(CapillaryError)
async def failed(request: Request, error: CapillaryError) -> JSONResponse:
    """404 for a customer that is not there, 503 where it may pass, else 502; the text is for the log."""
    logging.getLogger("service").warning("%s: %s", request.url.path, error)
    if isinstance(error, CustomerNotFoundError):
        return JSONResponse({"detail": "no such customer"}, 404)
    if error.is_definitive:
        return JSONResponse({"detail": "the loyalty service refused"}, 502)
    after = "1" if error.retry_after is None else str(max(1, round(error.retry_after)))
    return JSONResponse({"detail": "the loyalty service does not answer"}, 503, {"Retry-After": after})


# --- probes and metrics -----------------------------------------------------------------------------------------------


@app.get("/live")
async def live() -> dict[str, str]:
    """The process runs. This sends no request, or an outage of the API would restart every pod."""
    return {"status": "live"}


@app.get("/ready")
async def ready(request: Request) -> dict[str, Any]:
    """The API answers this service's credentials."""
    try:
        seconds = await request.app.state.probe.ping()
    except CapillaryError as error:
        raise HTTPException(503, type(error).__name__) from error
    stats = request.app.state.capillary.stats
    return {"seconds": round(seconds, 3), "gate": stats.gate, "in_flight": stats.in_flight, "queued": stats.queued}


@app.get("/metrics")
async def metrics() -> Response:
    """For Prometheus."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


# --- what the service is for ------------------------------------------------------------------------------------------


@app.get("/customers/{customer_id}/points")
async def points(request: Request, customer_id: int, program_id: int, point_category_id: int) -> StreamingResponse:
    """The points of a customer as JSON Lines, page by page; the reading ends when the client goes."""
    capillary: AsyncSession = request.app.state.capillary
    rows = capillary.points_allocation.by_expiry(
        entity_id=customer_id,
        program_id=program_id,
        point_category_id=point_category_id,
        expiry_date_start=date(2000, 1, 1),
        expiry_date_end=date(2099, 12, 31),
    )
    pages = rows.pages()
    first = await anext(pages, None)  # before the answer begins, so that an error has its own status

    async def lines() -> AsyncIterator[bytes]:
        page = first
        try:
            while page is not None:
                yield b"".join(row.to_json() + b"\n" for row in page.items)
                page = await anext(pages, None)
        finally:
            await pages.aclose()  # a client that went leaves no request behind

    return StreamingResponse(lines(), media_type="application/x-ndjson")
