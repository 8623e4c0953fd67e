"""Bad input, one test a kind: either a clear typed error before anything is sent, or a right result."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from support.api_double import HOST, ids_of, refused, serving
from support.raw_server import RawServer, http

from capillary_async import (
    AsyncSession,
    AuthenticationError,
    BasicAuth,
    ConnectError,
    DecodeError,
    EventQuery,
    Identifier,
    InvalidRequestError,
    OAuthClient,
    Paging,
    RetryPolicy,
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


@pytest.mark.parametrize("size", [0, -1, True, 1.5, "10", None])
def test_a_page_size_that_is_none(size: Any) -> None:
    """Refused when the settings are made."""
    with pytest.raises(ValueError, match=r"Paging\.page_size takes a whole number of at least 1"):
        Paging(page_size=size)


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


@pytest.mark.parametrize(
    "make",
    [
        lambda: BasicAuth("till.id"),
        lambda: BasicAuth("till.id", password="a", password_md5="0" * 32),
        lambda: BasicAuth("till.id", password_md5="xyz"),
        lambda: BasicAuth("till:id", password="a"),
        lambda: BasicAuth("", password="a"),
        lambda: OAuthClient("", "a"),
        lambda: OAuthClient("key", ""),
    ],
)
def test_credentials_that_cannot_be(make: Callable[[], Any]) -> None:
    """Refused when they are made."""
    with pytest.raises(ValueError, match=r"BasicAuth:|OAuthClient:"):
        make()


async def test_wrong_credentials(session_at: Sessions) -> None:
    """Raised from a loop over one customer and over many."""
    with serving(lambda seen: refused(401)):
        with pytest.raises(AuthenticationError, match="check the credentials"):
            await session_at(HOST).loyalty_events.list(1).collect()
        with pytest.raises(AuthenticationError):
            await session_at(HOST).loyalty_events.list_many([1, 2, 3]).collect()


@pytest.mark.parametrize(
    "url", ["http://eu.api.capillarytech.com", "https://till:s3cr3t@eu.api.capillarytech.com", "https://host/?a=s3cr3t"]
)
def test_base_urls_that_cannot_be(url: str) -> None:
    """Refused without showing what may be a password."""
    with pytest.raises(InvalidRequestError) as caught:
        AsyncSession(url, auth=BasicAuth("till.id", password="x"))
    assert caught.value.argument == "base_url"
    assert "s3cr3t" not in str(caught.value)


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
