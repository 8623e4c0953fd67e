"""kill -9 between any two files of a publication: the URL has the old export or table, or the new one, never a part."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pyarrow")

from support.finished_export import export_to
from support.job_server import Customers
from support.killing import Runner
from support.object_store import ObjectStore, file_system, required, running

from capillary_async import jobs
from capillary_async.jobs._common.kill_points import PUBLISH_POINTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.long, pytest.mark.skipif(os.name != "posix", reason="SIGKILL as POSIX has it")]
COPIED = ["claim-sent:1", "file-sent:1", "file-sent:3", "file-checked:4", "manifest-sent:1"]
COMMITTED = ["file-sent:2", "file-checked:4", "table-committed:1"]


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An old and a new export of one query."""
    folder = tmp_path_factory.mktemp("exports")
    with Customers() as server:
        export_to(folder / "old", server.url, range(1, 40))
        time.sleep(1.1)  # the times of a manifest are in seconds
        export_to(folder / "new", server.url, range(30, 80))
    return folder


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with running() as store, pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        yield store


@pytest.fixture(scope="module")
def runner(store: ObjectStore) -> Iterator[Runner]:
    """Starts processes that know the store."""
    runner = Runner(store.endpoint)
    yield runner
    runner.close()


def system_of(url: str, store: ObjectStore) -> tuple[Any, str]:
    """The file system of a URL, and the folder in it."""
    from pyarrow import fs

    scheme, _, path = url.partition("://")
    return (fs.LocalFileSystem(), path) if scheme == "file" else (file_system(store), path)


def is_whole_copy(url: str, store: ObjectStore, export: Path) -> bool:
    """Whether a manifest is there; then it is the export's, and so is every shard."""
    system, path = system_of(url, store)
    names = ["manifest.json", *(f"shards/{each.name}" for each in (export / "shards").iterdir())]
    found = {name: system.get_file_info(f"{path}/{name}").type.name == "File" for name in names}
    if not found["manifest.json"]:
        return False
    assert all(found.values())
    assert all(system.open_input_stream(f"{path}/{name}").read() == (export / name).read_bytes() for name in names)
    return True


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A URL on a disk or in the store."""
    on_disk = getattr(request, "param", "s3") == "file"
    return (tmp_path / "points").as_uri() if on_disk else f"s3://lake/{tmp_path.name}"


def test_every_point_is_looked_at() -> None:
    """A new point of `publish` is killed at."""
    assert {kill.split(":")[0] for kill in COPIED + COMMITTED} == set(PUBLISH_POINTS)


@pytest.mark.parametrize("kill", COPIED)
@pytest.mark.parametrize("url", ["file", "s3"], indirect=True)
def test_a_copy(url: str, kill: str, exports: Path, store: ObjectStore, runner: Runner) -> None:
    assert runner.run(exports, publish=[str(exports / "new"), url], die_at=kill) == -signal.SIGKILL
    point, time_ = kill.split(":")
    assert is_whole_copy(url, store, exports / "new") is (point == "manifest-sent")
    result = asyncio.run(jobs.publish(exports / "new", url))
    assert result.sent <= 6 - int(time_) + 1
    assert result.already_there is (point == "manifest-sent")
    assert is_whole_copy(url, store, exports / "new")


@pytest.mark.parametrize("kill", COMMITTED)
@pytest.mark.parametrize("url", ["file", "s3"], indirect=True)
def test_a_table(url: str, kill: str, exports: Path, runner: Runner) -> None:
    deltalake = required("deltalake", "Delta tables are not tested: pip install 'capillary-async[publish]'")

    def keys() -> set[int]:
        table = deltalake.DeltaTable(url, storage_options={"AWS_ALLOW_HTTP": "true"})
        return set(table.to_pyarrow_table(columns=["asked_key"])["asked_key"].to_pylist())

    with_rows = [{key for key in keys if key % 10} for keys in (range(1, 40), range(30, 80))]
    asyncio.run(jobs.publish(exports / "old", url, "delta"))
    assert keys() == with_rows[0]
    line = [str(exports / "new"), url, "--table", "delta"]
    assert runner.run(exports, publish=line, die_at=kill) == -signal.SIGKILL
    point = kill.split(":", maxsplit=1)[0]
    assert keys() == with_rows[point == "table-committed"]
    result = asyncio.run(jobs.publish(exports / "new", url, "delta"))
    assert (result.version, result.already_there) == (1, point == "table-committed")
    assert keys() == with_rows[1]


def test_random_moments(url: str, exports: Path, store: ObjectStore, runner: Runner) -> None:
    """SIGKILL soon after a write: each run goes on where the last one stopped, and the last one ends it."""
    for moment in (0.0, 0.01, 0.05, 0.1):
        pid = started(runner, store, url, exports)
        time.sleep(moment)
        os.kill(pid, signal.SIGKILL)
        runner.ended()
        is_whole_copy(url, store, exports / "new")
    asyncio.run(jobs.publish(exports / "new", url))
    assert is_whole_copy(url, store, exports / "new")


def test_sigterm_ends_it(url: str, exports: Path, store: ObjectStore, runner: Runner) -> None:
    """With its code, and the next run ends what it began."""
    os.kill(started(runner, store, url, exports), signal.SIGTERM)
    assert runner.ended() in (0, 143)
    asyncio.run(jobs.publish(exports / "new", url))
    assert is_whole_copy(url, store, exports / "new")


def started(runner: Runner, store: ObjectStore, url: str, exports: Path) -> int:
    """Start a publication, and wait for its first write, or two seconds where it has none to make."""
    seen, began = len(store.writes), time.monotonic()
    pid = runner.start(exports, publish=[str(exports / "new"), url, "--quiet"])
    while len(store.writes) == seen and time.monotonic() - began < 2:
        time.sleep(0.002)
    return pid
