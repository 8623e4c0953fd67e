"""Options, references to credentials and ids of the data source, as values; without Spark."""

from __future__ import annotations

import pickle
import subprocess
import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from capillary_async import BasicAuth, InvalidRequestError, OAuthClient, Rate
from capillary_async.spark._credentials import check_reference, credentials_of
from capillary_async.spark._ids import ids_of, key_of, merged
from capillary_async.spark._options import IdSource, settings_of
from capillary_async.spark._resources import RESOURCES

if TYPE_CHECKING:
    from pathlib import Path

QUERY = {
    "resource": "points_allocation.by_expiry",
    "programId": "2282",
    "pointCategoryId": "17383",
    "expiryDateStart": "2025-06-01",
    "expiryDateEnd": "2027-06-01",
}
EXPIRY = RESOURCES["points_allocation.by_expiry"]
LEDGER = RESOURCES["points_ledger.explode"]
EVENT = RESOURCES["points_allocation.by_event"]
SECRET = "hunter2-hunter2"


def from_option(ids: Any) -> IdSource:
    return IdSource(ids, None, None, ())


def from_file(path: Path, *columns: str) -> IdSource:
    return IdSource(None, str(path), None, columns)


def test_options_are_read_under_any_spelling() -> None:
    """As Spark lowers them, as users of Python and of Java write them."""
    lowered = {name.lower(): value for name, value in QUERY.items()}
    snake = {
        "resource": "points_allocation.by_expiry",
        "program_id": 2282,
        "point_category_id": 17383,
        "expiry_date_start": "2025-06-01",
        "expiry_date_end": "2027-06-01",
    }
    settings = [settings_of(each)[0] for each in (QUERY, lowered, snake)]
    assert settings[0] == settings[1] == settings[2]
    assert settings[0].query == {name: value for name, value in snake.items() if name != "resource"}
    assert pickle.loads(pickle.dumps(settings[0])) == settings[0]  # noqa: S301 - made here


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"resource": None}, "option resource is missing"),
        ({"resource": "points_allocation.by_expire"}, "Did you mean 'points_allocation.by_expiry'"),
        ({"programId": None}, "option programId is missing: points_allocation.by_expiry needs programId, pointCat"),
        ({"programId": "2282.0"}, "option programId takes a whole number, got '2282.0'"),
        ({"programid": "2_282"}, "option programId takes a whole number"),
        ({"numPartition": "4"}, "Did you mean 'numPartitions'"),
        ({"path": "/ids.csv"}, "Give the file of ids as idsPath"),
        ({"eventType": "EARN"}, "points_allocation.by_expiry has no option 'eventType'"),
        ({"expiryDateStart": "2027-13-01"}, "expiry_date_start"),
        ({"numPartitions": "0"}, "option numPartitions takes a whole number from 1 on"),
        ({"maxRequestsPerSecond": "0"}, "maxRequestsPerSecond takes"),
        ({"maxRequestsPerSecond": "nan"}, "maxRequestsPerSecond takes"),
        ({"maxRequestsPerSecond": "fast"}, "option maxRequestsPerSecond takes a number above 0, got 'fast'"),
        ({"onError": "ignore"}, "option onError takes failfast or permissive, got 'ignore'"),
        ({"pushdown": "on"}, "option pushdown takes true or false"),
        ({"baseUrl": "http://api.example.com"}, "base_url"),
        ({"idsColumn": "a,b"}, "option idsColumn takes 1 names"),
        ({"credential": "env:TILL_PASSWORD"}, "together with username"),
        ({"program_id": "2282"}, "option programId is given twice"),
        ({"limiter": "redis://a:6379/0"}, "limiter needs maxRequestsPerSecond"),
        ({"limiter": "redis://a/0,redis://b/0", "maxRequestsPerSecond": "9"}, "takes the URL of a Redis"),
        ({"limiter": "a:6379", "maxRequestsPerSecond": "9"}, "option limiter takes redis://HOST:6379/0"),
        ({"username": "till"}, "together with username"),
        ({"username": "till", "clientKey": "key", "credential": "env:X"}, "together with username"),
    ],
)  # fmt: skip
def test_wrong_options_are_named(changed: dict[str, Any], said: str) -> None:
    """Unknown, missing, invalid and contradictory ones; the nearest name is shown."""
    given = {name: value for name, value in {**QUERY, **changed}.items() if value is not None}
    if "programid" in given:
        del given["programId"]
    with pytest.raises(InvalidRequestError) as caught:
        settings_of(given)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["password", "token", "client_secret", "Authorization", "apiKey"])
def test_an_option_for_a_secret_is_refused(name: str) -> None:
    """Without repeating it, since Spark writes errors into its logs."""
    with pytest.raises(InvalidRequestError, match="a secret is never an option") as caught:
        settings_of({**QUERY, name: SECRET})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [SECRET, "", "env:", f"env:A {SECRET}", f"file:{SECRET}", f"secret:{SECRET}", f"secret:/{SECRET}", f"x:{SECRET}"],
)
def test_a_secret_in_place_of_a_reference_is_refused(given: str) -> None:
    """Without repeating it."""
    with pytest.raises(InvalidRequestError, match="takes a reference, never a secret") as caught:
        check_reference(given)
    assert SECRET not in str(caught.value)


def test_a_password_of_the_limiter_is_refused() -> None:
    """Without repeating it; a reference leads to it."""
    given = {**QUERY, "maxRequestsPerSecond": "200"}
    with pytest.raises(InvalidRequestError, match="with a password, which is a secret") as caught:
        settings_of({**given, "limiter": f"redis://:{SECRET}@host/0"})
    assert SECRET not in str(caught.value)
    settings, _ = settings_of({**given, "limiter": "env:REDIS_URL", "numPartitions": "8"})
    assert (settings.limiter, settings.rate_per_task) == ("env:REDIS_URL", 200)


def test_references_are_resolved_where_they_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable, a file, and the secret scope of a platform."""
    monkeypatch.setenv("TILL_PASSWORD", SECRET)
    assert isinstance(credentials_of("env:TILL_PASSWORD", username="till", client_key=None), BasicAuth)
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    assert isinstance(credentials_of(f"file:{tmp_path}/secret", username=None, client_key="key"), OAuthClient)
    runtime: Any = ModuleType("databricks.sdk.runtime")
    runtime.dbutils = SimpleNamespace(secrets=SimpleNamespace(get=lambda scope, key: scope + key))
    monkeypatch.setitem(sys.modules, "databricks.sdk.runtime", runtime)
    assert isinstance(credentials_of("secret:scope/key", username="till", client_key=None), BasicAuth)


@pytest.mark.parametrize("reference", ["env:NO_SUCH_NAME", "file:/no/such/file", "secret:no/such"])
def test_a_reference_that_leads_to_nothing_is_named(reference: str) -> None:
    """With where it was looked for."""
    with pytest.raises(InvalidRequestError) as caught:
        credentials_of(reference, username="till", client_key=None)
    assert reference in str(caught.value)
    assert "task" in str(caught.value)


def test_ids_are_checked_and_each_is_read_once(tmp_path: Path) -> None:
    """From an option, a text, a CSV, a gzip file and Parquet; in their order."""
    import gzip

    import pyarrow as pa
    import pyarrow.parquet as pq

    assert ids_of(from_option("5, 3,\n5,00003"), EXPIRY) == [5, 3]
    assert ids_of(from_option([5, 3, 5]), EXPIRY) == [5, 3]
    (tmp_path / "ids.txt").write_text("\ufeff5\r\n\r\n3\r\n5\r\n")
    assert ids_of(from_file(tmp_path / "ids.txt"), EXPIRY) == [5, 3]
    (tmp_path / "ids.csv").write_text('name,customer\n"a, b",5\nc,3\n')
    assert ids_of(from_file(tmp_path / "ids.csv", "customer"), EXPIRY) == [5, 3]
    (tmp_path / "ids.txt.gz").write_bytes(gzip.compress(b"5\n3\n"))
    assert ids_of(from_file(tmp_path / "ids.txt.gz"), EXPIRY) == [5, 3]
    pq.write_table(pa.table({"customer": [5, 3]}), tmp_path / "ids.parquet")
    assert ids_of(from_file(tmp_path / "ids.parquet"), EXPIRY) == [5, 3]


def test_compound_ids(tmp_path: Path) -> None:
    """Three parts of an event; the events of one ledger are one key, and rows without an event are none."""
    assert ids_of(from_option("tx-1:5:7"), EVENT) == [("tx-1", 5, 7)]
    assert ids_of(from_option("5:11,6:12,5:13,5:11"), LEDGER) == [("5", ("11", "13")), ("6", ("12",))]
    (tmp_path / "ids.csv").write_text("event_log_id,customer_id\n11,5\n-1,5\n,6\n13,5\n")
    assert ids_of(from_file(tmp_path / "ids.csv"), LEDGER) == [("5", ("11", "13"))]
    assert list(merged([("5", "1"), ("5", "1")], LEDGER)) == [("5", ("1",))]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("customer_id\n5\n", "line 1: customer_id 'customer_id' is no id"),
        ("5\n6.0E+8\n", "line 2: customer_id '6.0E+8' is no id: it is a number with a sign"),
        ("5\n-3\n", "line 2"),
        ("5\n9223372036854775808\n", "is larger than"),
        ("", "there are no ids"),
        ("5\n\x00\n", "line 2"),
    ],
)
def test_a_file_with_no_id_in_a_line_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """With the line."""
    (tmp_path / "ids.txt").write_text(text)
    with pytest.raises(InvalidRequestError) as caught:
        ids_of(from_file(tmp_path / "ids.txt"), EXPIRY)
    assert said in str(caught.value)


def test_ids_that_are_not_there_are_named(tmp_path: Path) -> None:
    """A file, a column, an export, a URL, and ids in no way or in two."""
    (tmp_path / "ids.csv").write_text("customer,name\n5,a\n")
    cases = [
        (IdSource(None, None, None, ()), "none of them is given"),
        (IdSource("5", "ids", None, ()), "several are given"),
        (from_file(tmp_path / "idz.csv"), "Did you mean 'ids.csv'"),
        (from_file(tmp_path / "ids.csv", "custmer"), "no column 'custmer'. Did you mean 'customer'"),
        (IdSource(None, "s3://bucket/ids.csv", None, ()), "is a URL"),
        (IdSource(None, None, str(tmp_path), ()), "is no export"),
        (from_option("5:6"), "'5:6' is no customer_id"),
        (from_option("five"), "customer_id 'five' is no id"),
    ]
    for source, said in cases:
        with pytest.raises(InvalidRequestError) as caught:
            ids_of(source, EXPIRY)
        assert said in str(caught.value)
    with pytest.raises(InvalidRequestError, match="a row: customer_id '' is empty"):
        key_of([None], EXPIRY, "a row")


@pytest.mark.parametrize(
    ("options", "each"),
    [
        ({"numPartitions": 8}, 25),
        ({"numPartitions": 8, "slots": 2}, 100),
        ({"numPartitions": 2, "slots": 8}, 100),
        ({"numPartitions": 400}, 0.5),
    ],
)
def test_the_rate_is_split_by_what_runs_at_a_time(options: dict[str, Any], each: float) -> None:
    """By the tasks, or by the slots where they are known and fewer."""
    settings, _ = settings_of({**QUERY, "maxRequestsPerSecond": "200", **options})
    assert settings.rate_per_task == each


def test_the_import_loads_nothing_of_spark_and_says_what_is_missing() -> None:
    """The cluster supplies pyspark and pyarrow."""
    code = (
        "import sys\nsys.modules.update({'pyspark': None})\nimport capillary_async.spark as spark\n"
        "assert not {'pyarrow', 'aiohttp', 'attr'} & set(sys.modules), 'too much'\n"
        "try:\n    spark.register(None)\nexcept ModuleNotFoundError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "needs pyspark 4 and pyarrow" in done.stdout
    assert 'pip install "capillary-async[spark]"' in done.stdout


def test_a_rate_of_a_task_is_exact() -> None:
    """Whole permits, in a window of at least as many seconds as one takes."""
    pytest.importorskip("pyspark")
    from capillary_async.spark._task import _rate

    assert [_rate(each) for each in (100.0, 0.5, 2.5)] == [Rate(100, per=1.0), Rate(1, per=2.0), Rate(2, per=0.8)]
