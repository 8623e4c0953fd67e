"""What an answer must be, seen through real connections: whole, of records, of amounts, and of who was asked."""

import asyncio
import json
import time
from collections.abc import Callable
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.raw_server import Answer, RawServer, http, said

from capillary_async import AsyncSession, Identifier, LoyaltyEvent, PointsAllocation, PointsAwarded, RetryPolicy, jobs
from capillary_async._codec.decode import decode, parse, rows, structure_rows
from capillary_async._transport.owners import misdirected, unowned
from capillary_async.endpoints.points_ledger import MissingEvent
from capillary_async.errors import DecodeError
from capillary_async.models import LedgerEvent
from capillary_async.models.exact import bounded, exact_sum

Make = Callable[..., AsyncSession]
QUERY: Any = {
    "program_id": 2282,
    "point_category_id": 17383,
    "expiry_date_start": "2025-06-01",
    "expiry_date_end": "2027-06-01",
}
AWARDS: Any = {
    "program_id": 2282,
    "point_category_id": 17383,
    "start_expiry_date": "2025-06-01",
    "end_expiry_date": "2027-06-01",
    "status": "AVAILABLE",
}


def page_of(customer: int, rows: int = 2) -> list[dict[str, Any]]:
    """Allocations of one customer."""
    return [{"id": customer * 1_000 + row, "customer_id": customer, "points_value": 5} for row in range(rows)]


def asked_in(target: str) -> int:
    """The customer of a request."""
    return int(target.partition("entity_id=")[2].partition("&")[0])


class ByCustomer(RawServer):
    """Answers each customer with their own rows."""

    def answer_to(self, target: str) -> Answer:
        return said(page_of(asked_in(target)))


class Twice(ByCustomer):
    """Sends each answer twice over its connection, the second a moment later."""

    async def _send(self, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        kept = await super()._send(answer, reader, writer)
        asyncio.get_running_loop().call_later(0.01, writer.write, answer.data)
        return kept


# --- whose rows ------------------------------------------------------------------------------------------------------


async def test_a_cache_that_ignores_the_query_gives_nobody_anothers_rows(session_at: Make):
    async with RawServer(said(page_of(1, 100)), said(page_of(1, 100))) as server:
        fan = session_at(server.url).points_allocation.by_expiry_many(range(1, 21), **QUERY)
        outcomes = await fan.options(concurrency=4).collect()
    assert [key for key, outcome in outcomes.items() if outcome.items] in ([], [1])
    for key in range(2, 21):
        error = outcomes[key].error
        assert isinstance(error, DecodeError)
        assert error.kind == "misdirected"
        assert f"none of customer {key}" in error.message
        assert "customer 1 " in error.message
        assert [attempt.kind for attempt in error.history] == ["misdirected", "misdirected"]


async def test_an_answer_sent_twice_goes_to_nobody_else(session_at: Make):
    """The second one comes where the next answer is due; the connection is dropped and the customer asked again."""
    async with Twice() as server:
        session = session_at(server.url)
        fan = session.points_allocation.by_expiry_many(range(1, 41), **QUERY)
        outcomes = await fan.options(concurrency=4).collect()
        late = [await session.points_allocation.by_expiry(entity_id=key, **QUERY).collect() for key in range(41, 46)]
    for key, outcome in outcomes.items():
        assert [record.customer_id for record in outcome.unwrap()] == [key, key]
    assert [record.customer_id for records in late for record in records] == [k for k in range(41, 46) for _ in "ab"]


@pytest.mark.parametrize("prefetch", [0, 4])
async def test_the_connection_of_a_misdirected_answer_is_closed(session_at: Make, prefetch: int):
    """Also where the page was read ahead and decoded later."""
    full = [{**row, "id": number} for number, row in enumerate(page_of(5, 100))]
    next_page = [{**row, "id": 500 + number} for number, row in enumerate(page_of(5, 3))]
    async with RawServer(said(full), said(page_of(7)), said(next_page)) as server:
        session = session_at(server.url)
        pager = session.points_allocation.by_expiry(entity_id=5, **QUERY).options(prefetch=prefetch)
        records = await pager.collect()
        assert len(records) == 103
        assert server.connections > 1
        client = await session._shared.pools.client()
        kept = [protocol for listed in client.connector._conns.values() for protocol, _ in listed]
        assert len([protocol for protocol in kept if protocol.is_connected()]) < server.connections


async def test_what_is_misdirected_is_asked_for_twice_and_takes_nothing_from_the_quota(session_at: Make):
    async with RawServer(said(page_of(1))) as server:
        session = session_at(server.url, retry=RetryPolicy(quota=100))
        fan = session.points_allocation.by_expiry_many(range(2, 32), **QUERY)
        outcomes = await fan.options(concurrency=3).collect()
        assert server.hits == 60
    assert not any(outcome.ok or outcome.error.quota_exhausted for outcome in outcomes.values() if outcome.error)
    assert session._quota.left >= 100 - 14  # of the retry under way, at most


async def test_an_answer_with_both_is_camewith_a_warning(session_at: Make):
    mixed = [*page_of(5), *page_of(7, 1), {"id": 1, "customer_id": 9, "original_customer_id": 5}, {"id": 2}]
    async with RawServer(said(mixed)) as server:
        fan = session_at(server.url).points_allocation.by_expiry_many([5], **QUERY)
        outcome = (await fan.collect())[5]
    assert len(outcome.unwrap()) == 5
    (warning,) = outcome.warnings
    assert "1 of 5 records belong to customer 7" in warning.message


@pytest.mark.parametrize(
    "row",
    [{"id": 1, "customer_id": 9, "original_customer_id": 5}, {"id": 1, "customer_id": None}, {"id": 1}],
    ids=["merged", "null", "absent"],
)
async def test_rows_that_may_be_the_customers_are_given(session_at: Make, row: dict[str, Any]):
    async with RawServer(said([row])) as server:
        pager = session_at(server.url).points_allocation.by_expiry(entity_id=5, **QUERY)
        (page,) = [page async for page in pager.pages()]
        assert not page.warnings
        assert server.hits == 1


async def test_events_and_by_event_have_owners_too(session_at: Make):
    event = {"data": [{"id": 1, "customerId": 7}]}
    async with RawServer(v2=[said(event)], x=[said(page_of(7))]) as server:
        server._routes = {"/v2/customers/5/loyaltyEvents": [said(event)]}
        server._answers = [said(page_of(7))]
        session = session_at(server.url)
        with pytest.raises(DecodeError, match="none of customer 5"):
            await session.loyalty_events.list(5).collect()
        with pytest.raises(DecodeError, match="none of customer 5"):
            await session.points_allocation.by_event(entity_id="x", customer_id=5, event_type_id=15).collect()
        # what users ask for by themselves is theirs
        assert len(await session.request("GET", "/x/neo/any", model=list[PointsAllocation])) == 2


def award(number: int, customer: int) -> dict[str, Any]:
    """A row of paIds."""
    return {"id": number, "source_table": "points_awarded", "customer_id": customer, "points_exclusive": 1}


async def test_awards_of_nobody_asked_are_no_batchs(session_at: Make):
    """A cache gives one batch's rows to all: of who was not in it, one at most gets them, with a warning."""
    async with RawServer(said([award(number, 1) for number in range(3)])) as server:
        outcomes = await session_at(server.url).points_awarded.ids(range(11, 19), **AWARDS).collect()
    given = [outcome for outcome in outcomes.values() if outcome.items]
    assert len(given) <= 1
    assert all(outcome.warnings for outcome in given)
    assert all(
        isinstance(o.error, DecodeError) and o.error.kind == "misdirected" for o in outcomes.values() if not o.ok
    )


def test_an_answer_of_very_many_records_is_looked_at_once():
    """Not each against all others, which would take minutes in which nothing else runs."""
    records = [PointsAwarded(id=number, customer_id=1) for number in range(20_000)]
    begun = time.process_time()
    assert misdirected(records, unowned(records, frozenset({2})), frozenset({2})) is not None
    mine = [*records, PointsAwarded(id=1, customer_id=2)]
    assert misdirected(mine, unowned(mine, frozenset({2})), frozenset({2})) is None
    assert time.process_time() - begun < 5


async def test_a_bad_row_sinks_no_other_id_of_its_batch(session_at: Make):
    class OneBad(RawServer):
        def answer_to(self, target: str) -> Answer:
            ids = [int(one) for one in target.partition("entity_id=")[2].split("&")[0].split(",")]
            found = [award(key, key) for key in ids]
            return said([{**row, "points_exclusive": "x"} if row["id"] == 13 else row for row in found])

    async with OneBad() as server:
        outcomes = await session_at(server.url).points_awarded.ids(range(1, 51), **AWARDS).collect()
    assert [key for key, outcome in outcomes.items() if not outcome.ok] == [13]
    assert all(outcome.items[0].id == key for key, outcome in outcomes.items() if outcome.ok)


# --- rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        {"code": 500, "message": "internal"}, {"errors": [{"code": 1}]}, {}, {"new": 1}, {"ID": 5},
        {"status": "FAILED", "message": "shard 3 timed out"},
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("model", [PointsAllocation, PointsAwarded, LoyaltyEvent, LedgerEvent])
def test_a_row_without_a_documented_member_is_no_record(model: type[Any], row: dict[str, Any]):
    if model is PointsAwarded and "status" in row:
        row = {name: value for name, value in row.items() if name != "status"}
    good = {"eventLogId": 1, "id": 1}
    with pytest.raises(DecodeError) as caught:
        structure_rows(model, [good, None, row], path="$.data")
    assert caught.value.paths == ("$.data[2]",)
    with pytest.raises(DecodeError) as caught:
        rows(model, json.dumps([good, row]).encode())
    assert caught.value.paths == ("$[1]",)


@pytest.mark.parametrize("model", [PointsAllocation, PointsAwarded])
def test_a_row_with_one_documented_member_is_a_record(model: type[Any]):
    assert rows(model, b'[{"customer_id": 5, "new": "text"}]').items == (model(customer_id=5),)
    assert rows(model, b'[{"customer_id": null}]').items == (model(),)


# --- amounts ---------------------------------------------------------------------------------------------------------

BAD_AMOUNTS = ["1E-9999999", "1e12000", "1E+101", "1e-101", "0E999", "0.0E-1000", "9" * 101, "0." + "0" * 100 + "1"]
GOOD_AMOUNTS = ["1E+100", "1e-100", "9" * 100, "-1.5E7", "0." + "1" * 99, "0", "12345678901234567890.123"]


@pytest.mark.parametrize("text", BAD_AMOUNTS, ids=lambda text: text[:12])
@pytest.mark.parametrize("model", [PointsAllocation, PointsAwarded])
def test_an_amount_out_of_bounds_is_named_with_its_path(model: type[Any], text: str):
    """In a page of otherwise plain rows, whatever the white space."""
    for blank in (b"", b" ", b"\n  "):
        plain = b'{"id":1,"points_exclusive":5}'
        bad = b'{"id":2,"points_exclusive":%s%s}' % (blank, text.encode())
        with pytest.raises(DecodeError) as caught:
            rows(model, b"[" + b",".join([plain] * 50 + [bad] + [plain] * 49) + b"]")
        assert caught.value.paths == ("$[50].points_exclusive",)


@pytest.mark.parametrize("text", GOOD_AMOUNTS, ids=lambda text: text[:12])
def test_an_amount_within_bounds_is_exact(text: str):
    (record,) = rows(PointsAllocation, b'[{"id":1,"points_exclusive":%s}]' % text.encode()).items
    assert record.points_exclusive is not None
    assert (record.points_exclusive.as_tuple(), record.points_exclusive) == (Decimal(text).as_tuple(), Decimal(text))


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"-?(0|[1-9][0-9]{0,130})(\.[0-9]{1,130})?([eE][+-]?[0-9]{1,4})?", fullmatch=True),
            st.sampled_from(["AVAILABLE", "EXPIRED", "e", "E}", ":e", 'a"b', ""]),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_a_page_is_refused_where_one_amount_is_out_of_bounds_and_only_there(members: list[tuple[str, str]]):
    body = ",".join(f'{{"id":1,"points_value":{text},"status":{json.dumps(status)}}}' for text, status in members)
    try:
        came = rows(PointsAllocation, f"[{body}]".encode()).items
    except DecodeError:
        assert not all(bounded(Decimal(text)) for text, _ in members)
    else:
        assert [one.points_value for one in came] == [Decimal(text) for text, _ in members]
        assert all(bounded(Decimal(text)) for text, _ in members)


def test_amounts_of_the_ledger_are_bounded_as_number_as_text_and_within_extra():
    for member in (
        '"targetCompletedDetails": {"targetValue": "%s"}' % ("9" * 101),
        '"targetCompletedDetails": {"pointsEarned": {"promo": [{"value": 1E-9999999}]}}',
        '"new": 1e12000',
        '"eventDetails": {"new": {"deep": [1, {"x": 1E-9999999}]}}',
    ):
        value = parse(b'[{"eventLogId": 1, %s}]' % member.encode())
        with pytest.raises(DecodeError, match="at most 100 digits"):
            structure_rows(LedgerEvent, value)


@given(st.lists(st.decimals(allow_nan=False, allow_infinity=False, places=3), max_size=20))
def test_sums_are_exact_whatever_the_ambient_context(amounts: list[Decimal]):
    due = sum(int(f"{amount:f}".replace(".", "")) for amount in amounts)
    with localcontext(prec=3):
        found = exact_sum(amounts)
    assert int(f"{found:.3f}".replace(".", "")) == due


def test_what_is_left_of_the_widest_amounts_is_exact():
    wide = PointsAllocation(
        points_exclusive=Decimal("9E+100"),
        redeemed_exclusive_value=Decimal("1E-100"),
        returned_exclusive_value=Decimal(0),
        expired_exclusive_value=Decimal(0),
    )
    assert wide.remaining is not None
    assert len(wide.remaining.as_tuple().digits) == 201


# --- surrogates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "due"),
    [
        (r"\ud83d", "\ufffd"), (r"\uD83D", "\ufffd"), (r"\ude00", "\ufffd"), (r"\ude00\ud83d", "\ufffd\ufffd"),
        (r"\ud83d\ude00", "😀"), (r"\ud83d\ud83d\ude00", "\ufffd😀"), (r"\\ud83d", r"\ud83d"),
        (r"\\\ud83d", "\\\ufffd"), (r"\ud83dx", "\ufffdx"), (r"\ud83d\n", "\ufffd\n"), (r"\u00e9\udfff", "é\ufffd"),
        (r"\ud83d\u0041", "\ufffdA"), (r"\ud83d\ude00\ude00", "😀\ufffd"),
    ],
)  # fmt: skip
def test_half_a_surrogate_pair_is_a_replacement_character(text: str, due: str):
    body = f'[{{"id": 1, "status": "{text}", "new{text}": {{"x": ["{text}"]}}}}]'.encode()
    assert parse(body) == [{"id": 1, "status": due, f"new{due}": {"x": [due]}}]
    assert rows(PointsAllocation, body).items == (PointsAllocation(id=1, status=due),)
    assert decode(None, body)[0]["status"] == due


@given(st.text(alphabet=st.characters(codec=None, exclude_categories=()), max_size=8))
def test_any_text_is_read_as_python_would_but_for_lone_halves(text: str):
    body = json.dumps([{"status": text, "id": 1}]).encode()
    due = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert parse(body)[0]["status"] == due


async def test_half_a_surrogate_pair_costs_one_request(session_at: Make):
    async with RawServer(http(rb'[{"id": 1, "customer_id": 5, "status": "\ud83d"}]')) as server:
        fan = session_at(server.url).points_allocation.by_expiry_many([5], **QUERY)
        assert (await fan.collect())[5].unwrap()[0].status == "\ufffd"
        assert server.hits == 1


async def test_half_a_surrogate_pair_in_a_refusal(session_at: Make):
    async with RawServer(http(rb'{"errors": [{"code": 8015, "message": "no \ud83d"}]}', 404)) as server:
        with pytest.raises(Exception, match="no \ufffd"):
            await session_at(server.url).loyalty_events.list(5).collect()


# --- events of a ledger ----------------------------------------------------------------------------------------------


def ledger(session: AsyncSession, ids: list[int]) -> Any:
    """Pages of events asked by id."""
    return session.points_ledger.explode(identifier=Identifier.customer_id(5), source="INSTORE", event_ids=ids)


@pytest.mark.parametrize(
    ("came", "missing"),
    [
        ([1, 2, 3], ["4", "5"]), ([7, 8, 9], ["1", "2", "3", "4", "5"]), ([], ["1", "2", "3", "4", "5"]),
        ([1, 2, 3, 4, 5], []), ([1, 2, None, 4, 5], []), ([5, 4, 3, 2, None], []), ([1, None], ["2", "3", "4", "5"]),
    ],
    ids=repr,
)  # fmt: skip
async def test_an_event_neither_camenor_null_is_named(session_at: Make, came: list[int | None], missing: list[str]):
    events = [None if one is None else {"eventLogId": one, "uniqueId": f"u{one}"} for one in came]
    async with RawServer(said({"events": events})) as server:
        (page,) = [page async for page in ledger(session_at(server.url), [1, 2, 3, 4, 5]).pages()]
    named = [warning.event_id for warning in page.warnings if isinstance(warning, MissingEvent)]
    assert named == missing
    assert all(f"event {one} " in str(page.warnings) for one in named)


# --- exports ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["parquet", "jsonl"])
@pytest.mark.parametrize("amount", ["1E-9999999", "1e12000"])
async def test_a_customer_with_an_amount_out_of_bounds_fails_and_the_rest_is_exported(
    session_at: Make, tmp_path: Path, format_: Any, amount: str
):
    """Pyarrow ends the process over such an amount, and sums cannot hold it."""

    class OneBad(ByCustomer):
        def answer_to(self, target: str) -> Answer:
            answer = json.dumps(page_of(asked_in(target)))
            return http(answer.replace(": 5", f": {amount}") if "=13&" in target else answer)

    async with OneBad() as server:
        session = session_at(server.url)
        result = await jobs.export("allocations", range(1, 31), tmp_path, session=session, format=format_, **QUERY)
    assert (result.failed, result.found) == (1, 29)
    (failure,) = map(json.loads, (tmp_path / "failures.jsonl").read_text().splitlines())
    assert (failure["key"], failure["error"]) == (13, "DecodeError")
    assert "$[0].points_value" in failure["message"]
    assert (await jobs.verify(tmp_path)).ok


async def test_a_ledger_with_a_missing_event_fails_in_an_export(session_at: Make, tmp_path: Path):
    def events(target: str) -> list[dict[str, Any]]:
        ids = target.partition("eventIds=")[2].partition("&")[0].split(",")
        return [{"eventLogId": int(one), "uniqueId": one} for one in ids if one != "7"]

    class Missing(RawServer):
        def answer_to(self, target: str) -> Answer:
            return said({"events": events(target)})

    pairs = [("600000001", 5), ("600000001", 6), ("600000002", 7), ("600000002", 8), ("600000003", 9)]
    async with Missing() as server:
        result = await jobs.export("ledger", pairs, tmp_path, session=session_at(server.url))
    assert (result.failed, result.found) == (1, 2)
    (failure,) = map(json.loads, (tmp_path / "failures.jsonl").read_text().splitlines())
    assert failure["key"] == "600000002"
    assert ": 7. " in failure["message"]
