"""Tables of lists and fan-outs: every row of the records, exactly, under the same rules of paging; or an error."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from aioresponses import CallbackResult
from support.api_double import HOST, Seen, refused, serving

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq

from capillary_async import (
    DecodeError,
    EventQuery,
    InvalidRequestError,
    NotFoundError,
    PageLoopError,
    PointsAllocation,
    RecordConflictError,
)
from capillary_async.sandbox import Sandbox
from capillary_async.tables import UnfitError, schema

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from capillary_async import AsyncSession

    Sessions = Callable[..., AsyncSession]

EXPIRY: dict[str, Any] = {
    "program_id": 2282,
    "point_category_id": 17383,
    "expiry_date_start": date(2025, 6, 1),
    "expiry_date_end": date(2027, 6, 1),
}
AWARDED = {
    "program_id": 2282,
    "point_category_id": 17383,
    "start_expiry_date": date(2000, 1, 1),
    "end_expiry_date": date(2100, 1, 1),
    "status": "AVAILABLE",
}
EVER = {**EXPIRY, "expiry_date_start": date(2000, 1, 1), "expiry_date_end": date(2100, 1, 1)}


def row(number: int, customer: int = 5, points: str = "2.125", **more: Any) -> str:
    """A record as JSON text."""
    others = "".join(f', "{name}": {json.dumps(value)}' for name, value in more.items())
    return f'{{"id": {number}, "customer_id": {customer}, "points_exclusive": {points}, "status": "AVAILABLE"{others}}}'


def page_of(rows: list[str]) -> CallbackResult:
    """An answer."""
    return CallbackResult(body=f"[{', '.join(rows)}]", content_type="application/json")


def paged(rows: list[str]) -> Callable[[Seen], CallbackResult]:
    """A server that honours page and count."""

    def answer(seen: Seen) -> CallbackResult:
        page, count = int(seen.query["page"]), int(seen.query["count"])
        return page_of(rows[(page - 1) * count : page * count])

    return answer


async def test_a_table_has_the_records_of_the_sandbox(session_at: Sessions) -> None:
    """Value by value, of each endpoint, alone and of many customers."""
    with Sandbox(customers=40, whales=1, whale_rows=700) as box:
        session = session_at(box.url, auth=box.auth)
        ids = [*box.whale_ids[:1], *box.customer_ids[:15]]
        fans: list[Any] = [
            session.points_allocation.by_expiry_many(ids, **EVER),
            session.loyalty_events.list_many(ids),
            session.points_awarded.ids(ids, **AWARDED),
        ]
        for fan in fans:
            table = await fan.to_arrow()
            records = [(outcome.key, record) async for outcome in fan.ordered() for record in outcome.unwrap()]
            assert table.num_rows == len(records) > 100
            assert table.schema.names == ["asked_key", *schema(type(records[0][1])).names]
            assert table["asked_key"].to_pylist() == [key for key, _ in records]
            for name in ("id", "customer_id", "status", "points_exclusive", "expiry_date", "unique_id"):
                if name in table.schema.names:
                    assert table[name].to_pylist() == [getattr(record, name) for _, record in records]
        pager = session.points_allocation.by_expiry(entity_id=ids[0], **EVER)
        table = await pager.to_arrow()
        assert table.num_rows == len(await pager.collect()) == 700
        assert table.schema == schema(PointsAllocation)


async def test_an_empty_list_is_a_table_of_no_rows(session_at: Sessions) -> None:
    """With the schema, and no batch."""
    with serving([]):
        pager = session_at(HOST).points_allocation.by_expiry(entity_id=5, **EXPIRY)
        table = await pager.to_arrow()
        assert (table.num_rows, table.schema) == (0, schema(PointsAllocation))
        assert [batch async for batch in pager.batches()] == []


async def test_batches_have_the_asked_number_of_rows(session_at: Sessions) -> None:
    """Whatever the pages are; the last one has fewer."""
    with serving(paged([row(number) for number in range(1, 251)])):
        pager = session_at(HOST).points_allocation.by_expiry(entity_id=5, **EXPIRY)
        batches = [batch async for batch in pager.batches(rows=60, columns=["points_exclusive", "id"])]
    assert [batch.num_rows for batch in batches] == [60, 60, 60, 60, 10]
    assert all(isinstance(batch, pa.RecordBatch) for batch in batches)
    assert [number for batch in batches for number in batch["id"].to_pylist()] == list(range(1, 251))
    assert batches[0].schema.names == ["points_exclusive", "id"]


async def test_a_record_that_comes_twice_is_one_row(session_at: Sessions) -> None:
    """Also where its digits differ and its value does not."""
    rows = [row(number) for number in range(1, 150)]
    with serving(paged([*rows[:100], row(100, points="2.1250"), *rows[100:]])):
        pager = session_at(HOST).points_allocation.by_expiry(entity_id=5, **EXPIRY)
        table = await pager.to_arrow(columns=["id"])
    assert table["id"].to_pylist() == list(range(1, 150))


@pytest.mark.parametrize("columns", [None, ["id", "points_exclusive"], ["id"]])
async def test_a_conflict_is_an_error_and_loses_no_row_before_it(
    session_at: Sessions, columns: list[str] | None
) -> None:
    """The rows read before are given first, and reading continues from the error's position."""
    rows = [row(number) for number in range(1, 150)]
    with serving(paged([*rows[:100], row(100, points="9"), *rows[100:]])):
        pager = session_at(HOST).points_allocation.by_expiry(entity_id=5, **EXPIRY)
        batches: Any = pager.batches(columns=columns)
        assert (await anext(batches)).num_rows == 100
        with pytest.raises(RecordConflictError) as caught:
            await anext(batches)
        with pytest.raises(StopAsyncIteration):
            await anext(batches)
        assert caught.value.position is not None
        assert (caught.value.position.page, caught.value.position.index) == (2, 0)
    with serving(paged(rows)):
        rest = await pager.options(start=caught.value.position).to_arrow(columns=columns)
        assert rest["id"].to_pylist() == list(range(101, 150))
        assert [one.id for one in await pager.options(start=caught.value.position).collect()] == list(range(101, 150))


async def test_a_loop_and_an_unowned_answer_are_errors(session_at: Sessions) -> None:
    """As of records."""
    with serving(lambda _: page_of([row(number) for number in range(1, 101)])), pytest.raises(PageLoopError):
        await session_at(HOST).points_allocation.by_expiry(entity_id=5, **EXPIRY).to_arrow()
    with serving(lambda _: page_of([row(1, customer=6)])), pytest.raises(DecodeError, match="customer 6"):
        await session_at(HOST).points_allocation.by_expiry(entity_id=5, **EXPIRY).to_arrow(["id"])


async def test_a_value_that_does_not_fit_is_named(session_at: Sessions) -> None:
    """With the key, its row and the field; in a list with the name of the call."""
    rows = [row(number) for number in range(1, 131)]
    rows[120] = row(121, points="0.0001")
    with serving(paged(rows)):
        session = session_at(HOST)
        with pytest.raises(UnfitError, match=r"key 5: points_exclusive 0\.0001 of row 120 does not fit decimal128"):
            await session.points_allocation.by_expiry_many([5], **EXPIRY).to_arrow()
        with pytest.raises(
            UnfitError, match=r"by_expiry\(entity_id=5\): points_exclusive 0\.0001 of row 120 \(page 2\)"
        ):
            await session.points_allocation.by_expiry(entity_id=5, **EXPIRY).to_arrow()
        table = await session.points_allocation.by_expiry(entity_id=5, **EXPIRY).to_arrow(["id"])
    assert table.num_rows == 130


def some_fail(seen: Seen) -> Any:
    """Customers that end with a 7 are unknown."""
    customer = int(seen.query["entity_id"])
    return refused(404, 1234) if customer % 10 == 7 else page_of([row(customer * 10, customer)])


async def test_a_failed_key_raises_or_is_listed(session_at: Sessions) -> None:
    """`partial` gives the table of the others, in order, and the errors by key."""
    with serving(some_fail):
        fan = session_at(HOST).points_allocation.by_expiry_many(range(1, 31), **EXPIRY)
        with pytest.raises(NotFoundError) as caught:
            await fan.to_arrow()
        assert caught.value.key == 7
        table, failures = await fan.to_arrow(["id"], partial=True)
        assert list(failures) == [7, 17, 27]
        assert table["asked_key"].to_pylist() == [key for key in range(1, 31) if key % 10 != 7]
        alone = session_at(HOST).points_allocation.by_expiry_many(iter([7, "x", 17]), **EXPIRY)
        table, failures = await alone.to_arrow(partial=True)
        assert (table.num_rows, list(failures)) == (0, [7, "x", 17])


async def test_queries_are_structs(session_at: Sessions) -> None:
    """A key of several parts is a column of several parts."""
    queries = [EventQuery(entity_id="e1", customer_id=5, event_type_id=15)]
    with serving(lambda _: page_of([row(1)])):
        table = await session_at(HOST).points_allocation.by_event_many(queries).to_arrow(["id"])
    assert table.to_pylist() == [{"asked_key": {"entity_id": "e1", "customer_id": 5, "event_type_id": 15}, "id": 1}]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (["point_exclusive"], r"got 'point_exclusive'; 'points_exclusive' exists"),
        (["id", "id"], "each once"),
        ([], "at least one name"),
        ("id", "several names"),
        (5, "several names"),
        ([None], "got None"),
        (["asked_key"], "got 'asked_key'"),
    ],
)
async def test_a_column_that_does_not_exist_is_refused(session_at: Sessions, columns: Any, said: str) -> None:
    """Before anything is sent."""
    with serving([]) as seen:
        session = session_at(HOST)
        with pytest.raises(InvalidRequestError, match=said):
            await session.points_allocation.by_expiry(entity_id=5, **EXPIRY).to_arrow(columns)
        with pytest.raises(InvalidRequestError, match=said):
            session.points_allocation.by_expiry_many([5], **EXPIRY).batches(columns=columns)
    assert seen == []


@pytest.mark.parametrize("rows", [0, -1, True, "5", 1.5, None])
async def test_a_number_of_rows_is_checked(session_at: Sessions, rows: Any) -> None:
    """Before anything is sent."""
    with pytest.raises(InvalidRequestError, match="rows takes a whole number of at least 1"):
        session_at(HOST).points_allocation.by_expiry(entity_id=5, **EXPIRY).batches(rows=rows)


async def test_a_parquet_file_is_whole_or_not_there(session_at: Sessions, tmp_path: Path) -> None:
    """An error in the middle leaves the file that was there, and nothing beside it."""
    path = tmp_path / "points.parquet"
    with serving(paged([row(number) for number in range(1, 151)])):
        pager = session_at(HOST).points_allocation.by_expiry(entity_id=5, **EXPIRY)
        assert await pager.to_parquet(path, columns=["id", "points_exclusive"]) == 150
    before = path.read_bytes()
    read = pq.read_table(path)
    assert read["id"].to_pylist() == list(range(1, 151))
    assert set(read["points_exclusive"].to_pylist()) == {Decimal("2.125")}
    with serving(some_fail), pytest.raises(NotFoundError):
        await session_at(HOST).points_allocation.by_expiry_many([5, 7], **EXPIRY).to_parquet(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with serving([]) as seen:
        with pytest.raises(OSError, match="nowhere"):
            await pager.to_parquet(tmp_path / "nowhere" / "points.parquet")
        with pytest.raises(IsADirectoryError):
            await pager.to_parquet(tmp_path)
        for wrong, why in {"s3://bucket/points.parquet": "is a URL", "": "path takes the path of a file"}.items():
            with pytest.raises(InvalidRequestError, match=why):
                await pager.to_parquet(wrong)
        assert not seen


async def test_a_parquet_file_that_is_cancelled(session_at: Sessions, tmp_path: Path) -> None:
    """Whenever, and however often: no file or a whole one, and no thread that still writes."""
    with serving(paged([row(number) for number in range(1, 2001)])):
        pager = session_at(HOST).points_allocation.by_expiry(entity_id=5, **EXPIRY)
        for steps in range(0, 60, 3):
            writing = asyncio.ensure_future(pager.to_parquet(tmp_path / "points.parquet"))
            for _ in range(steps):
                await asyncio.sleep(0.0005)
            for _ in range(1 + steps % 2):
                writing.cancel()
                await asyncio.sleep(0)
            with contextlib.suppress(asyncio.CancelledError):
                await writing
            assert not [thread for thread in threading.enumerate() if thread.name.startswith("capillary_async.tables")]
            if left := list(tmp_path.iterdir()):  # cancelled once it was whole
                assert pq.read_metadata(*left).num_rows == 2000
                break


@pytest.mark.parametrize("columns", [None, ["id", "customer_id"]])
async def test_a_long_list_with_a_page_of_text_amounts(session_at: Sessions, columns: list[str] | None) -> None:
    """Beyond the pages whose bodies are kept, a row that comes twice is one, whichever way each page is read."""
    rows = [row(number) for number in range(1, 13_101)]
    odd = [row(13_005), row(20_000, points='"5"')]
    with serving(paged([*rows, *odd])):
        pager = session_at(HOST).points_allocation.by_expiry(entity_id=5, **EXPIRY)
        assert (await pager.to_arrow(columns)).num_rows == 13_101
    with serving(paged([*rows, row(13_005, points="7"), odd[1]])), pytest.raises(RecordConflictError):
        await pager.to_arrow(columns)


@pytest.mark.parametrize("wrong", [{"till_id": 5.5}, {"awarded_date": "2024-01-01"}, {"points_value": {}}])
async def test_a_page_is_refused_whichever_columns_are_asked(session_at: Sessions, wrong: dict[str, Any]) -> None:
    """As records are: a value that is none is seen also where its column is left out."""
    with serving(paged([row(1), row(2, **wrong)])), pytest.raises(DecodeError, match=next(iter(wrong))):
        await session_at(HOST).points_allocation.by_expiry(entity_id=5, **EXPIRY).to_arrow(["id"])


async def test_polars_and_pandas(session_at: Sessions) -> None:
    """Amounts exact, pandas backed by Arrow."""
    pl, pd = pytest.importorskip("polars"), pytest.importorskip("pandas")
    with serving(paged([row(1), row(2, points="123456789012345.678")])):
        pager = session_at(HOST).points_allocation.by_expiry(entity_id=5, **EXPIRY)
        frame = await pager.to_polars()
        assert frame.schema["points_exclusive"] == pl.Decimal(18, 3)
        assert frame["points_exclusive"].to_list() == [Decimal("2.125"), Decimal("123456789012345.678")]
        other = await pager.to_pandas(["points_exclusive", "id"])
        assert isinstance(other.dtypes["points_exclusive"], pd.ArrowDtype)
        assert other["points_exclusive"].sum() == Decimal("123456789012347.803")


async def test_a_loop_left_early_leaves_no_request(session_at: Sessions) -> None:
    """`aclose` of the batches ends the reading."""
    with serving(paged([row(number) for number in range(1, 1001)])) as seen:
        session = session_at(HOST)
        batches: Any = session.points_allocation.by_expiry(entity_id=5, **EXPIRY).batches(rows=10)
        async for batch in batches:
            assert batch.num_rows == 10
            break
        await batches.aclose()
        asked = len(seen)
        assert [batch async for batch in batches] == []
    assert len(seen) == asked < 10
