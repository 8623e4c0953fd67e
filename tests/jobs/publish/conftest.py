"""What the tests of `publish` share: exports, and a store."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from support.finished_export import export_to
from support.job_server import UNKNOWN, Customers
from support.object_store import ObjectStore, running

from capillary_async.jobs._dataset.id_shard import IdShard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def _ids_without(number: int, of: int) -> list[int]:
    """Ids of which none is in a shard."""
    shard = IdShard(number=number, of=of)
    return [each for each in range(1, 60) if not shard.has(each)]


SHARDED = _ids_without(3, 3)


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of exports: `first`, `later`, `last`, `other`, `failed`, `lines`, `wider`, `none`."""
    folder = tmp_path_factory.mktemp("exports")
    with Customers() as server:
        export_to(folder / "first", server.url, range(1, 50))
        export_to(folder / "failed", server.url, [1, 2, UNKNOWN + 1])
        export_to(folder / "lines", server.url, range(1, 20), format="jsonl")
        export_to(folder / "wider", server.url, range(100, 120), program_id=[2282])
        export_to(folder / "other", server.url, range(40, 60))
        time.sleep(1.1)  # the times of a manifest are in seconds
        export_to(folder / "later", server.url, range(50, 90))
        export_to(folder / "none", server.url, [], allow_empty=True)
        time.sleep(1.1)
        export_to(folder / "last", server.url, range(90, 95))
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three shards of a list, one of which has no id."""
    folder = tmp_path_factory.mktemp("shards")
    with Customers() as server:
        for number in (1, 2, 3):
            export_to(folder / f"shard-{number}-of-3", server.url, SHARDED, shard=(number, 3))
    return folder


@pytest.fixture(scope="module")
def _server() -> Iterator[ObjectStore]:
    with running() as store:
        yield store


@pytest.fixture
def store(_server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """An S3-compatible store with the bucket `lake`, which the environment names."""
    for name, value in _server.environment.items():
        monkeypatch.setenv(name, value)
    _server.writes.clear()
    _server.writes_left = None
    return _server
