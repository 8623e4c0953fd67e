"""The data source on a local Spark: the SDK's rows, each once, whatever fails on the way; and no secret anywhere.

The server is the sandbox, in this process; Spark's workers are processes of their own. Nothing here is a cluster.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.pages import blocks, file_name, page, replaced
from support.spark_session import COMMON, EXPIRY, MARK

from capillary_async import AsyncSession, blocking, jobs
from capillary_async.jobs._common.digest import MultisetDigest
from capillary_async.sandbox import Sandbox, ServerFailure

if TYPE_CHECKING:
    from collections.abc import Callable

if os.environ.get("CAPILLARY_SPARK") != "required":
    pytest.importorskip("pyspark", reason='no Spark: pip install "pyspark[connect]>=4", and Java 17')
pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]

QUERY: dict[str, Any] = {
    "program_id": 2282,
    "point_category_id": 17383,
    "expiry_date_start": "2020-01-01",
    "expiry_date_end": "2030-12-31",
}
UNKNOWN = 999_999_999_999


class OneInTen(ServerFailure):
    """503 instead of one answer in ten, drawn for each."""

    drawn = random.Random(7)

    def matches(self, path: str, page: int) -> bool:
        return super().matches(path, page) and self.drawn.random() < 0.1


def reading(spark: Any, sandbox: Sandbox, **options: Any) -> Any:
    """The reader of the allocations of all customers of a sandbox."""
    given = {**EXPIRY, "baseUrl": sandbox.url, "ids": text_of(sandbox), **options}
    return spark.read.format("capillary").options(**{name: value for name, value in given.items() if value is not None})


def events(spark: Any, sandbox: Sandbox, **options: Any) -> Any:
    """The reader of the loyalty events of some customers."""
    given = {**COMMON, "resource": "loyalty_events.list", "baseUrl": sandbox.url, **options}
    return spark.read.format("capillary").options(**given)


def patiently(run: Callable[[], object]) -> None:
    """Run a stream; on a busy machine the process of its reader may take longer than Spark's ten seconds to start."""
    for attempt in range(4):
        try:
            run()
        except Exception as error:
            if attempt == 3 or "failed to connect back" not in str(error):
                raise
        else:
            return


def text_of(sandbox: Sandbox) -> str:
    return ",".join(map(str, sandbox.customer_ids))


def digest_of(rows: list[Any]) -> str:
    """The digest that a manifest has of the same rows."""
    bag = MultisetDigest()
    bag.put((row.asked_key, row.id) for row in rows)
    return str(bag)


def exported(sandbox: Sandbox, folder: Path) -> Any:
    """The manifest of an export of the same query."""

    async def export() -> Any:
        async with AsyncSession(sandbox.url, auth=sandbox.auth) as session:
            await jobs.export("allocations", sandbox.customer_ids, folder, session=session, **QUERY)
        return await jobs.verify(folder)

    asyncio.run(export())
    return json.loads((folder / "manifest.json").read_text())


def workers() -> list[int]:
    """The processes of Spark's Python workers: children of its daemon."""
    parents = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and b"pyspark.daemon" in (entry / "cmdline").read_bytes():
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
    return [pid for pid, parent in parents.items() if parent in parents]


def test_rows_are_those_of_an_export_though_a_task_dies(spark: Any, sandbox_with: Any, tmp_path: Path) -> None:
    """The digest is the manifest's, with one answer in ten a fault and the workers killed in the middle."""
    sandbox = sandbox_with(customers=300, latency=0.01, faults=[OneInTen(times=None)])
    manifest = exported(sandbox, tmp_path / "export")
    before, killed = len(sandbox.journal), []

    def kill() -> None:
        while len(sandbox.journal) < before + 100:
            time.sleep(0.01)
        for pid in workers():
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    thread = threading.Thread(target=kill)
    thread.start()
    rows = (
        reading(spark, sandbox, ids=None, idsManifest=str(tmp_path / "export"))
        .load()
        .select("asked_key", "id")
        .collect()
    )
    thread.join(60)
    assert killed
    assert digest_of(rows) == manifest["keys_digest"]
    assert len(rows) == manifest["records"]


def test_a_failing_key_fails_the_job_or_is_a_row(spark: Any, sandbox_with: Any) -> None:
    """The text of the error has what Spark drops; permissive, all other rows are there."""
    sandbox = sandbox_with(customers=40)
    ids = f"{UNKNOWN},{text_of(sandbox)}"
    with pytest.raises(Exception, match="SparkReadError") as caught:
        events(spark, sandbox, ids=ids).load().collect()
    for said in (f"CustomerNotFoundError (key {UNKNOWN}, ", "status 400", "request id "):
        assert said in str(caught.value)
    rows = events(spark, sandbox, ids=ids, onError="permissive").load().select("asked_key", "id", "_error").collect()
    (failed,) = [row for row in rows if row._error is not None]
    assert (failed.asked_key, failed.id) == (UNKNOWN, None)
    assert (failed._error.type, failed._error.status) == ("CustomerNotFoundError", 400)
    assert failed._error.request_id
    assert len(rows) == 1 + sandbox.totals().events
    assert len({row.id for row in rows}) == len(rows)


def test_each_resource_gives_the_rows_of_the_sdk(spark: Any, sandbox_with: Any) -> None:
    """In the types of `capillary_async.tables`, in the order of the ids."""
    sandbox = sandbox_with(customers=12)
    ids = sandbox.customer_ids
    with blocking.Session(sandbox.url, auth=sandbox.auth) as session:
        allocations = session.points_allocation.by_expiry_many(ids, **QUERY)
        listed = session.loyalty_events.list_many(ids)
        dates = {"start_expiry_date": "2020-01-01", "end_expiry_date": "2030-12-31", "status": ["AVAILABLE", "EXPIRED"]}
        awarded = session.points_awarded.ids(ids, program_id=2282, point_category_id=17383, **dates)
        tables = [fan.to_arrow() for fan in (allocations, listed, awarded)]
    named = {
        "resource": "points_awarded.ids",
        "startExpiryDate": "2020-01-01",
        "endExpiryDate": "2030-12-31",
        "status": "AVAILABLE,EXPIRED",
    }
    program = {name: EXPIRY[name] for name in ("programId", "pointCategoryId")}
    frames = [reading(spark, sandbox).load(), events(spark, sandbox, ids=text_of(sandbox)).load()]
    frames.append(events(spark, sandbox, ids=text_of(sandbox), **named, **program).load())
    for frame, table in zip(frames, tables, strict=True):
        found = frame.toArrow()
        assert found.cast(table.schema).equals(table)


def test_compound_ids_and_a_ledger(spark: Any, sandbox_with: Any) -> None:
    """Events and ledgers of customers that a file names, by the columns of an export."""
    sandbox = sandbox_with(customers=12)
    rows = (
        reading(spark, sandbox).load().where("event_log_id > 0").select("asked_key", "event_log_id").limit(30).collect()
    )
    ids = ",".join(f"{row.asked_key}:{row.event_log_id}" for row in rows)
    frame = events(spark, sandbox, resource="points_ledger.explode", ids=ids).load()
    found = {(row.asked_key, row.event_log_id) for row in frame.select("asked_key", "event_log_id").collect()}
    assert found == {(str(row.asked_key), row.event_log_id) for row in rows}


def test_a_schema_chooses_columns_and_changes_none(spark: Any, sandbox_with: Any) -> None:
    """In its order; an unknown column and another type are refused by name."""
    sandbox = sandbox_with(customers=4)
    frame = reading(spark, sandbox).schema("status string, id bigint").load()
    assert frame.columns == ["status", "id"]
    assert frame.count() == reading(spark, sandbox).load().count()
    for schema, said in (
        ("idd bigint", "Did you mean 'id'"),
        ("points_exclusive double", "as double, and it is decimal(18,3)"),
    ):
        with pytest.raises(Exception, match="the schema has") as caught:
            reading(spark, sandbox).schema(schema).load().count()
        assert said in str(caught.value)


def test_a_filter_on_the_asked_key_reads_only_those(spark: Any, sandbox_with: Any) -> None:
    """With Spark's own setting and the option; without the option everything is read and the answer is the same."""
    sandbox = sandbox_with(customers=40)
    few = sandbox.customer_ids[3:5]
    asked = f"asked_key in ({few[0]}, {few[1]}, 5)"
    plain = reading(spark, sandbox).load().where(asked).select("asked_key", "id").collect()
    spark.conf.set("spark.sql.python.filterPushdown.enabled", "true")
    try:
        before = len(sandbox.journal)
        pushed = reading(spark, sandbox, pushdown="true").load()
        assert digest_of(pushed.where(asked).select("asked_key", "id").collect()) == digest_of(plain)
        assert len(sandbox.journal) - before < 10
        assert pushed.where("asked_key = 5").count() == 0
    finally:
        spark.conf.unset("spark.sql.python.filterPushdown.enabled")


def test_an_early_end_leaves_no_request(spark: Any, sandbox_with: Any) -> None:
    """`limit` takes what it needs: the requests end, and most ids are not read."""
    sandbox = sandbox_with(customers=3_000, latency=0.02)
    assert len(reading(spark, sandbox, concurrency="4").load().limit(1).collect()) == 1
    asked, before = len(sandbox.journal), -1
    while asked != before:
        time.sleep(1)
        asked, before = len(sandbox.journal), asked
    assert asked < 2_000


def test_ids_of_a_table(spark: Any, sandbox_with: Any) -> None:
    """`read` gives the rows of the data source; an id that comes twice is read once, and a null is named."""
    from capillary_async.spark import read

    sandbox = sandbox_with(customers=60)
    options = {**EXPIRY, "base_url": sandbox.url}
    customers = spark.createDataFrame(
        [(each, "x") for each in [*sandbox.customer_ids, *sandbox.customer_ids]], "`the id` bigint, b string"
    )
    rows = read(customers, id_column="the id", **options).select("asked_key", "id").collect()
    assert digest_of(rows) == digest_of(reading(spark, sandbox).load().select("asked_key", "id").collect())
    firsts = [seen.params["entity_id"] for seen in sandbox.journal if seen.params.get("page") == "1"]
    assert Counter(firsts) == Counter(map(str, [*sandbox.customer_ids, *sandbox.customer_ids])), (
        "once by each of the two readings"
    )
    with pytest.raises(Exception, match="customer_id '' is empty"):
        read(spark.createDataFrame([(None,)], "c bigint"), id_column="c", **options).count()
    for column, said in (("d", "cast it to bigint"), ("e", "has no column 'e'")):
        with pytest.raises(ValueError, match=said):
            read(spark.createDataFrame([(1.0,)], "d double"), id_column=column, **options)


def test_a_stream_resumes_and_gives_each_row_once(spark: Any, sandbox_with: Any, tmp_path: Path) -> None:
    """A customer that is refused ends it; once they are not, it reads what is missing and nothing twice."""
    sandbox = sandbox_with(customers=60)
    ids = list(sandbox.customer_ids)
    sandbox.add_faults(ServerFailure(403, path=f"/{ids[25]}/", times=4))  # once per attempt of the task
    path = tmp_path / "ids.txt"

    def run(some: list[int]) -> None:
        path.write_text("".join(f"{each}\n" for each in some))
        given = {**COMMON, "resource": "loyalty_events.list", "idsPath": str(path), "idsPerBatch": "20"}
        stream = spark.readStream.format("capillary").options(**given, baseUrl=sandbox.url)
        stream = stream.schema("asked_key bigint, id bigint").load()
        writer = stream.writeStream.format("parquet").option("checkpointLocation", str(tmp_path / "checkpoint"))
        writer = writer.option("path", str(tmp_path / "out")).trigger(availableNow=True)
        patiently(lambda: writer.start().awaitTermination(120))

    with pytest.raises(Exception, match=f"key {ids[25]}"):
        run(ids)
    assert len(list((tmp_path / "checkpoint" / "commits").glob("[0-9]*"))) == 1, "20 ids are done"
    first = len(sandbox.journal)
    with pytest.raises(Exception, match="are not those that the checkpoint was made with"):
        run(ids[1:])
    assert len(sandbox.journal) == first
    run(ids)
    rows = spark.read.parquet(str(tmp_path / "out")).collect()
    assert len(rows) == sandbox.totals().events
    assert len({row.id for row in rows}) == len(rows)
    later = {seen.path for seen in list(sandbox.journal)[first:]}
    assert later == {f"/v2/customers/{each}/loyaltyEvents" for each in ids[20:]}


def test_no_secret_is_in_plans_logs_errors_readers_or_the_ui(spark: Any, sandbox_with: Any, spark_logs: Path) -> None:
    """The credential is a reference until a task resolves it."""
    from capillary_async.spark._source import CapillarySource

    sandbox = sandbox_with(customers=4)
    frame = reading(spark, sandbox).load()
    frame.createOrReplaceTempView("allocations")
    spark.sql("SELECT count(*) FROM allocations").collect()
    seen = [frame._jdf.queryExecution().toString()]
    seen += [
        frame._jdf.queryExecution().explainString(
            spark._jvm.org.apache.spark.sql.execution.ExplainMode.fromString(mode)
        )
        for mode in ("formatted", "codegen")
    ]
    with pytest.raises(Exception, match=f"key {UNKNOWN}") as caught:
        events(spark, sandbox, ids=str(UNKNOWN)).load().collect()
    seen.append(str(caught.value))
    source = CapillarySource({**EXPIRY, "baseUrl": sandbox.url, "ids": "5"})
    seen.append(repr(pickle.dumps(source.reader(source.schema()))))
    ui = spark.sparkContext.uiWebUrl
    pages = ["/environment/", "/SQL/", "/SQL/execution/?id=0", "/jobs/", "/stages/"]
    for each in [*pages, "/api/v1/applications"]:
        with urllib.request.urlopen(ui + each, timeout=20) as answer:  # noqa: S310 - of this machine
            seen.append(answer.read().decode())
    seen += [path.read_text("utf-8", "replace") for path in spark_logs.rglob("*") if path.is_file()]
    assert len(seen) > 10
    assert [text[:200] for text in seen if MARK in text] == []
    assert any("SparkListenerSQLExecutionStart" in text for text in seen)


def test_connect_reads_the_same_and_logs_no_secret(sandbox_with: Any, tmp_path: Path) -> None:
    """In a process group of its own, ended before its server."""
    sandbox = sandbox_with(customers=30)
    command = [sys.executable, "-m", "support.spark_session", "connect", str(tmp_path), sandbox.url, text_of(sandbox)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment
    )
    try:
        out, complaints = running.communicate(timeout=150)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
        raise
    lines = dict(line.partition(" ")[::2] for line in out.splitlines())
    assert running.returncode == 0, complaints[-2000:]
    counted, read = map(int, lines["rows"].split())
    assert counted == read == sandbox.totals().allocations
    assert f"key {UNKNOWN}" in lines["error"]
    logs = [path.read_text("utf-8", "replace") for path in tmp_path.rglob("*") if path.is_file()]
    assert any("ConnectOperation" in text for text in logs)
    assert not any(MARK in text for text in [*logs, out, complaints])


@pytest.mark.parametrize("name", ["spark_batch.py", "spark_table.py", "spark_stream.py"])
def test_the_blocks_of_the_page(
    name: str, spark: Any, sandbox_with: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each runs in a session that is there, as in a notebook; only host and till are replaced."""
    sandbox = sandbox_with(customers=20)
    (block,) = [block for block in blocks("python", page("how_to/spark.md")) if file_name(block) == name]
    monkeypatch.chdir(tmp_path)
    block = replaced(block, sandbox).replace('"till.id"', f'"{sandbox.username}"')
    block = block.replace('"events"', f'"{tmp_path}/events"').replace('"checkpoint"', f'"{tmp_path}/checkpoint"')
    patiently(lambda: exec(compile(block, name, "exec"), {"spark": spark}))  # noqa: S102
    assert {seen.params.get("entity_id") or seen.path.split("/")[3] for seen in sandbox.journal} == {
        "600000001", "600000008", "600000015"
    }  # fmt: skip
    if name == "spark_stream.py":
        assert spark.read.parquet(f"{tmp_path}/events").select("asked_key").distinct().count() == 3
