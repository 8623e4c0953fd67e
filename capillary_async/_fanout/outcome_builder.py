"""`OutcomeBuilder`: one unit of a fan-out in progress, the pages read of its keys, and their way to the loop.

Invariant: each key of a unit comes to exactly one outcome, or to pages of which one is the last.
Called by `WorkerPool`; filled by the `WorkItem`.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from capillary_async._codec.drift import carried
from capillary_async._fanout.outcome import Outcome
from capillary_async._paging.page import Page

if TYPE_CHECKING:
    from capillary_async._fanout.handoff import Handoff
    from capillary_async._fanout.outcome import FanOutRun
    from capillary_async._fanout.work import WorkItem
    from capillary_async.errors import ApiMessage, CapillaryError

__all__ = ["OutcomeBuilder"]


class _Gathered:
    """The pages read of one key so far."""

    __slots__ = ("drift", "ended", "pages", "parts", "warnings")

    def __init__(self) -> None:
        self.parts: list[tuple[Any, ...]] = []
        self.warnings: tuple[ApiMessage, ...] = ()
        self.pages = 0
        self.ended = False
        self.drift: list[Any] = []

    def items(self) -> tuple[Any, ...]:
        """The items of all pages; those of a single page are not copied."""
        return self.parts[0] if len(self.parts) == 1 else tuple(chain.from_iterable(self.parts))


class OutcomeBuilder:
    """Collects the pages of a unit into one outcome per key.

    Its methods wait while the loop is slower than the service.
    """

    __slots__ = ("_gathered", "_handoff", "_places", "_plan", "unit")

    def __init__(
        self, plan: FanOutRun[Any, Any], handoff: Handoff[Any], unit: WorkItem, places: dict[Any, int]
    ) -> None:
        self.unit = unit
        self._plan = plan
        self._handoff = handoff
        self._places = places
        self._gathered: dict[Any, _Gathered] = {}

    def _of(self, key: Any) -> _Gathered:
        gathered = self._gathered.get(key)
        if gathered is None:
            gathered = self._gathered[key] = _Gathered()
        return gathered

    async def page(self, key: Any, page: Page[Any]) -> None:
        """One more page of a key."""
        gathered = self._of(key)
        gathered.pages += 1
        gathered.ended = page.last
        if not self._plan.whole:
            await self._handoff.send((key, page))
            return
        gathered.parts.append(page.items)
        if page.warnings:
            gathered.warnings += page.warnings
        gathered.drift.extend(carried(page))

    async def done(self, key: Any) -> None:
        """The key was read to its end."""
        gathered = self._of(key)
        if self._plan.whole:
            await self._outcome(key, gathered.items(), None)
        elif not gathered.ended:
            # The end was only seen after the last full page: an empty page reports it.
            await self._handoff.send((key, Page((), gathered.pages + 1, last=True)))

    async def failed(self, key: Any, error: CapillaryError) -> None:
        """The key failed, by itself or with its unit."""
        self._plan.with_key(error, key)
        if not self._plan.whole:
            raise error
        await self._outcome(key, (), error)

    async def _outcome(self, key: Any, items: tuple[Any, ...], error: CapillaryError | None) -> None:
        gathered = self._of(key)
        sent = (
            self._places[key],
            Outcome(key, items, error, gathered.warnings, gathered.pages, tuple(gathered.drift) or None),
        )
        if not self._handoff.offer(sent):
            await self._handoff.send(sent)
