"""The misdirected leg of the soak: lists read through a proxy that answers wrongly, compared record by record.

Invariant: a list counts as read only where the SDK says that it is complete; one that ended in an error is counted by
the error's class and asked again in a later round, as a job would do.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import define

from benchmarks.soak_leg import ROUNDS, Leg, word
from benchmarks.soak_records import FIRST, SIZE, Account, customers_for, has_events
from benchmarks.soak_world import QUERY
from capillary_async import CapillaryError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    from benchmarks.soak_leg import Ledger
    from capillary_async import AsyncSession

__all__ = ["MisdirectedLeg"]

_READERS = 8  # single lists at once, beside the fan-outs


@define
class MisdirectedLeg(Leg):
    """Allocations and loyalty events, half of the customers by fan-outs, half by pagers that read ahead."""

    unit: ClassVar[str] = "records"
    wrongs: ClassVar[tuple[str, ...]] = (
        "lost", "doubled", "misdirected", "altered", "misordered", "never served",
    )  # fmt: skip
    closing: ClassVar[int] = 16  # each answer to another question ends its connection
    page_size: ClassVar[int] = SIZE

    def _server(self) -> tuple[str, ...]:
        return (
            "benchmarks.soak_proxy", "--pages", str(self.pages), "--share", str(self.share), "--seed", str(self.seed),
        )  # fmt: skip

    def _account(self) -> Ledger:
        return Account(customers_for(self.pages))

    async def _rounds(self, session: AsyncSession, account: Ledger, failed: Counter[str]) -> None:
        reading = _Reading(session, account, failed)
        keys = list(range(FIRST, FIRST + customers_for(self.pages)))
        for _ in range(ROUNDS):
            keys = await reading.read(keys)
            if not keys:
                return


class _Reading:
    """One round after the other over the same account."""

    def __init__(self, session: AsyncSession, account: Ledger, failed: Counter[str]) -> None:
        self._session = session
        self._account = account
        self._failed = failed
        self._again: list[int] = []

    async def read(self, keys: list[int]) -> list[int]:
        """Ask for all of them; gives those that ended in an error."""
        self._again = []
        alone = iter([key for key in keys if key // 20 % 2])
        allocations, events = (
            [key for key in keys if not key // 20 % 2 and has_events(key) is it] for it in (False, True)
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(self._fan(self._session.points_allocation.by_expiry_many(allocations, **QUERY)))
            group.create_task(self._fan(self._session.loyalty_events.list_many(events)))
            for _ in range(_READERS):
                group.create_task(self._singly(alone))
        return sorted(self._again)

    async def _fan(self, fan: Any) -> None:
        async for outcome in fan:
            if outcome.error is None:
                self._account.note(outcome.key, outcome.items)
            else:
                self._missed(outcome.key, outcome.error)

    async def _singly(self, keys: Iterator[int]) -> None:
        for key in keys:
            try:
                self._account.note(key, await self._pager(key).collect())
            except CapillaryError as error:
                self._missed(key, error)

    def _pager(self, key: int) -> Any:
        if has_events(key):
            return self._session.loyalty_events.list(key)
        return self._session.points_allocation.by_expiry(entity_id=key, **QUERY)

    def _missed(self, key: int, error: CapillaryError) -> None:
        self._failed[word(error)] += 1
        self._again.append(key)
