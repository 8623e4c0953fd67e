"""`session.points_awarded`: the ids of points awarded, for many customers in one request.

Invariant: the wire is that of the page 'Get points awarded ID'; every row belongs to the id that it is given for, and a
batch that leaves this open is halved until it does not. Called by users through the session.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from copy import copy
from datetime import date
from functools import partial
from typing import Any, cast

from attrs import field, frozen

from capillary_async._codec.drift import joined
from capillary_async._codec.faults import misdirected
from capillary_async._config import Paging
from capillary_async._fanout.fanout import BatchReader, FanOut
from capillary_async._paging.pager import FetchedPage, ListSource, Page
from capillary_async._paging.verified import open_reader
from capillary_async._transport.owners import unowned
from capillary_async._validation import refuse, whole
from capillary_async.endpoints._arguments import days, positive, query, text
from capillary_async.endpoints._resource import Resource, fetched
from capillary_async.errors import (
    APIError,
    ApiMessage,
    CapillaryError,
    DecodeError,
    NotFoundError,
    RecordConflictError,
)
from capillary_async.models import PointsAwarded, PointsStatus
from capillary_async.tables._doors import TableSource

__all__ = ["PointsAwardedResource"]

PATH = "/x/neo/pointsAwarded/paIds"
LONGEST_URL = 7_000  # bytes; servers and proxies cut at 8,000
SHORTEST = 2  # bytes of the shortest id and its comma
HALVED = frozenset({400, 404, 413, 414})
# What is wrong with the rows of one id, and not with the service.
BAD_ROWS = frozenset({"bad-json", "beyond", "misdirected", "shape", "too-large"})
REMEMBERED = 4_096  # awards
_PLAIN = Paging(prefetch=0)


def awarded_key(record: PointsAwarded) -> tuple[str, int] | None:
    """An award's identity: `id` is counted by each table for itself."""
    return None if record.id is None or record.source_table is None else (record.source_table, record.id)


def _entity(value: Any) -> int:
    return positive("entity_ids", value)


def _bytes(key: int) -> int:
    """What an id takes of a URL, its comma included."""
    return len(str(key)) + 1


class PointsAwardedResource(Resource):
    """Points awarded to customers."""

    def ids(
        self,
        entity_ids: Iterable[int | str] | AsyncIterable[int | str],
        *,
        program_id: int,
        point_category_id: int,
        start_expiry_date: date | str,
        end_expiry_date: date | str,
        status: PointsStatus | str | Iterable[PointsStatus | str],
        org_id: int | None = None,
        batch_size: int = 50,
    ) -> FanOut[int, PointsAwarded]:
        """The awards of many customers, in batches, concurrently. A customer with none has an outcome with no items.

        Give lists of user-group ids with `batch_size=1`: the rows of a group carry its members' ids, so a group and
        its members in one batch are not distinguishable.

        The points held are the sum of `remaining` over the awards of the status AVAILABLE; `points_exclusive` is what
        was issued. Both understate: the page shows two of five award tables, and one category is asked for.

        Source: Get points awarded ID, `GET /x/neo/pointsAwarded/paIds`.

        Args:
            entity_ids: Customers or user groups.
            program_id: The loyalty program.
            point_category_id: The category of points.
            start_expiry_date: First day of expiry, a date or `YYYY-MM-DD`, in the server's time zone.
            end_expiry_date: Last day of expiry.
            status: A `PointsStatus` or its text; or several, e.g. `["AVAILABLE", "EXPIRED"]`: then each batch is one
                request per status, and an award that changes its status between two of them is a
                `RecordConflictError` of its customer where it differs, and is given once where it does not.
            org_id: The organisation; None leaves it to the credentials.
            batch_size: Ids a request at most; a request's URL stays within 7,000 bytes whatever it is.

        Raises:
            InvalidRequestError: An argument, or an id of an input with a length, is invalid. Nothing is sent.
        """
        first, last = days("start_expiry_date", start_expiry_date, "end_expiry_date", end_expiry_date)
        shared = query(
            start_expiry_date=first,
            end_expiry_date=last,
            point_category_id=positive("point_category_id", point_category_id),
            program_id=positive("program_id", program_id),
            org_id=None if org_id is None else positive("org_id", org_id),
        )
        prefixes = tuple(f"{shared}&{query(status=one)}" for one in statuses_of("status", status))
        room = LONGEST_URL - len(f"{self._caller.base_url}{PATH}?{max(prefixes, key=len)}&entity_id=")
        # What cannot fit into a request need not be read ahead for one.
        batch = min(whole("batch_size", batch_size, 1), max(room // SHORTEST, 1))
        table = TableSource("points_awarded.ids", PointsAwarded, int)

        ask, ask_raw = (_Batches(partial(self._batch, prefixes, raw=raw)).ask for raw in (False, True))
        reader = BatchReader(_entity, ask, batch, room, _bytes, table=table, ask_raw=ask_raw)
        return self._fan_over(entity_ids, reader, argument="entity_ids", name="points_awarded.ids")

    async def _batch(
        self,
        prefixes: tuple[str, ...],
        ids: tuple[int, ...],
        *,
        raw: bool,
    ) -> Page[PointsAwarded]:
        """One batch, a request per status, its duplicates dropped."""
        # Of one id alone the rows may be those of a user group's members.
        owners = ids if len(ids) > 1 else ()
        shape = self._shape(PointsAwarded, owners=owners, raw=raw)
        headers = self._caller.neo_headers
        asked = ",".join(map(str, ids))

        async def fetch(number: int, size: int) -> FetchedPage[PointsAwarded]:  # noqa: ARG001 - a page is a status
            query = f"{prefixes[number - 1]}&entity_id={asked}"
            return fetched(await self._get(PATH, query, shape, headers), shape)

        source = ListSource("points_awarded.ids", fetch, awarded_key, pages=len(prefixes))
        reader = open_reader(source, _PLAIN, self._caller)
        # A source of so many pages gives them all, be they empty.
        pages: list[Page[PointsAwarded]] = [cast("Page[PointsAwarded]", await reader.next_page()) for _ in prefixes]
        return pages[0] if len(pages) == 1 else _merged(pages)


def statuses_of(argument: str, given: Any) -> tuple[str, ...]:
    """One status or several, each once."""
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        return (text(argument, given),)
    found = tuple(dict.fromkeys(text(argument, one) for one in cast("Iterable[Any]", given)))
    if not found:
        raise refuse(argument, "a PointsStatus, its text, or several of them", cast("object", given))
    return found


def _merged(pages: list[Page[PointsAwarded]]) -> Page[PointsAwarded]:
    """The pages of several statuses as one."""
    last = pages[-1]
    items = tuple(item for page in pages for item in page.items)
    warnings = tuple(dict.fromkeys(warning for page in pages for warning in page.warnings))
    elapsed = sum(page.elapsed for page in pages)
    return Page(
        items,
        1,
        last.request_id,
        warnings,
        last.status,
        elapsed,
        None,
        last=True,
        drift=joined(pages),
    )


@frozen(eq=False)
class _Batches:
    """Answers a batch with one page or error for each id."""

    read: Callable[[tuple[int, ...]], Awaitable[Page[PointsAwarded]]]
    # The id that an award of somebody else was given under, for the last few thousand: of two ids one was misdirected.
    given: dict[Any, int] = field(factory=dict[Any, int])

    async def ask(self, ids: tuple[int, ...]) -> dict[int, Page[PointsAwarded] | CapillaryError]:
        """Ask for the batch, and for halves of it where it is refused or its rows belong to other customers."""
        try:
            page = await self.read(ids)
        except (APIError, DecodeError, RecordConflictError) as error:
            if not _divisible(error):
                raise
            if len(ids) == 1:
                return {ids[0]: error}
        else:
            if len(ids) == 1:
                return {ids[0]: self._alone(ids[0], page)}
            if {record.customer_id for record in page.items} <= set(ids):
                return _shared_out(ids, page)
        half = len(ids) // 2
        return {**await self._part(ids[:half]), **await self._part(ids[half:])}

    def _alone(self, asked: int, page: Page[PointsAwarded]) -> Page[PointsAwarded] | DecodeError:
        """The rows of one id: its own, or those of a group's members with a warning.

        An award that was given under another id before belongs to one of the two at most.
        """
        others = unowned(page.items, frozenset((asked,)))
        if not others:
            return _own(page, page.items)
        key = awarded_key(others[0])
        before = self.given.setdefault(key, asked) if key is not None else asked
        if before != asked:
            return _given_twice(key, asked, before, page)
        if len(self.given) > REMEMBERED:
            del self.given[next(iter(self.given))]
        warning = ApiMessage(
            None,
            f"{len(others)} of {len(page.items)} awards asked for under {asked} carry other customers' ids, e.g. "
            f"{others[0].customer_id}: right for a user group, whose rows are its members'; else another's answer",
        )
        return _own(page, page.items, warning)

    async def _part(self, ids: tuple[int, ...]) -> dict[int, Page[PointsAwarded] | CapillaryError]:
        """A part of a batch; where it fails, the other part is asked all the same."""
        try:
            return await self.ask(ids)
        except CapillaryError as error:
            if error.concerns_all_keys or error.quota_exhausted:
                raise
            return {key: copy(error) for key in ids}


def _divisible(error: CapillaryError) -> bool:
    """Whether a part of the batch may be the fault."""
    if isinstance(error, RecordConflictError | NotFoundError):
        return True
    if isinstance(error, DecodeError):
        return error.kind in BAD_ROWS and not error.cut
    return isinstance(error, APIError) and (error.status in HALVED or error.code in HALVED)


def _shared_out(ids: tuple[int, ...], page: Page[PointsAwarded]) -> dict[int, Page[PointsAwarded] | CapillaryError]:
    rows: dict[int | None, list[PointsAwarded]] = {key: [] for key in ids}
    for record in page.items:
        rows[record.customer_id].append(record)
    return {key: _own(page, tuple(rows[key])) for key in ids}


def _own(page: Page[PointsAwarded], items: tuple[PointsAwarded, ...], *warnings: ApiMessage) -> Page[PointsAwarded]:
    return Page(
        items,
        1,
        page.request_id,
        (*page.warnings, *warnings),
        page.status,
        page.elapsed,
        None,
        last=True,
        drift=joined((page,)),
    )


def _given_twice(key: Any, asked: int, before: int, page: Page[PointsAwarded]) -> DecodeError:
    error = misdirected(
        f"the answer for {asked} holds award {key}, which came for {before} before and belongs to neither of them; "
        f"nothing of it was given for {asked}",
        f"award {key} came for {before} before",
        request_id=page.request_id,
    )
    error.status, error.request_id = page.status, page.request_id
    error.method, error.path = "GET", PATH
    return error
