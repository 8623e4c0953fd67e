"""The readers of the data source against the sandbox, called as Spark calls them; pyspark without a JVM."""

from __future__ import annotations

import pickle
import threading
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from support.environment import name_cluster

from capillary_async import InvalidRequestError, blocking
from capillary_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("pyspark", reason='no Spark: pip install "pyspark[connect]>=4"')

QUERY: dict[str, Any] = {
    "program_id": 2282,
    "point_category_id": 17383,
    "expiry_date_start": "2020-01-01",
    "expiry_date_end": "2030-12-31",
}
EXPIRY = {"resource": "points_allocation.by_expiry", **QUERY}
EVENTS = {"resource": "loyalty_events.list"}
UNKNOWN = 999_999_999_999


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """A sandbox that the environment names."""
    with Sandbox(customers=20, whales=0) as sandbox:
        name_cluster(monkeypatch, sandbox.url, sandbox.username, sandbox.password)
        yield sandbox


def source(**options: Any) -> Any:
    from capillary_async.spark._source import CapillarySource

    return CapillarySource(options)


def text(ids: Any) -> str:
    return ",".join(map(str, ids))


def all_rows(reader: Any, parts: Any = None) -> list[dict[str, Any]]:
    """What Spark would have of all partitions, each read with a reader of its own."""
    parts = reader.partitions() if parts is None else parts
    copies = [pickle.loads(pickle.dumps((reader, part))) for part in parts]  # noqa: S301 - made here
    return [row for copy, part in copies for batch in copy.read(part) for row in batch.to_pylist()]


def test_partitions_give_the_rows_of_the_sdk_in_order(cluster: Sandbox) -> None:
    """As Spark's types have them; with fewer columns where a schema chooses."""
    made = source(**EXPIRY, ids=text(cluster.customer_ids), numPartitions=3, pageSize=50)
    reader = made.reader(made.schema())
    assert [len(part.value) for part in reader.partitions()] == [6, 7, 7]
    with blocking.Session(cluster.url, auth=cluster.auth) as session:
        table = session.points_allocation.by_expiry_many(cluster.customer_ids, **QUERY).to_arrow()
    assert all_rows(reader) == table.to_pylist()
    fewer = made.schema()
    fewer = type(fewer)([field for field in fewer.fields if field.name in ("id", "asked_key")])
    assert all_rows(made.reader(fewer)) == table.select(["asked_key", "id"]).to_pylist()
    key = type(fewer)(fewer.fields[:1])
    assert all_rows(made.reader(key)) == table.select(["asked_key"]).to_pylist()
    assert not [each for each in threading.enumerate() if each.name == "capillary_async.blocking"]


def test_a_failed_key_is_raised_or_is_a_row(cluster: Sandbox) -> None:
    """With key, page, status and request id."""
    ids = f"{UNKNOWN},{text(cluster.customer_ids[:3])}"
    made = source(**EVENTS, ids=ids, numPartitions=1)
    with pytest.raises(
        Exception, match=f"CustomerNotFoundError .key {UNKNOWN}, page 1, status 400, request id sandbox"
    ):
        all_rows(made.reader(made.schema()))
    made = source(**EVENTS, ids=ids, numPartitions=1, onError="permissive", concurrency=2, verify="true")
    *rows, failed = all_rows(made.reader(made.schema()))
    assert {row["asked_key"] for row in rows} == set(cluster.customer_ids[:3])
    assert all(row["_error"] is None for row in rows)
    assert (failed["asked_key"], failed["id"], failed["_error"]["status"]) == (UNKNOWN, None, 400)
    lacking = type(made.schema())([field for field in made.schema().fields if field.name != "_error"])
    with pytest.raises(InvalidRequestError, match="lacks _error"):
        made.reader(lacking)


def test_an_end_in_the_middle_leaves_no_thread(cluster: Sandbox) -> None:
    """What Spark does when it wants no more rows."""
    made = source(**EXPIRY, ids=text(cluster.customer_ids), numPartitions=1, maxRequestsPerSecond=100_000)
    reader = made.reader(made.schema())
    batches = reader.read(reader.partitions()[0])
    assert next(batches).num_rows > 0
    batches.close()
    assert not [each for each in threading.enumerate() if each.name == "capillary_async.blocking"]


def test_filters_choose_ids(cluster: Sandbox) -> None:
    """Of `asked_key` alone, and Spark applies all of them again."""
    from pyspark.sql.datasource import EqualTo, GreaterThan, In

    some = cluster.customer_ids[2:6]
    made = source(**EXPIRY, ids=text(cluster.customer_ids), pushdown="true")
    reader = made.reader(made.schema())
    filters = [In(("asked_key",), (*some, 5)), GreaterThan(("id",), 0), EqualTo(("status",), "EXPIRED")]
    assert list(reader.pushFilters(filters)) == filters
    assert [key for part in reader.partitions() for key in part.value] == list(some)
    assert list(reader.pushFilters([EqualTo(("asked_key",), 5)]))
    assert reader.partitions() == []
    assert list(reader.read(SimpleNamespace(value=None))) == [], "what Spark makes of no partition"


def test_a_stream_is_a_position_in_the_list(cluster: Sandbox, tmp_path: Path) -> None:
    """By pieces from Spark 4.2 on, and as a whole before; a list may grow, and no other one is read."""
    from capillary_async.spark._pyspark import read_limit

    path = tmp_path / "ids.txt"
    path.write_text("\n".join(map(str, cluster.customer_ids)))
    made = source(**EVENTS, idsPath=str(path), idsPerBatch=8, numPartitions=2)
    reader = made.streamReader(made.schema())
    reader.prepareForTriggerAvailableNow()
    assert reader.getDefaultReadLimit() == read_limit(8)
    offsets = [reader.initialOffset()]
    while (after := reader.latestOffset(offsets[-1], read_limit(8))) != offsets[-1]:
        offsets.append(after)
    assert [offset["ids"] for offset in offsets] == [0, 8, 16, 20]
    assert reader.latestOffset() == reader.latestOffset(offsets[0], object()) == offsets[-1]
    rows = [row for start, end in pairwise(offsets)
            for row in all_rows(reader, reader.partitions(start, end))]  # fmt: skip
    assert len({row["id"] for row in rows}) == len(rows) == cluster.totals().events
    assert reader.partitions(offsets[-1], offsets[-1]) == []
    reader.commit(offsets[-1])
    reader.stop()
    path.write_text(path.read_text() + "\n700000001")
    assert made.streamReader(made.schema()).partitions(offsets[1], offsets[2])
    path.write_text(path.read_text().partition("\n")[2])
    with pytest.raises(InvalidRequestError, match="are not those that the checkpoint was made with"):
        made.streamReader(made.schema()).partitions(offsets[1], offsets[2])


def test_ledgers_and_events_by_compound_ids(cluster: Sandbox) -> None:
    """The events of one ledger are asked for together; one that does not come is a failure."""
    made = source(**EXPIRY, ids=text(cluster.customer_ids))
    rows = [row for row in all_rows(made.reader(made.schema())) if row["event_log_id"] > 0][:12]
    pairs = [f"{row['asked_key']}:{row['event_log_id']}" for row in rows]
    made = source(resource="points_ledger.explode", ids=",".join(pairs), numPartitions=2)
    found = {f"{row['asked_key']}:{row['event_log_id']}" for row in all_rows(made.reader(made.schema()))}
    assert found == set(pairs)
    made = source(resource="points_allocation.by_event", ids=f"tx:{cluster.customer_ids[0]}:1", notFound="empty")
    assert all_rows(made.reader(made.schema())) == []
    with pytest.raises(InvalidRequestError, match="include takes names of LedgerInclude"):
        source(resource="points_ledger.explode", ids="5:6", include="nothing")


def test_sorted_batches_of_ids_become_rows(cluster: Sandbox) -> None:
    """What `read` has Spark call: an id that comes twice is read once, also over two batches."""
    import pyarrow as pa

    from capillary_async.spark._columns import spark_schema
    from capillary_async.spark._doors import _read_batches
    from capillary_async.spark._options import settings_of

    settings, _ = settings_of(EXPIRY)
    ids = sorted([*cluster.customer_ids[:3], cluster.customer_ids[0]])
    given = [pa.record_batch({"customer_id": ids[:1]}), pa.record_batch({"customer_id": ids[1:]})]
    batches = _read_batches(spark_schema(settings), settings, iter(given))
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert len({row["id"] for row in rows}) == len(rows)
    asked = [seen.params["entity_id"] for seen in cluster.journal if seen.params["page"] == "1"]
    assert sorted(asked) == list(map(str, cluster.customer_ids[:3]))
    with pytest.raises(Exception, match="customer_id '' is empty"):
        list(_read_batches(spark_schema(settings), settings, iter([pa.record_batch({"customer_id": [None]})])))


class Frame:
    """A DataFrame that notes what is done with it."""

    def __init__(self, schema: str) -> None:
        self.schema = self._made([part.split(" ") for part in schema.split(", ")])
        self.sparkSession = SimpleNamespace(sparkContext=SimpleNamespace(defaultParallelism=6))
        self.done: list[Any] = []

    @staticmethod
    def _made(fields: list[list[str]]) -> Any:
        kinds = [SimpleNamespace(name=name, dataType=SimpleNamespace(simpleString=lambda kind=kind: kind))
                 for name, kind in fields]  # fmt: skip
        return SimpleNamespace(fields=kinds)

    def __getattr__(self, name: str) -> Any:
        def note(*arguments: Any) -> Frame:
            self.done.append((name, arguments))
            return self

        return note


def test_ids_of_a_table_are_distributed_by_value() -> None:
    """As many tasks as slots; texts lose their blanks first; other types and names are refused."""
    from capillary_async.spark import read

    frame = Frame("a`b bigint, c string, d double")
    assert read(frame, id_column="a`b", **EXPIRY) is frame
    assert frame.done[:3] == [
        ("selectExpr", ("`a``b` AS customer_id",)),
        ("repartition", (6, "customer_id")),
        ("sortWithinPartitions", ("customer_id",)),
    ]
    read(frame, id_column=["c", "a`b"], resource="points_ledger.explode", num_partitions=3)
    assert ("selectExpr", ("trim(`c`) AS customer_id", "`a``b` AS event_log_id")) in frame.done
    for column, said in (
        ("d", "cast it to bigint"),
        ("c", "is a whole number"),
        ("e", "no column 'e'"),
        (["c", "d"], "1 names"),
    ):
        with pytest.raises(InvalidRequestError, match=said):
            read(frame, id_column=column, **EXPIRY)
    with pytest.raises(InvalidRequestError, match="ids_path is an option of the data source"):
        read(frame, id_column="c", ids_path="x", **EXPIRY)


def test_register_takes_the_slots_of_a_classic_session() -> None:
    """Connect does not say them."""
    from capillary_async.spark import register

    registered: list[Any] = []
    store = SimpleNamespace(register=registered.append)
    register(SimpleNamespace(dataSource=store, sparkContext=SimpleNamespace(defaultParallelism=6)))
    register(SimpleNamespace(dataSource=store))
    assert [kind.partitions for kind in registered] == [6, None]
    assert {kind.name() for kind in registered} == {"capillary"}


@pytest.mark.parametrize(
    ("field", "said"), [("idd", "Did you mean 'id'"), ("points_exclusive", "and it is decimal.18,3.")]
)
def test_a_schema_names_columns_that_exist(field: str, said: str) -> None:
    """Under their own types."""
    from pyspark.sql.types import DoubleType, StructField, StructType

    made = source(**EXPIRY, ids="5")
    with pytest.raises(InvalidRequestError, match=said):
        made.reader(StructType([StructField(field, DoubleType())]))
