"""What may be given to each public call: a typed error that names the argument before anything is sent, or it is right.

The checks themselves are tested in `test_validation.py` (any argument), `test_arguments.py` (those of the API),
`test_config.py` and `test_auth.py`.
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from support.api_double import HOST, ids_of, refused, serving
from support.raw_server import RawServer, http

from capillary_async import (
    AsyncSession,
    AuthenticationError,
    ConnectError,
    DecodeError,
    EventQuery,
    Identifier,
    InvalidRequestError,
    LedgerInclude,
    Limits,
    Paging,
    RetryPolicy,
    Timeouts,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    Sessions = Callable[..., AsyncSession]

EXPIRY: dict[str, Any] = {
    "program_id": 1,
    "point_category_id": 2,
    "expiry_date_start": "2025-01-01",
    "expiry_date_end": "2026-01-01",
}
AWARDED: dict[str, Any] = {
    "program_id": 1,
    "point_category_id": 2,
    "start_expiry_date": "2025-01-01",
    "end_expiry_date": "2026-01-01",
    "status": "AVAILABLE",
}
LEDGER: dict[str, Any] = {"identifier": Identifier.id(1), "source": "INSTORE"}


class Index:
    """A number as numpy has them."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


class Unequal:
    """A value that cannot be compared, as arrays are."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


# Of every kind that a caller may give by mistake.
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**63, 10**5000, 1.5, math.nan, math.inf, 1j, Decimal("NaN"), "", " ", "5", "x",
    "\ud800", "a\x00b", "\u2028", "\u0661", "x" * 100_000, b"1", [], [1], [None], {}, {1: 2}, (), set(), {1},
    date(2025, 1, 1), datetime(2025, 1, 1, tzinfo=UTC), Unequal(), object(), int, range(0), Ellipsis,
]  # fmt: skip
EVENTS: dict[str, Any] = {"event_type": None, "from_date": None, "to_date": None}
# Every public call, with arguments that are right.
CALLS: dict[str, tuple[Callable[[AsyncSession], Callable[..., Any]], dict[str, Any]]] = {
    "by_expiry": (lambda s: s.points_allocation.by_expiry, {"entity_id": 1, "not_found": "error", **EXPIRY}),
    "by_expiry_many": (lambda s: s.points_allocation.by_expiry_many, {"entity_ids": [1], **EXPIRY}),
    "by_event": (lambda s: s.points_allocation.by_event, {"entity_id": 1, "customer_id": 1, "event_type_id": 1}),
    "by_event_many": (lambda s: s.points_allocation.by_event_many, {"queries": [], "not_found": "error"}),
    "EventQuery": (lambda s: EventQuery, {"entity_id": 1, "customer_id": 1, "event_type_id": 1}),
    "list": (lambda s: s.loyalty_events.list, {"customer_id": 1, **EVENTS}),
    "list_many": (lambda s: s.loyalty_events.list_many, {"customer_ids": [1], **EVENTS}),
    "ids": (lambda s: s.points_awarded.ids, {"entity_ids": [1], "org_id": None, "batch_size": 50, **AWARDED}),
    "explode": (
        lambda s: partial(s.points_ledger.explode, event_ids=[1]),
        {"account_id": None, "include": LedgerInclude(), "type": None, "is_primary_user": None, **LEDGER},
    ),
    "explode_many": (lambda s: s.points_ledger.explode_many, {"queries": []}),
    "with_options": (
        lambda s: s.with_options,
        {"retry": None, "timeouts": None, "paging": None, "headers": None, "priority": None},
    ),
    "pager.options": (
        lambda s: s.loyalty_events.list(1).options,
        {"page_size": None, "prefetch": None, "max_items": None, "start": None},
    ),
    "fan.options": (
        lambda s: s.loyalty_events.list_many([1]).options,
        {"concurrency": None, "paging": None, "unique": None},
    ),
    "AsyncSession": (
        lambda s: partial(AsyncSession, HOST, auth=s._auth),
        {
            "timeouts": Timeouts(), "limits": Limits(), "retry": RetryPolicy(), "paging": Paging(), "dag_scope": None,
            "headers": None, "middlewares": (), "server_timezone": None,
        },
    ),
}  # fmt: skip
ARGUMENTS = [(call, argument) for call, (_, right) in CALLS.items() for argument in right]


@pytest.mark.parametrize(("call", "argument"), ARGUMENTS)
def test_a_refusal_names_the_argument(session_at: Sessions, call: str, argument: str) -> None:
    """Whatever is given: it is taken, or refused as a `ValueError` of ours whose message is short and names it."""
    of, right = CALLS[call]
    function = of(session_at(HOST))
    function(**right)
    refused: list[InvalidRequestError] = []
    for value in VALUES:
        try:
            function(**{**right, argument: value})
        except InvalidRequestError as error:
            refused.append(error)
    assert len(refused) > len(VALUES) / 3
    assert [error for error in refused if error.argument != argument or argument not in str(error)] == []
    assert max(len(str(error)) for error in refused) < 300


# Every way to give one id, with the argument that a refusal names.
ONE_ID: dict[str, tuple[str, Callable[[AsyncSession, Any], Any]]] = {
    "by_expiry": ("entity_id", lambda s, value: s.points_allocation.by_expiry(entity_id=value, **EXPIRY)),
    "by_event customer": (
        "customer_id",
        lambda s, value: s.points_allocation.by_event(entity_id=1, customer_id=value, event_type_id=1),
    ),
    "by_event type": (
        "event_type_id",
        lambda s, value: s.points_allocation.by_event(entity_id=1, customer_id=1, event_type_id=value),
    ),
    "program": ("program_id", lambda s, v: s.points_allocation.by_expiry(entity_id=1, **{**EXPIRY, "program_id": v})),
    "list": ("customer_id", lambda s, value: s.loyalty_events.list(value)),
    "ids": ("entity_ids", lambda s, value: s.points_awarded.ids([1, value], **AWARDED)),
    "by_expiry_many": ("entity_ids", lambda s, value: s.points_allocation.by_expiry_many({value: 0}, **EXPIRY)),
    "list_many": ("customer_ids", lambda s, value: s.loyalty_events.list_many((value,))),
    "explode": ("event_ids", lambda s, value: s.points_ledger.explode(event_ids=[value], **LEDGER)),
    "identifier": ("identifier", lambda s, value: Identifier.customer_id(value)),
}


@pytest.mark.parametrize("way", ONE_ID)
@pytest.mark.parametrize("value", [True, "12x", 3.5, 0, -1, ""], ids=repr)
def test_ids_that_are_no_positive_whole_number(session_at: Sessions, way: str, value: Any) -> None:
    """The argument, what came and what is allowed."""
    argument, call = ONE_ID[way]
    with serving([]) as seen, pytest.raises(InvalidRequestError) as caught:
        call(session_at(HOST), value)
    assert caught.value.argument == argument
    assert str(caught.value).startswith(
        f"{argument} takes a positive whole number of at most 9223372036854775807, got "
    )
    assert str(caught.value).endswith(repr(value))
    assert isinstance(caught.value, ValueError)
    assert seen == []


@pytest.mark.parametrize("way", ONE_ID)
@pytest.mark.parametrize("value", [7, "7", Index(7)], ids=["int", "text", "index"])
def test_ids_as_numpy_and_files_give_them(session_at: Sessions, way: str, value: Any) -> None:
    """An `__index__` value and a decimal string are ids."""
    _, call = ONE_ID[way]
    call(session_at(HOST), value)


async def test_numbers_of_any_kind_are_sent_alike(session_at: Sessions) -> None:
    """As the same digits."""
    with serving(lambda seen: []) as seen:
        fan = session_at(HOST).points_awarded.ids([7, "7", Index(7), "007", Index(8)], **AWARDED)
        assert list(await fan.collect()) == [7, 8]
    assert ids_of(seen[0]) == [7, 8]


# Every way to give two dates, with their names.
DATES: dict[str, tuple[str, str, Callable[[AsyncSession, dict[str, Any]], Any]]] = {
    "by_expiry": (
        "expiry_date_start",
        "expiry_date_end",
        lambda s, dates: s.points_allocation.by_expiry(entity_id=1, **{**EXPIRY, **dates}),
    ),
    "by_expiry_many": (
        "expiry_date_start",
        "expiry_date_end",
        lambda s, dates: s.points_allocation.by_expiry_many([1], **{**EXPIRY, **dates}),
    ),
    "ids": (
        "start_expiry_date",
        "end_expiry_date",
        lambda s, dates: s.points_awarded.ids([1], **{**AWARDED, **dates}),
    ),
    "list": ("from_date", "to_date", lambda s, dates: s.loyalty_events.list(1, **dates)),
    "list_many": ("from_date", "to_date", lambda s, dates: s.loyalty_events.list_many([1], **dates)),
}


@pytest.mark.parametrize("way", DATES)
def test_dates_that_cannot_be(session_at: Sessions, way: str) -> None:
    """Swapped, malformed, or a moment."""
    first, last, call = DATES[way]
    session = session_at(HOST)
    with serving([]) as seen:
        with pytest.raises(InvalidRequestError, match=f"{first} 2025-01-02 is after {last} 2025-01-01") as caught:
            call(session, {first: "2025-01-02", last: "2025-01-01"})
        assert caught.value.argument == first
        for name in (first, last):
            for value in ("2025-1-1", "2025-02-30", "tomorrow", 20250101, datetime(2025, 1, 1, tzinfo=UTC)):
                with pytest.raises(InvalidRequestError, match=f"{name} takes a date") as caught:
                    call(session, {name: value})
                assert caught.value.argument == name
    assert seen == []


def test_a_page_size_of_101(session_at: Sessions) -> None:
    """Neo gives at most 100; the others say nothing."""
    session = session_at(HOST, paging=Paging(page_size=101))
    calls: list[Callable[[], Any]] = [
        lambda: session.points_allocation.by_expiry(entity_id=1, **EXPIRY),
        lambda: session.points_allocation.by_expiry_many([1], **EXPIRY),
        lambda: session.points_allocation.by_event(entity_id=1, customer_id=1, event_type_id=1),
        lambda: session.points_allocation.by_event_many([EventQuery(1, 1, 1)]),
    ]
    for call in calls:
        with pytest.raises(InvalidRequestError, match="page_size takes a whole number from 1 to 100, got 101"):
            call()
    session.loyalty_events.list(1)
    session.points_awarded.ids([1], **AWARDED)
    session.points_ledger.explode(event_ids=[1], **LEDGER)


# Every way to give many ids.
MANY: dict[str, Callable[[AsyncSession, Any], Any]] = {
    "ids": lambda s, ids: s.points_awarded.ids(ids, **AWARDED),
    "by_expiry_many": lambda s, ids: s.points_allocation.by_expiry_many(ids, **EXPIRY),
    "by_event_many": lambda s, ids: s.points_allocation.by_event_many(ids),
    "list_many": lambda s, ids: s.loyalty_events.list_many(ids),
}


@pytest.mark.parametrize("way", MANY)
@pytest.mark.parametrize("value", ["123", b"123", 123, None, 1.5], ids=repr)
def test_what_is_no_list_of_ids(session_at: Sessions, way: str, value: Any) -> None:
    """A bare text would be read letter by letter."""
    with pytest.raises(InvalidRequestError, match="takes an iterable or async iterable of keys"):
        MANY[way](session_at(HOST), value)


@pytest.mark.parametrize("way", MANY)
@pytest.mark.parametrize("mode", ["outcomes", "ordered", "items", "pages", "collect"])
async def test_empty_lists(session_at: Sessions, way: str, mode: str) -> None:
    """No outcome and no request."""
    with serving([]) as seen:
        for empty in ([], (), {}, set(), iter(())):
            fan = MANY[way](session_at(HOST), empty)
            if mode == "collect":
                assert await fan.collect() == {}
            else:
                assert [one async for one in (fan if mode == "outcomes" else getattr(fan, mode)())] == []
    assert seen == []


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_a_generator_with_a_bad_id_in_the_middle(session_at: Sessions, kind: str) -> None:
    """That one is an outcome with an error, the rest is answered."""

    def ids() -> Iterator[Any]:
        yield from (1, 2, "12x", 4, True, 6)

    async def stream() -> AsyncIterator[Any]:
        for one in ids():
            yield one

    for way in ("ids", "by_expiry_many"):
        with serving([]) as seen:
            fan = MANY[way](session_at(HOST), ids() if kind == "plain" else stream())
            outcomes = {repr(outcome.key): outcome async for outcome in fan}
        assert {key for key, outcome in outcomes.items() if not outcome.ok} == {"'12x'", "True"}
        assert set(outcomes) == {"1", "2", "'12x'", "4", "True", "6"}
        assert all(isinstance(outcomes[key].error, InvalidRequestError) for key in ("'12x'", "True"))
        assert sorted(key for request in seen for key in ids_of(request)) == [1, 2, 4, 6]


def test_how_events_of_a_ledger_are_named(session_at: Sessions) -> None:
    """One way or the other: not both, not neither."""
    explode = session_at(HOST).points_ledger.explode
    for named in ({}, {"event_ids": [1], "event_name": "NewBill", "event_reference_ids": ["a"]}):
        with pytest.raises(InvalidRequestError, match="give either event_ids, or event_name with event_reference_ids"):
            explode(**named, **LEDGER)


def test_an_unknown_kind_of_identifier() -> None:
    """The kinds are named."""
    with pytest.raises(
        InvalidRequestError, match="one of the kinds mobile, email, external_id, customer_id, id, primary"
    ):
        Identifier("passport", "1")


async def test_wrong_credentials(session_at: Sessions) -> None:
    """Raised from a loop over one customer and over many."""
    with serving(lambda seen: refused(401)):
        with pytest.raises(AuthenticationError, match="check the credentials"):
            await session_at(HOST).loyalty_events.list(1).collect()
        with pytest.raises(AuthenticationError):
            await session_at(HOST).loyalty_events.list_many([1, 2, 3]).collect()


async def test_a_cluster_that_does_not_resolve(session_at: Sessions) -> None:
    """A connect error that says what to check."""
    session = session_at("https://no-such-cluster.invalid", retry=RetryPolicy(attempts=1))
    with pytest.raises(ConnectError, match="check base_url"):
        await session.loyalty_events.list(1).collect()


async def test_a_server_that_answers_html(session_at: Sessions) -> None:
    """Under 200, after one more attempt."""
    async with RawServer(http(b"<html>Sign in</html>", headers={"Content-Type": "text/html"})) as server:
        with pytest.raises(DecodeError, match="an HTML page where JSON is due"):
            await session_at(server.url).loyalty_events.list(1).collect()
        assert server.hits == 2


async def test_an_object_where_an_array_is_due(session_at: Sessions) -> None:
    """And the other way round."""
    with serving({"rows": []}), pytest.raises(DecodeError, match="expected an array, got an object"):
        await session_at(HOST).points_allocation.by_expiry(entity_id=1, **EXPIRY).collect()
    with serving([[]]), pytest.raises(DecodeError, match="expected an object, got an array"):
        await session_at(HOST).loyalty_events.list(1).collect()


async def test_null_entries_unknown_members_and_unknown_values(session_at: Sessions) -> None:
    """A right result, with a warning for what was dropped."""
    row = {"id": 1, "status": "MELTED", "never_seen": {"a": [1]}, "event_type_id": 9999}
    with serving([None, row]):
        page = await session_at(HOST).points_allocation.by_expiry(entity_id=1, **EXPIRY).page(1)
    assert [(record.id, record.status, record.event_type_id) for record in page] == [(1, "MELTED", 9999)]
    assert len(page.warnings) == 1
