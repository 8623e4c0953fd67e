"""One task: a session in a thread of its own, and the Arrow batches of its keys.

Invariant: rows are in the order of the keys, so that a repeated task gives the same; memory is bounded; and a task
that ends early leaves no request and no thread. Called by Spark's workers.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from capillary_async import AsyncSession, Limits, Paging, Rate
from capillary_async.blocking._loop import LoopThread
from capillary_async.errors import CapillaryError
from capillary_async.spark._columns import ERROR, ERROR_FIELD, arrow_schema, of_model
from capillary_async.spark._credentials import credentials_of, limiter_of
from capillary_async.spark._options import Settings
from capillary_async.tables._batches import ASKED_KEY, BatchBuilder, BatchIterator
from capillary_async.tables._doors import Part
from capillary_async.tables._imports import pa
from capillary_async.tables._schema import kind_of, schema

__all__ = ["SparkReadError", "read_keys"]

ROWS = 2_048  # of a batch: when Spark wants no more, at most these are read in vain
Failures = list[tuple[Any, CapillaryError]]


class SparkReadError(CapillaryError):
    """A task failed. Spark keeps the text of an error alone, so the text has key, page, status and request id."""


def read_keys(keys: Iterable[Any], columns: Any, settings: Settings) -> Iterator[Any]:
    """The rows of the keys as `pyarrow.RecordBatch`es with these columns.

    Args:
        keys: Distinct keys; an iterator is read as it is needed, in this thread.
        columns: The `StructType` that Spark expects.
        settings: What to read.

    Raises:
        SparkReadError: A key failed, or what concerns every key.
    """
    session = _session(settings)
    loop = LoopThread(session)
    failures: Failures | None = [] if settings.permissive else None
    wanted = arrow_schema(columns)
    try:
        yield from _batches(loop, lambda: _begin(session, keys, settings, wanted, failures), wanted)
        if failures:
            yield from _failed(failures, settings, wanted)
    finally:
        loop.close(session)
        if settings.rate_per_task is not None and settings.limiter is None:
            time.sleep(_rate(settings.rate_per_task).per)  # the next task of this slot begins a window of its own


def _batches(loop: LoopThread, begin: Any, wanted: Any) -> Iterator[Any]:
    try:
        for batch in loop.iterate(begin):
            yield _fitted(batch, wanted)
    except CapillaryError as error:
        _raise(error)


def _session(settings: Settings) -> AsyncSession:
    auth = credentials_of(settings.credential, username=settings.username, client_key=settings.client_key)
    limits, paging = Limits(), Paging(verify=settings.verify)
    more: dict[str, Any] = {} if settings.base_url is None else {"base_url": settings.base_url}
    if settings.concurrency is not None:
        start = min(limits.concurrency_start, settings.concurrency)
        limits = Limits(concurrency=settings.concurrency, concurrency_start=start)
    if settings.rate_per_task is not None:
        rate = _rate(settings.rate_per_task, settings.limiter)
        limits = Limits(limits.concurrency, limits.concurrency_start, rate)
    if settings.page_size is not None:
        paging = Paging(page_size=settings.page_size, verify=settings.verify)
    return AsyncSession.from_env(auth=auth, limits=limits, paging=paging, **more)


def _rate(per_second: float, limiter: str | None = None) -> Rate:
    permits = max(int(per_second), 1)
    return Rate(permits, permits / per_second, None if limiter is None else limiter_of(limiter))


def _begin(
    session: AsyncSession, keys: Iterable[Any], settings: Settings, wanted: Any, failures: Failures | None
) -> BatchIterator:
    resource = settings.resource
    names = of_model(wanted.names)
    builder = BatchBuilder(resource.table, names or [schema(resource.model).names[0]], ROWS)
    outcomes = resource.outcomes(session, keys, settings.query, max_wait=settings.max_wait)
    return BatchIterator(_Parts(outcomes, resource, failures), builder)


class _Parts:
    """Outcomes as the parts of a table; errors go where there is a place for them, else they are raised."""

    def __init__(self, outcomes: Any, resource: Any, failures: Failures | None) -> None:
        self._outcomes = outcomes
        self._resource = resource
        self._failures = failures

    async def __anext__(self) -> Part:
        outcome = self._resource.finished(await anext(self._outcomes))
        if outcome.error is not None:
            if self._failures is None:
                raise outcome.error
            self._failures.append((outcome.key, outcome.error))
        return Part(outcome.key, outcome.items, last=True)

    async def aclose(self) -> None:
        await self._outcomes.aclose()


def _fitted(batch: Any, wanted: Any) -> Any:
    """The batch with the columns and types that Spark expects."""
    if ERROR in wanted.names:
        batch = batch.append_column(ERROR_FIELD, pa.nulls(batch.num_rows, ERROR_FIELD.type))
    return batch.select(wanted.names).cast(wanted)


def _failed(failures: Failures, settings: Settings, wanted: Any) -> Iterator[Any]:
    """A row for each failed key, after all others."""
    kind, convert = kind_of(settings.resource.key)
    for first in range(0, len(failures), ROWS):
        some = failures[first : first + ROWS]
        keys = [convert(key) if convert else key for key, _ in some]
        known = {
            ASKED_KEY: pa.array(keys, kind),
            ERROR: pa.array([_facts(error) for _, error in some], ERROR_FIELD.type),
        }
        arrays = [
            known[field.name].cast(field.type) if field.name in known else pa.nulls(len(some), field.type)
            for field in wanted
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=wanted)


def _facts(error: CapillaryError) -> dict[str, Any]:
    """What `_error` says."""
    return {
        "type": type(error).__name__,
        "message": error.message,
        "status": getattr(error, "status", None),
        "page": getattr(error.position, "page", None),
        "request_id": getattr(error, "request_id", None),
    }


def _raise(error: CapillaryError) -> NoReturn:
    facts = _facts(error)
    named = {"key": error.key, "page": facts["page"], "status": facts["status"], "request id": facts["request_id"]}
    known = ", ".join(f"{name} {value}" for name, value in named.items() if value is not None)
    text = f"{facts['type']}{f' ({known})' if known else ''}: {facts['message']}"
    raise SparkReadError(text) from None
