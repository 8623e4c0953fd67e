"""`FanOut`: one query for many keys, and its options.

Invariant: a fan-out has no position, so that a second loop reads everything again; invalid arguments raise before the
first request. Knows no HTTP. Called by the endpoints (`fan_over`) and users.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, Literal, TypeVar, cast, overload

from attrs import evolve

from capillary_async._config import CarefulPaging, Paging
from capillary_async._fanout.iterator import (
    FanOutIterator,
    KeyedPageIterator,
    OrderedIterator,
    OutcomeIterator,
    RecordIterator,
)
from capillary_async._fanout.keys import KeySource
from capillary_async._fanout.outcome import FanOutOptions, FanOutRun, Outcome
from capillary_async._fanout.work import BatchReader, PagedReader, Reader
from capillary_async._html import card
from capillary_async._paging.misuse import AsyncOnly
from capillary_async._paging.pager import Page, SessionHooks
from capillary_async._priority import BulkWork
from capillary_async._progress import Bar, asked_bar
from capillary_async._repr import cut
from capillary_async._validation import flag, refuse, whole
from capillary_async.errors import CapillaryError, InvalidRequestError
from capillary_async.tables._doors import ROWS, Part, Parts, TableSource, Tabular, table_of

__all__ = ["BatchReader", "FanOut", "FanOutIterator", "Outcome", "PagedReader", "fan_over"]

K = TypeVar("K")
K_co = TypeVar("K_co", covariant=True)
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
V = TypeVar("V")


class FanOut(Tabular, AsyncOnly, Generic[K_co, T_co]):
    """One query for many keys, sent concurrently.

    `async for outcome in fan` gives one `Outcome` per key, as they finish.

    A failed key does not stop the others. An outage does not use up the input: while the session's retry quota is empty
    no new key is read, and keys that failed without retries are retried. The loop raises the errors that concern every
    key: `AuthenticationError`, `TLSError`, and an outage longer than `Timeouts.call`; keys without an outcome were not
    answered.

    The input is any iterable or async iterable, read by one task at most 256 keys ahead of the requests in flight; its
    own error is raised after the outcomes in flight.
    """

    __slots__ = ("__weakref__", "_name", "_owner", "_plan")

    def __init__(self, plan: FanOutRun[K_co, T_co], name: str, owner: SessionHooks) -> None:
        self._plan = plan
        self._name = name
        self._owner = owner

    def options(
        self,
        *,
        concurrency: int | None = None,
        paging: Paging | None = None,
        unique: bool | None = None,
        progress: bool | None = None,
    ) -> FanOut[K_co, T_co]:
        """A copy with other options; an option that is not given stays as it is.

        Args:
            concurrency: Maximum workers; the session's `Limits.concurrency` also bounds their requests.
            paging: How the list of each key is read.
            unique: False to read a repeated key each time, which saves the memory of the keys read: about 70
                bytes for each key that is a number, 90 for an `EventQuery`.
            progress: True to count finished keys on a tqdm bar, in terminals and notebooks. Needs the extra `notebook`.

        Raises:
            ModuleNotFoundError: tqdm is not installed; the message names the pip command.
            InvalidRequestError: A value is invalid, or the endpoint does not take the page size.
        """
        if concurrency is not None:
            whole("concurrency", concurrency, 1)
        if paging is not None and not isinstance(cast("object", paging), Paging):
            raise refuse("paging", "a Paging", paging)
        if unique is not None:
            flag("unique", unique)
        given = {"concurrency": concurrency, "paging": paging, "unique": unique, "progress": asked_bar(progress)}
        changed: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        options = evolve(self._plan.options, **changed)
        self._plan.reader.check_paging(options.paging)
        return FanOut(evolve(self._plan, options=options), self._name, self._owner)

    def _careful(self) -> FanOut[K_co, T_co]:
        """A copy that reads one more page after each short page 1 that may be a server's cap. For the jobs."""
        paging = self._plan.options.paging
        return self.options(paging=CarefulPaging(paging.page_size, paging.prefetch, paging.verify))

    def _waiting(self, max_wait: float | None, throttled_tries: int) -> FanOut[K_co, T_co]:
        """A copy whose calls wait otherwise for a service that is down. For the jobs.

        Args:
            max_wait: As in `BulkWork`.
            throttled_tries: As in `BulkWork`.
        """
        return FanOut(evolve(self._plan, work=BulkWork(max_wait, throttled_tries)), self._name, self._owner)

    def _tracked(self, iterator: FanOutIterator[V]) -> FanOutIterator[V]:
        """The iterator, closed with the session."""
        self._owner.track(iterator)
        return iterator

    def _bar(self) -> Bar | None:
        plan = self._plan
        return Bar(cut(self._name, 100), "keys", plan.keys.length) if plan.options.progress else None

    def __aiter__(self) -> FanOutIterator[Outcome[K_co, T_co]]:
        """One outcome per key, as they finish."""
        return self._tracked(OutcomeIterator[K_co, T_co](self._plan, self._bar()))

    def ordered(self) -> FanOutIterator[Outcome[K_co, T_co]]:
        """One outcome per key, in the order of the input.

        At most 2 x concurrency units are buffered: that many outcomes, or batches of outcomes.
        """
        return self._tracked(OrderedIterator[K_co, T_co](evolve(self._plan, ordered=True), self._bar()))

    def items(self) -> FanOutIterator[T_co]:
        """The records of all keys, as they come.

        Raises (while looping):
            CapillaryError: The first error of a key, as itself, with `.key`.
        """
        return self._tracked(RecordIterator[T_co](evolve(self._plan, whole=False), self._bar()))

    def pages(self) -> FanOutIterator[tuple[K_co, Page[T_co]]]:
        """`(key, page)` as they come, for customers with too many records for one outcome.

        The last page of a key has `.last` true and may be empty.

        Raises (while looping):
            CapillaryError: The first error of a key, as itself, with `.key`.
        """
        return self._tracked(KeyedPageIterator[K_co, T_co](evolve(self._plan, whole=False), self._bar()))

    async def collect(self) -> dict[K_co, Outcome[K_co, T_co]]:
        """All outcomes by key, errors included.

        The key of an invalid input is the raw value, or its `repr` where it has no hash or equals a valid key, as
        `True` equals 1.
        """
        outcomes: dict[Any, Outcome[K_co, T_co]] = {}
        refused: list[Outcome[K_co, T_co]] = []
        iterator = aiter(self)
        try:
            async for outcome in iterator:
                if isinstance(outcome.error, InvalidRequestError):
                    refused.append(outcome)
                else:
                    outcomes[outcome.key] = outcome
        finally:
            await iterator.aclose()
        for outcome in refused:
            outcomes[_name_beside(outcomes, outcome.key)] = outcome
        return outcomes

    @overload
    async def to_arrow(self, columns: Iterable[str] | None = None, *, partial: Literal[False] = False) -> Any: ...
    @overload
    async def to_arrow(
        self, columns: Iterable[str] | None = None, *, partial: Literal[True]
    ) -> tuple[Any, dict[K_co, CapillaryError]]: ...
    async def to_arrow(self, columns: Iterable[str] | None = None, *, partial: bool = False) -> Any:
        """All rows as a `pyarrow.Table`: `asked_key`, then the columns of `capillary_async.tables.schema(model)`.

        The keys are in the order of the input. Amounts are decimal128(18, 3) and never rounded. Needs the extra
        `arrow`.

        Args:
            columns: The columns after `asked_key`, in this order; None for all. Fewer are faster.
            partial: True to return `(table, failures)`, where a failed key raises otherwise. `failures` is a dict of
                key to error; the table has no rows of these keys.

        Raises:
            InvalidRequestError: A column does not exist. Nothing is sent.
            ModuleNotFoundError: pyarrow is not installed.
            UnfitError: A value does not fit its column; the message names key, row and field.
            CapillaryError: The first error of a key, with `.key`; with `partial` only what concerns every key.
        """
        flag("partial", partial)
        failures: dict[Any, CapillaryError] | None = {} if partial else None
        table = await table_of(self._batches(ROWS, columns, ordered=True, failures=failures))
        return (table, failures) if partial else table

    def _raw_rows(self) -> FanOut[K_co, Any]:
        """A copy that gives raw rows with these fields, where the endpoint can; for tables and the jobs."""
        return FanOut(evolve(self._plan, reader=self._plan.reader.raw_rows()), self._name, self._owner)

    def _table_source(self) -> TableSource | None:
        return self._plan.reader.table

    def _parts(self, *, ordered: bool, failures: dict[Any, CapillaryError] | None) -> Parts:
        raw = self._raw_rows()
        return _OutcomeParts(raw.ordered(), failures) if ordered else _PageParts(raw.pages())

    def _repr_html_(self) -> str:
        options, length = self._plan.options, self._plan.keys.length
        facts = {"calls": self._name, "keys": "an iterator" if length is None else f"{length:,}"}
        workers = {"concurrency": options.concurrency, "paging": options.paging}
        return card("FanOut", {**facts, **workers, "read": "by a loop, collect(), to_arrow()"})

    def __repr__(self) -> str:
        length = self._plan.keys.length
        return f"<FanOut {cut(self._name, 400)} over {'an iterator' if length is None else f'{length} keys'}>"


class _PageParts:
    """The pages of a fan-out, as they come, as the parts of a table."""

    def __init__(self, pages: FanOutIterator[tuple[Any, Page[Any]]]) -> None:
        self._pages = pages

    async def __anext__(self) -> Part:
        key, page = await anext(self._pages)
        return Part(key, page.items, page.last, page.number)

    async def aclose(self) -> None:
        await self._pages.aclose()


class _OutcomeParts:
    """The outcomes of a fan-out as the parts of a table; errors are raised where there is no place for them."""

    def __init__(self, outcomes: FanOutIterator[Outcome[Any, Any]], failures: dict[Any, CapillaryError] | None) -> None:
        self._outcomes = outcomes
        self._failures = failures

    async def __anext__(self) -> Part:
        outcome = await anext(self._outcomes)
        if outcome.error is not None:
            if self._failures is None:
                raise outcome.error
            self._failures[_name_beside(self._failures, outcome.key)] = outcome.error
        return Part(outcome.key, outcome.items, last=True)

    async def aclose(self) -> None:
        await self._outcomes.aclose()


def fan_over(
    source: Any,
    reader: Reader[K],
    *,
    argument: str,
    name: str,
    concurrency: int,
    paging: Paging,
    owner: SessionHooks,
) -> FanOut[K, Any]:
    """A fan-out over an input, which is checked at once where it has a length. For the endpoints."""
    keys = KeySource(source, reader.check, argument)
    options = FanOutOptions(concurrency, paging)
    run: FanOutRun[K, Any] = FanOutRun(keys, reader, options, endpoint=name, observers=owner.observers)
    return FanOut(run, name, owner)


def _name_beside(outcomes: dict[Any, Any], key: Any) -> Any:
    """The dictionary key of an invalid input, different from all others."""
    try:
        return repr(key) if key in outcomes else key
    except TypeError:  # the value has no hash
        return repr(key)
