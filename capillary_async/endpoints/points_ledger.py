"""`session.points_ledger`: the details of events of a points ledger.

Invariant: the wire is that of the page 'Get Points Ledger Explode Info'; a request has at most ten ids, and a bad id
never loses the good ones beside it. Called by users through the session.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Sequence
from typing import Any

from attrs import define, field, frozen

from capillary_async import models
from capillary_async._codec.drift import carried
from capillary_async._fanout.fanout import FanOut
from capillary_async._paging.pager import FetchedPage, ListSource, Pager
from capillary_async._transport.messages import Response, decoded_of
from capillary_async._validation import refuse
from capillary_async.endpoints._arguments import query
from capillary_async.endpoints._ledger_query import Identifier, LedgerInclude, LedgerQuery, ledger_params
from capillary_async.endpoints._resource import Resource
from capillary_async.errors import ApiMessage, LedgerRequestError

__all__ = ["Identifier", "LedgerInclude", "LedgerQuery", "MissingEvent", "PointsLedgerResource"]

PATH = "/v2/pointsLedger/getLedgerExplodeInfo"
IDS_A_CALL = 10
# An unknown id may fail its whole call: such a call is split, to find it and to keep the others.
SPLIT_CODES = frozenset({9021, 9022, 11016})

_NOTHING_MORE = LedgerInclude()


def ledger_key(record: models.LedgerEvent) -> tuple[int, str] | None:
    """A ledger event's identity."""
    return None if record.event_log_id is None or record.unique_id is None else (record.event_log_id, record.unique_id)


@frozen
class MissingEvent(ApiMessage):
    """The SDK's own warning of a ledger event that was asked for and neither given nor null.

    Attributes:
        event_id: The id as it was asked for: an event log id, or a reference id.
    """

    event_id: str = ""


@define
class _Answer:
    """What one ten of ids came to, over all the calls it took."""

    items: list[models.LedgerEvent] = field(factory=list["models.LedgerEvent"])
    received: int = 0
    nulls: list[int] = field(factory=list[int])
    warnings: dict[ApiMessage, None] = field(factory=dict[ApiMessage, None])
    refused: list[tuple[str, LedgerRequestError]] = field(factory=list[tuple[str, LedgerRequestError]])
    last: Response | None = None
    elapsed: float = 0.0
    drift: list[Any] = field(factory=list[Any])

    def add(self, response: Response) -> None:
        decoded = decoded_of(response)
        self.items.extend(decoded.items)
        self.nulls.extend(self.received + index for index in decoded.nulls)
        self.received += decoded.received
        self.drift.extend(carried(decoded))
        self.warnings.update(dict.fromkeys(decoded.warnings))
        self.last = response
        self.elapsed += response.elapsed

    def page(self, argument: str, asked: Sequence[str]) -> FetchedPage[models.LedgerEvent]:
        """The page, with a warning for each id that is neither given, nor null, nor refused."""
        last = self.last
        missing = [] if last is None else _missing(self, asked, by_log_id=argument == "event_ids")
        self.warnings.update(dict.fromkeys(map(_missed, missing)))
        return FetchedPage(
            self.items,
            self.received,
            last.request_id if last else None,
            tuple(self.warnings),
            last.status if last else self.refused[0][1].status,
            self.elapsed,
            tuple(self.nulls),
            _named(argument, self.refused) if self.refused else None,
            drift=tuple(self.drift) or None,
        )


def _missing(answer: _Answer, asked: Sequence[str], *, by_log_id: bool) -> list[str]:
    """The ids that the answer has no entry for. A null entry may be for any one of them.

    By reference id an event may come under another of its names: rows that fit no id may stand for one, too.
    """
    given = set[str]()
    strange = 0
    for event in answer.items:
        names = {event.event_log_id} if by_log_id else {event.event_reference_id, event.unique_id, event.event_log_id}
        named = {str(name) for name in names}
        given |= named
        strange += not by_log_id and named.isdisjoint(asked)
    given.update(one for one, _ in answer.refused)
    missing = [one for one in asked if one not in given]
    return missing if len(missing) > len(answer.nulls) + strange else []


def _missed(event_id: str) -> MissingEvent:
    text = (
        f"event {event_id} was asked for, and the answer has neither it nor null for it: ask for it alone, and report "
        "it with the request id if it does not come"
    )
    return MissingEvent(None, text, event_id=event_id)


def _named(argument: str, refused: list[tuple[str, LedgerRequestError]]) -> LedgerRequestError:
    """The first refusal, with the ids it is about."""
    error = refused[0][1]
    error.refused = tuple(refusal[0] for refusal in refused)
    listed = ", ".join(error.refused)
    error.args = (f"{argument} {listed} refused, the others of this page were given: {error.message}",)
    return error


class PointsLedgerResource(Resource):
    """Points ledgers of customers and user groups."""

    def explode(
        self,
        *,
        identifier: Identifier,
        source: str,
        event_ids: Iterable[int | str] | None = None,
        event_name: str | None = None,
        event_reference_ids: Iterable[str | int] | None = None,
        account_id: str | int | None = None,
        include: LedgerInclude = _NOTHING_MORE,
        type: str | None = None,  # noqa: A002 - the API's name
        is_primary_user: bool | None = None,
        alternate_currency_names: Iterable[str] | None = None,
    ) -> Pager[models.LedgerEvent]:
        """Details of events of a ledger, one page per ten ids.

        Either `event_ids`, or `event_name` with `event_reference_ids`. The pager goes through the ids and ends with
        them; empty pages are legitimate. An id that the server refuses is raised after the good rows of its page;
        `error.position` is after that page. `page_size` and `verify` do not apply.

        Source: Get Points Ledger Explode Info, `GET /v2/pointsLedger/getLedgerExplodeInfo`.

        Args:
            identifier: Whose ledger, e.g. `Identifier.mobile("918088369835")`.
            source: Where the identifier is known, e.g. `INSTORE`, `WECHAT`, `ALL`.
            event_ids: Event log ids: the `event_log_id` of allocations and awards (None and -1 are none). The `id` of a
                loyalty event is of another series [inferred]; a loyalty event and a ledger entry share the unique id.
            event_name: An `EventName` or its text.
            event_reference_ids: Transaction ids of transactional events (the `points_source_id` of allocations
                [inferred]), request ids of behavioural ones. One of them may have several event log ids.
            account_id: The account, for sources with several.
            include: Details to add to the events.
            type: `CUSTOMER` or `USERGROUP2`.
            is_primary_user: For groups: the primary member's entries.
            alternate_currency_names: Only these alternate currencies; `include.alternate_currencies` would list all.

        Raises:
            InvalidRequestError: An argument is invalid, or both or neither way of naming events was used. Nothing is
                sent.
            LedgerRequestError: While looping: the server refused the identifier, an event or a filter.
        """
        asked = LedgerQuery(
            identifier=identifier,
            source=source,
            event_ids=event_ids,
            event_name=event_name,
            event_reference_ids=event_reference_ids,
            account_id=account_id,
            include=include,
            type=type,
            is_primary_user=is_primary_user,
            alternate_currency_names=alternate_currency_names,
        )
        return self._pager(self._of(asked))

    def explode_many(
        self, queries: Iterable[LedgerQuery] | AsyncIterable[LedgerQuery]
    ) -> FanOut[LedgerQuery, models.LedgerEvent]:
        """Details of events of many ledgers, concurrently; see `explode`.

        A query with more than ten ids takes one request per ten. An id that the server refuses is the error of its
        query; other queries are not affected.

        Source: Get Points Ledger Explode Info, `GET /v2/pointsLedger/getLedgerExplodeInfo`.

        Args:
            queries: What to read of each ledger.

        Raises:
            InvalidRequestError: An entry of an input with a length is invalid. Nothing is sent.
        """
        return self._fan(
            queries,
            argument="queries",
            name="points_ledger.explode_many",
            check=_ledger_query,
            source=self._of,
            largest=None,
            model=models.LedgerEvent,
            key=LedgerQuery,
        )

    def _of(self, asked: LedgerQuery) -> ListSource[models.LedgerEvent]:
        by_log_id = asked.event_ids is not None
        wire, argument = ("eventIds", "event_ids") if by_log_id else ("eventReferenceIds", "event_reference_ids")
        ids = tuple(map(str, asked.event_ids or asked.event_reference_ids or ()))
        prefix = query(**ledger_params(asked))
        shape = self._shape(models.LedgerEvent, "events", _owners(asked))  # loads the twenty classes of a ledger
        pages = [ids[start : start + IDS_A_CALL] for start in range(0, len(ids), IDS_A_CALL)]

        async def ask(chunk: tuple[str, ...], answer: _Answer) -> None:
            try:
                joined = query(**{wire: ",".join(chunk)})
                answer.add(await self._get(PATH, f"{prefix}&{joined}", shape))
            except LedgerRequestError as error:
                if error.code not in SPLIT_CODES:
                    raise
                if len(chunk) == 1:
                    answer.refused.append((chunk[0], error))
                    return
            else:
                return
            half = len(chunk) // 2
            await ask(chunk[:half], answer)
            await ask(chunk[half:], answer)

        async def fetch(number: int, size: int) -> FetchedPage[models.LedgerEvent]:  # noqa: ARG001 - ten ids are a page
            answer = _Answer()
            await ask(pages[number - 1], answer)
            return answer.page(argument, pages[number - 1])

        return ListSource("points_ledger.explode", fetch, ledger_key, pages=len(pages), model=models.LedgerEvent)


def _owners(asked: LedgerQuery) -> tuple[int, ...]:
    """The customer asked for, where the identifier is one's own id; an `id` alone may be that of a group.

    Of the page's samples only manual adjustments say whose they are.
    """
    kind = asked.identifier.kind
    own = kind == "customer_id" or (kind == "id" and asked.type == "CUSTOMER")
    return (int(asked.identifier.value),) if own and asked.type != "USERGROUP2" else ()


def _ledger_query(value: Any) -> LedgerQuery:
    if not isinstance(value, LedgerQuery):
        raise refuse("queries", "LedgerQuery values", value)
    return value
