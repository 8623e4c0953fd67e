"""`OutcomeBuilder`: the pages read of the keys of one unit, and their way to the loop.

Invariant: each key of a unit comes to exactly one outcome, or to pages of which one is the last.
Called by the readers, which give it pages, and by `WorkerPool`.
"""

from __future__ import annotations

import time
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

from capillary_async._codec.drift import carried
from capillary_async._fanout.outcome import Outcome
from capillary_async._paging.page import Page
from capillary_async.telemetry._events import KeyFinished, PageRead

if TYPE_CHECKING:
    from capillary_async._fanout.handoff import Handoff
    from capillary_async._fanout.outcome import FanOutRun
    from capillary_async._paging.source import FetchedPage
    from capillary_async.errors import CapillaryError
    from capillary_async.telemetry._observers import Observers

__all__ = ["OutcomeBuilder"]


class OutcomeBuilder:
    """Collects the pages of a unit into one outcome per key, or passes them on as they come.

    Its methods wait while the loop is slower than the service.
    """

    __slots__ = ("_began", "_handoff", "_pages", "_places", "_plan", "_read", "whole")

    def __init__(self, plan: FanOutRun[Any, Any], handoff: Handoff[Any], places: dict[Any, int]) -> None:
        self.whole = plan.whole
        self._plan = plan
        self._handoff = handoff
        self._places = places
        self._pages: dict[Any, list[Any]] = {}  # of each key; the last one where they were passed on
        self._began = 0.0 if plan.observers is None else time.monotonic()
        self._read: dict[Any, tuple[int, int]] = {}  # of each key, for observers: records and pages

    async def page(self, key: Any, page: Page[Any] | FetchedPage[Any]) -> None:
        """One more page of a key."""
        if self._plan.observers is not None:
            self._count(self._plan.observers, key, page)
        if self.whole:
            self._pages.setdefault(key, []).append(page)
        else:
            self._pages[key] = [page]
            await self._handoff.send((key, page))

    async def done(self, key: Any) -> None:
        """The key was read to its end."""
        self._finish(key, None)
        if self.whole:
            await self._send_outcome(key, None)
        elif not (pages := self._pages.get(key)):
            await self._handoff.send((key, Page((), 1, last=True)))
        elif not pages[-1].last:
            # The end was only seen after the last full page: an empty page reports it.
            await self._handoff.send((key, Page((), pages[-1].number + 1, last=True)))

    async def failed(self, key: Any, error: CapillaryError) -> None:
        """The key failed, by itself or with its unit."""
        self._plan.with_key(error, key)
        self._finish(key, error)
        if not self.whole:
            raise error
        await self._send_outcome(key, error)

    def _count(self, observers: Observers, key: Any, page: Page[Any] | FetchedPage[Any]) -> None:
        records, pages = self._read.get(key, (0, 0))
        self._read[key] = (records + len(page.items), pages + 1)
        if self._plan.reader.batch > 1:  # a page of a list is reported by its reader
            observers.notify(PageRead(self._plan.endpoint, 1, len(page.items), 0, page.request_id))

    def _finish(self, key: Any, error: CapillaryError | None) -> None:
        """Report to observers that the key is finished."""
        if self._plan.observers is not None:
            seconds, failed = time.monotonic() - self._began, None if error is None else type(error).__name__
            counts = self._read.pop(key, (0, 0))
            self._plan.observers.notify(KeyFinished(self._plan.endpoint, key, *counts, seconds, failed))

    async def _send_outcome(self, key: Any, error: CapillaryError | None) -> None:
        pages = self._pages.pop(key, [])
        items = () if error is not None else _joined([_tuple_of(page.items) for page in pages])
        warnings = _joined([page.warnings for page in pages])
        drift = _joined([carried(page) for page in pages]) or None
        sent = self._places[key], Outcome(key, items, error, warnings, len(pages), drift)
        if not self._handoff.offer(sent):
            await self._handoff.send(sent)


def _joined(parts: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """All parts in one; a single part is not copied."""
    return parts[0] if len(parts) == 1 else tuple(chain.from_iterable(parts))


def _tuple_of(items: Any) -> tuple[Any, ...]:
    """Items as a tuple; that of raw rows keeps its columns."""
    return cast("tuple[Any, ...]", items) if isinstance(items, tuple) else tuple(items)
