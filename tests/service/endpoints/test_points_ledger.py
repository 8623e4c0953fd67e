"""`points_ledger.explode` as users call it: what goes over the wire, chunks of ten, and ids that are refused."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

import pytest
from support.api_double import BASIC, HOST, Seen, refused, serving
from support.raw_server import RawServer, said

from capillary_async import (
    DecodeError,
    EventName,
    Identifier,
    InvalidRequestError,
    LedgerInclude,
    LedgerQuery,
    LedgerRequestError,
    Paging,
    Position,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from capillary_async import AsyncSession

    Sessions = Callable[..., AsyncSession]

MOBILE = Identifier.mobile("918088369835")
ASKED: dict[str, Any] = {"identifier": MOBILE, "source": "INSTORE"}


def event(number: int, unique: str | None = "u") -> dict[str, Any]:
    """One event of a ledger."""
    return {"eventLogId": number, "eventName": "TransactionAdd", "uniqueId": unique and f"{unique}{number}"}


def asked_ids(seen: Seen) -> list[str]:
    """The ids that a request asked for."""
    return (seen.query.get("eventIds") or seen.query["eventReferenceIds"]).split(",")


def answers(
    *, unknown: tuple[int, ...] = (), null: tuple[int, ...] = (), code: int = 9021
) -> Callable[[Seen], dict[str, Any]]:
    """A server that refuses a call with an unknown id in it, and gives null for others."""

    def answer(seen: Seen) -> Any:
        ids = [int(text) for text in asked_ids(seen)]
        if any(number in unknown for number in ids):
            return refused(400, code, "Invalid identifiers found")
        return {"events": [None if number in null else event(number) for number in ids], "warnings": []}

    return answer


async def test_by_event_ids_on_the_wire(session_at: Sessions) -> None:
    """The first line of the API's page, and nothing that was not asked for."""
    with serving(answers()) as seen:
        events = await session_at(HOST).points_ledger.explode(event_ids=[634510612], **ASKED).collect()
    assert seen[0].path == "/v2/pointsLedger/getLedgerExplodeInfo"
    assert seen[0].query == {
        "identifierName": "mobile",
        "identifierValue": "918088369835",
        "source": "INSTORE",
        "eventIds": "634510612",
    }
    assert seen[0].headers["authorization"] == BASIC
    assert seen[0].headers["accept-encoding"] == "gzip"
    assert "x-cap-neo-dag-scope" not in seen[0].headers
    assert events[0].event_log_id == 634510612


async def test_by_references_on_the_wire(session_at: Sessions) -> None:
    """The third line of the API's page."""
    with serving({"events": []}) as seen:
        pager = session_at(HOST).points_ledger.explode(
            identifier=Identifier.id(565039506),
            source="INSTORE",
            type="CUSTOMER",
            event_name=EventName.GENERIC_EVENT,
            event_reference_ids=["67587c26-d925-4f8d-9211-a9b4d6f8db8e", 888812880],
        )
        assert await pager.collect() == []
    assert seen[0].query == {
        "identifierName": "id",
        "identifierValue": "565039506",
        "source": "INSTORE",
        "type": "CUSTOMER",
        "eventName": "GenericEvent",
        "eventReferenceIds": "67587c26-d925-4f8d-9211-a9b4d6f8db8e,888812880",
    }


async def test_everything_that_can_be_asked(session_at: Sessions) -> None:
    """All optional parameters and all include flags, as the page spells them."""
    include = LedgerInclude(
        bill_details=True,
        points_earned_breakup=True,
        custom_fields=True,
        extended_fields=True,
        max_conversion_details=True,
        payment_modes=True,
        alternate_currencies=True,
    )
    with serving({"events": []}) as seen:
        await (
            session_at(HOST)
            .points_ledger.explode(
                identifier=Identifier.primary_user_id("7"),
                source="WECHAT",
                event_ids=["5"],
                account_id="acc 1",
                include=include,
                type="USERGROUP2",
                is_primary_user=False,
                alternate_currency_names=["Miles", "Stars"],
            )
            .collect()
        )
    assert seen[0].query == {
        "identifierName": "primaryUserId",
        "identifierValue": "7",
        "source": "WECHAT",
        "accountId": "acc 1",
        "getBillDetails": "true",
        "getPointsEarnedBreakup": "true",
        "getCustomFields": "true",
        "getExtendedFields": "true",
        "getMaxConversionDetails": "true",
        "getPaymentModes": "true",
        "includeAlternateCurrencies": "true",
        "type": "USERGROUP2",
        "isPrimaryUser": "false",
        "alternateCurrencyNames": "Miles,Stars",
        "eventIds": "5",
    }


async def test_an_include_flag_is_sent_only_when_true(session_at: Sessions) -> None:
    """One at a time."""
    wire = {
        "bill_details": "getBillDetails",
        "points_earned_breakup": "getPointsEarnedBreakup",
        "custom_fields": "getCustomFields",
        "extended_fields": "getExtendedFields",
        "max_conversion_details": "getMaxConversionDetails",
        "payment_modes": "getPaymentModes",
        "alternate_currencies": "includeAlternateCurrencies",
    }
    plain = {"identifierName", "identifierValue", "source", "eventIds"}
    for name, spelled in wire.items():
        with serving({"events": []}) as seen:
            include = LedgerInclude(**{name: True})
            explode = session_at(HOST).points_ledger.explode
            await explode(event_ids=[1], include=include, alternate_currency_names=[], **ASKED).collect()
        assert set(seen[0].query) == {*plain, spelled}
        assert seen[0].query[spelled] == "true"


@pytest.mark.parametrize(
    ("identifier", "name", "value"),
    [
        (Identifier.mobile(918088369835), "mobile", "918088369835"),
        (Identifier.mobile("+91 80883-69835"), "mobile", "+91 80883-69835"),
        (Identifier.email("a.b+c@example.com"), "email", "a.b+c@example.com"),
        (Identifier.external_id("EXT/1?x=2"), "EXTERNALID", "EXT/1?x=2"),
        (Identifier.customer_id("0042"), "CustomerID", "42"),
        (Identifier.id(5), "id", "5"),
        (Identifier.primary_user_id(6), "primaryUserId", "6"),
        (Identifier("email", "x@y.z"), "email", "x@y.z"),
    ],
)
async def test_identifiers_as_the_api_spells_them(
    session_at: Sessions, identifier: Identifier, name: str, value: str
) -> None:
    """Names in the page's own case, values encoded once."""
    with serving({"events": []}) as seen:
        await session_at(HOST).points_ledger.explode(identifier=identifier, source="ALL", event_ids=[1]).collect()
    assert (seen[0].query["identifierName"], seen[0].query["identifierValue"]) == (name, value)


async def test_the_exact_line(session_at: Sessions) -> None:
    """As a server sees it."""
    async with RawServer(said({"events": []})) as server:
        identifier = Identifier.email("a+b&c=d@x.y")
        explode = session_at(server.url).points_ledger.explode
        await explode(identifier=identifier, source="INSTORE", event_ids=[1, 2]).collect()
    assert server.seen[0].target == (
        "/v2/pointsLedger/getLedgerExplodeInfo?identifierName=email&identifierValue=a%2Bb%26c%3Dd%40x.y"
        "&source=INSTORE&eventIds=1,2"
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: Identifier("phone", "1"),
        lambda: Identifier(["mobile"], "1"),  # type: ignore[arg-type]
        lambda: Identifier.mobile(""),
        lambda: Identifier.mobile(" "),
        lambda: Identifier.email("a\r\nb"),
        lambda: Identifier.mobile(True),
        lambda: Identifier.external_id(3.5),  # type: ignore[arg-type]
        lambda: Identifier.customer_id("12x"),
        lambda: Identifier.id(0),
        lambda: Identifier.primary_user_id(-1),
        lambda: Identifier("customer_id", "12x"),
        lambda: Identifier("id", "-1"),
    ],
)
def test_identifiers_that_cannot_be(make: Callable[[], Identifier]) -> None:
    """Refused when they are made."""
    with pytest.raises(InvalidRequestError, match="identifier takes") as caught:
        make()
    assert caught.value.argument == "identifier"


@pytest.mark.parametrize(
    ("changed", "argument", "text"),
    [
        ({}, "event_ids", "give either event_ids, or event_name with event_reference_ids; got neither"),
        ({"event_ids": [1], "event_name": "NewBill", "event_reference_ids": ["a"]}, "event_ids", "got both"),
        ({"event_ids": [1], "event_name": "NewBill"}, "event_ids", "got both"),
        ({"event_name": "NewBill"}, "event_reference_ids", "event_reference_ids is missing"),
        ({"event_reference_ids": ["a"]}, "event_name", "event_name is missing"),
        ({"event_ids": "123"}, "event_ids", "an iterable of positive whole numbers"),
        ({"event_ids": 123}, "event_ids", "got 123"),
        ({"event_ids": [1, True]}, "event_ids", "got True"),
        ({"event_ids": [1, "x"]}, "event_ids", "got 'x'"),
        ({"event_name": "NewBill", "event_reference_ids": "abc"}, "event_reference_ids", "an iterable of texts"),
        ({"event_name": "NewBill", "event_reference_ids": ["a", ""]}, "event_reference_ids", "got ''"),
        ({"event_name": "NewBill", "event_reference_ids": ["a,b"]}, "event_reference_ids", "without a comma"),
        ({"event_name": "", "event_reference_ids": ["a"]}, "event_name", "a text that is not empty"),
        ({"event_ids": [1], "source": ""}, "source", "got ''"),
        ({"event_ids": [1], "source": None}, "source", "got None"),
        ({"event_ids": [1], "identifier": "918088369835"}, "identifier", r"Identifier\.mobile"),
        ({"event_ids": [1], "include": {"bill_details": True}}, "include", "a LedgerInclude"),
        ({"event_ids": [1], "include": None}, "include", "a LedgerInclude"),
        ({"event_ids": [1], "account_id": ""}, "account_id", "got ''"),
        ({"event_ids": [1], "account_id": 3.5}, "account_id", "a text or a positive whole number"),
        ({"event_ids": [1], "type": 5}, "type", "got 5"),
        ({"event_ids": [1], "is_primary_user": "yes"}, "is_primary_user", "True, False or None"),
        ({"event_ids": [1], "alternate_currency_names": "Miles"}, "alternate_currency_names", "an iterable"),
        ({"event_ids": [1], "alternate_currency_names": ["a\nb"]}, "alternate_currency_names", "control characters"),
    ],
)
def test_arguments_that_cannot_be(session_at: Sessions, changed: dict[str, Any], argument: str, text: str) -> None:
    """Refused at the call, by name."""
    with pytest.raises(InvalidRequestError, match=text) as caught:
        session_at(HOST).points_ledger.explode(**{**ASKED, **changed})
    assert caught.value.argument == argument


@pytest.mark.parametrize("value", ["false", 1, None])
def test_an_include_flag_is_true_or_false(value: Any) -> None:
    """The text `false` would count as true."""
    with pytest.raises(InvalidRequestError, match="payment_modes takes True or False") as caught:
        LedgerInclude(payment_modes=value)
    assert caught.value.argument == "payment_modes"


class Kind(str, Enum):  # noqa: UP042 - users' own enums may be of this kind
    """A user's own enum of the old kind, whose text is its name."""

    GROUP = "USERGROUP2"


async def test_enums_are_sent_by_value(session_at: Sessions) -> None:
    """Whatever kind they are of."""
    with serving({"events": []}) as seen:
        await session_at(HOST).points_ledger.explode(event_ids=[1], type=Kind.GROUP, **ASKED).collect()
    assert seen[0].query["type"] == "USERGROUP2"


@pytest.mark.parametrize("how", ["event_ids", "event_reference_ids"])
async def test_eleven_ids_are_two_pages(session_at: Sessions, how: str) -> None:
    """The API takes ten a call; each once, in order."""
    named = {"event_name": "NewBill"} if how == "event_reference_ids" else {}
    ids = (str(n) for n in [*range(1, 12), 3, 7])
    with serving(answers()) as seen:
        pager = session_at(HOST).points_ledger.explode(**{how: ids}, **named, **ASKED)
        pages = [page async for page in pager.pages()]
        again = await pager.collect()
    assert [[event.event_log_id for event in page] for page in pages] == [list(range(1, 11)), [11]]
    assert [page.number for page in pages] == [1, 2]
    assert [page.last for page in pages] == [False, True]
    assert len(again) == 11
    assert sorted(asked_ids(request) for request in seen[:2]) == sorted([[str(n) for n in range(1, 11)], ["11"]])


@pytest.mark.parametrize("empty", [[], (), iter(())])
async def test_no_ids_no_request(session_at: Sessions, empty: Any) -> None:
    """An empty list has no pages."""
    with serving(answers()) as seen:
        pager = session_at(HOST).points_ledger.explode(event_ids=empty, **ASKED)
        assert await pager.collect() == []
        assert await pager.first() is None
        assert [page async for page in pager.pages()] == []
    assert seen == []


async def test_empty_pages_and_equal_pages_are_legitimate(session_at: Sessions) -> None:
    """The rules of lists do not apply: neither the short page, nor the loop, nor page_size, nor verify."""
    capillary = session_at(HOST, paging=Paging(page_size=500, verify=True))
    with serving({"events": []}) as seen:
        pager = capillary.points_ledger.explode(event_ids=range(1, 31), **ASKED)
        pages = [page async for page in pager.options(page_size=1000).pages()]
    assert [len(page) for page in pages] == [0, 0, 0]
    assert len(seen) == 3
    nameless = {"eventLogId": 1, "uniqueId": None}
    with serving({"events": [nameless]}):
        assert len(await capillary.points_ledger.explode(event_ids=range(1, 31), **ASKED).collect()) == 3


async def test_an_event_twice_is_given_once(session_at: Sessions) -> None:
    """By its log id and unique id, over the pages of one walk; other unique ids are other events."""
    capillary = session_at(HOST)
    with serving({"events": [event(1), event(1, "v"), event(2, None)]}):
        events = await capillary.points_ledger.explode(event_ids=range(1, 12), **ASKED).collect()
    assert [(e.event_log_id, e.unique_id) for e in events] == [(1, "u1"), (1, "v1"), (2, None), (2, None)]
    assert capillary.stats.duplicates == 2


async def test_null_entries_are_dropped_with_a_warning(session_at: Sessions) -> None:
    """Their ids are unknown to the server."""
    with serving(answers(null=(2, 4))):
        pages = [page async for page in session_at(HOST).points_ledger.explode(event_ids=range(1, 6), **ASKED).pages()]
    assert [event.event_log_id for event in pages[0]] == [1, 3, 5]
    assert any("null" in warning.message for warning in pages[0].warnings)


@pytest.mark.parametrize("code", [9021, 9022, 11016])
async def test_a_refused_chunk_is_split_and_stays_one_page(session_at: Sessions, code: int) -> None:
    """Good rows first; then the error, naming the id, with the position behind the chunk."""
    ids = range(1, 26)
    with serving(answers(unknown=(13,), code=code)) as seen:
        pager = session_at(HOST).points_ledger.explode(event_ids=ids, **ASKED).options(prefetch=0)
        iterator = aiter(pager)
        given = [(await anext(iterator)).event_log_id for _ in range(19)]
        with pytest.raises(
            LedgerRequestError, match="event_ids 13 refused, the others of this page were given"
        ) as caught:
            await anext(iterator)
        rest = await pager.options(start=caught.value.position).collect()
    assert given == [n for n in range(1, 21) if n != 13]
    assert caught.value.code == code
    assert caught.value.refused == ("13",)
    assert caught.value.position == Position(3)
    assert [event.event_log_id for event in rest] == [21, 22, 23, 24, 25]
    sizes = [len(asked_ids(request)) for request in seen]
    assert sizes == [10, 10, 5, 2, 3, 1, 2, 5, 5]


async def test_several_refused_ids_are_all_named(session_at: Sessions) -> None:
    """In one error, behind the good rows of their page; the rows of a page can be had by pages too."""
    with serving(answers(unknown=(2, 9))):
        pager = session_at(HOST).points_ledger.explode(event_ids=range(1, 11), **ASKED)
        iterator = pager.pages()
        page = await anext(iterator)
        with pytest.raises(LedgerRequestError, match="event_ids 2, 9 refused") as caught:
            await anext(iterator)
    assert [event.event_log_id for event in page] == [1, 3, 4, 5, 6, 7, 8, 10]
    assert not page.last
    assert caught.value.position == Position(2)


async def test_one_id_alone_and_refused(session_at: Sessions) -> None:
    """An empty page, then the error."""
    with serving(answers(unknown=(1,))) as seen:
        pager = session_at(HOST).points_ledger.explode(event_ids=[1], **ASKED)
        with pytest.raises(LedgerRequestError, match="event_ids 1 refused"):
            await pager.collect()
    assert len(seen) == 1


async def test_references_are_named_as_such(session_at: Sessions) -> None:
    """In the text of the error."""
    with serving(answers(unknown=(5,), code=9022)):
        pager = session_at(HOST).points_ledger.explode(event_name="NewBill", event_reference_ids=[4, 5], **ASKED)
        with pytest.raises(LedgerRequestError, match="event_reference_ids 5 refused"):
            await pager.collect()


@pytest.mark.parametrize("code", [9003, 9005, 11012, 11014, 11017, 1632, 8013])
async def test_other_codes_raise_at_once(session_at: Sessions, code: int) -> None:
    """They are no fault of one id, so nothing is split."""
    with serving(answers(unknown=(1,), code=code)) as seen, pytest.raises(LedgerRequestError) as caught:
        await session_at(HOST).points_ledger.explode(event_ids=range(1, 11), **ASKED).collect()
    assert len(seen) == 1
    assert caught.value.code == code
    assert caught.value.position == Position(1)


async def test_warnings_of_a_split_chunk_are_told_once(session_at: Sessions) -> None:
    """The same warning of several calls stands once on their page."""

    def answer(seen: Seen) -> Any:
        if "3" in asked_ids(seen):
            return refused(200, 9021)
        warning = {"code": 9018, "message": "no alternate currency", "status": False}
        return {"events": [event(int(text)) for text in asked_ids(seen)], "warnings": [warning]}

    with serving(answer):
        page = await anext(session_at(HOST).points_ledger.explode(event_ids=range(1, 11), **ASKED).pages())
    assert [(warning.code, warning.message) for warning in page.warnings] == [(9018, "no alternate currency")]
    assert len(page) == 9
    assert page.status == 200
    assert page.elapsed > 0


# --- whose ledger


def adjustment(number: int, customer: int) -> dict[str, Any]:
    """A manual adjustment: the one kind of event that names its customer."""
    details = {"customerId": customer, "totalPointsDeducted": "100.000"}
    return event(number) | {"eventName": "ManualPointsAdjustment", "manualPointsAdjustmentDetails": details}


def ledger(*events: dict[str, Any]) -> Any:
    return said({"events": events, "warnings": []})


@pytest.mark.parametrize("asked", [Identifier.customer_id(7), Identifier("id", "7")], ids=lambda one: one.kind)
async def test_another_customers_ledger_is_asked_for_again_and_refused(session_at: Sessions, asked: Identifier) -> None:
    """As in the other endpoints: its connection is dropped, and the error names both."""
    query: Any = {"identifier": asked, "source": "INSTORE", "type": "CUSTOMER", "event_ids": [1, 2]}
    async with RawServer(ledger(adjustment(1, 8), event(2)), ledger(adjustment(1, 7), event(2))) as server:
        events = await session_at(server.url).points_ledger.explode(**query).collect()
        assert [one.event_log_id for one in events] == [1, 2]
        assert events[0].manual_points_adjustment_details.customer_id == 7
        assert server.connections == 2
    async with RawServer(ledger(adjustment(1, 8), event(2))) as server:
        with pytest.raises(DecodeError, match="records of customer 8 and none of customer 7") as caught:
            await session_at(server.url).points_ledger.explode(**query).collect()
    assert (caught.value.kind, caught.value.attempts) == ("misdirected", 2)


@pytest.mark.parametrize(
    ("asked", "events", "warned"),
    [
        ({"identifier": Identifier.customer_id(7)}, [adjustment(1, 7), adjustment(2, 8)], True),
        ({"identifier": Identifier.customer_id(7)}, [event(1), event(2)], False),
        ({"identifier": Identifier.customer_id(7), "type": "USERGROUP2"}, [adjustment(1, 8), event(2)], False),
        ({"identifier": Identifier.id(7)}, [adjustment(1, 8), event(2)], False),  # it may be a group's
        ({"identifier": Identifier.primary_user_id(7)}, [adjustment(1, 8), event(2)], False),
        ({"identifier": MOBILE}, [adjustment(1, 8), event(2)], False),
    ],
)
async def test_a_ledger_that_may_be_the_one_asked_for_is_given(
    session_at: Sessions, asked: Any, events: list[Any], *, warned: bool
) -> None:
    """What names nobody, the ledger of a group, and identifiers that are no customer's id; with a warning for both."""
    async with RawServer(ledger(*events)) as server:
        pager = session_at(server.url).points_ledger.explode(source="INSTORE", event_ids=[1, 2], **asked)
        (page,) = [page async for page in pager.pages()]
    assert [one.event_log_id for one in page] == [1, 2]
    assert ["belong to customer 8" in warning.message for warning in page.warnings] == [True] * warned


def a_query(number: int, *ids: int, **more: Any) -> LedgerQuery:
    """A ledger by mobile number."""
    return LedgerQuery(identifier=Identifier.mobile(f"9180883{number:05}"), source="INSTORE", event_ids=ids, **more)


async def test_many_ledgers_have_one_outcome_each(session_at: Sessions) -> None:
    """In tens of ids, each with its own arguments; an id that is refused is an error of its query alone."""
    queries = [a_query(1, *range(1, 13)), a_query(2, 21, 22, 999), a_query(3), a_query(4, 41, type="CUSTOMER")]
    with serving(answers(unknown=(999,))) as seen:
        fan = session_at(HOST).points_ledger.explode_many([*queries, queries[0]])
        outcomes = {outcome.key: outcome async for outcome in fan}
    assert outcomes.keys() == set(queries)
    numbers = {key: [event.event_log_id for event in outcome.items] for key, outcome in outcomes.items()}
    assert numbers[queries[0]] == list(range(1, 13))
    assert numbers[queries[2]] == []
    assert numbers[queries[3]] == [41]
    error = outcomes[queries[1]].error
    assert isinstance(error, LedgerRequestError)
    assert error.refused == ("999",)
    assert error.key == queries[1]
    assert [one.query.get("type") for one in seen if one.query["eventIds"] == "41"] == ["CUSTOMER"]
    assert sorted(one.query["eventIds"] for one in seen if one.query["identifierValue"].endswith("00001")) == [
        "1,2,3,4,5,6,7,8,9,10",
        "11,12",
    ]


async def test_many_ledgers_ask_what_one_asks(session_at: Sessions) -> None:
    """The same arguments are the same request, whatever they are."""
    by_name: dict[str, Any] = {
        "identifier": Identifier.id(565039506), "source": "INSTORE", "type": "CUSTOMER", "event_name": "GenericEvent",
        "event_reference_ids": ["a", 7], "account_id": 12, "include": LedgerInclude(custom_fields=True),
        "is_primary_user": True, "alternate_currency_names": ["Stars", "Miles"],
    }  # fmt: skip
    with serving({"events": []}) as seen:
        ledgers = session_at(HOST).points_ledger
        assert await ledgers.explode(**by_name).collect() == []
        assert [outcome.items async for outcome in ledgers.explode_many([LedgerQuery(**by_name)])] == [()]
    assert seen[0].query == seen[1].query
    assert seen[0].query["alternateCurrencyNames"] == "Stars,Miles"


async def test_what_is_no_query_of_a_ledger(session_at: Sessions) -> None:
    """Of a list it is refused before anything is sent; of an iterator it is that entry's outcome."""
    ledgers = session_at(HOST).points_ledger
    with pytest.raises(InvalidRequestError, match="queries takes LedgerQuery values, got 5"):
        ledgers.explode_many([5])  # type: ignore[list-item]
    with serving(answers()):
        fan = ledgers.explode_many(iter([5, a_query(1, 7)]))  # type: ignore[list-item]
        outcomes = [outcome async for outcome in fan.ordered()]
    assert isinstance(outcomes[0].error, InvalidRequestError)
    assert [event.event_log_id for event in outcomes[1].unwrap()] == [7]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"identifier": "918088369835"}, "identifier takes an Identifier"),
        ({"source": " "}, "source takes a text"),
        ({"event_ids": [0]}, "event_ids takes a positive whole number"),
        ({"event_ids": None}, "got neither"),
        ({"event_name": "TransactionAdd"}, "got both"),
        ({"event_ids": None, "event_name": "TransactionAdd"}, "event_reference_ids is missing"),
        ({"include": True}, "include takes a LedgerInclude"),
        ({"is_primary_user": "yes"}, "is_primary_user takes True, False or None"),
        ({"alternate_currency_names": "Stars"}, "alternate_currency_names takes an iterable"),
    ],
)
def test_a_query_is_checked_when_it_is_made(wrong: dict[str, Any], message: str) -> None:
    """With the texts of `explode`."""
    with pytest.raises(InvalidRequestError, match=message):
        LedgerQuery(**{**ASKED, "event_ids": [1], **wrong})
