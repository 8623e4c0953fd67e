"""The manifest: one class writes and reads it, and the bytes of the file stay as they are."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("pyarrow")

from capillary_async import __version__
from capillary_async.jobs._dataset.manifest import Manifest
from capillary_async.jobs._dataset.state import Shard, State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WRITTEN = """{
  "schema_version": 2,
  "sdk_version": "%s",
  "source": "allocations",
  "query": {
    "not_found": "empty",
    "program_id": [
      1,
      2
    ]
  },
  "format": "parquet",
  "shard_keys": 2,
  "cluster": "https://é",
  "server_timezone": "Asia/Kolkata",
  "page_size": 100,
  "consistency": "verified",
  "ids": {
    "asked": 2,
    "found": 1,
    "empty": 1,
    "failed": 0,
    "not_found": 1,
    "digest": "101ad54f23e31be931e5d084f47b964f514a58d44ee3298f7c09202b8320117b"
  },
  "records": 3,
  "requests": 5,
  "retries": 0,
  "throttles": 0,
  "duplicates": 0,
  "conflicts": 0,
  "warnings": 0,
  "totals": {
    "points_value": "1.500"
  },
  "keys_digest": "0000000000000000000000000000000000000000000000000000000000000007",
  "drift": {},
  "shards": [
    {
      "file": "shards/part-00000000.parquet",
      "rows": 3,
      "keys": 2,
      "sha256": "ab",
      "bytes": 9
    }
  ],
  "failures": 0,
  "read": {
    "first": "2026-01-01T00:00:00+00:00",
    "last": "2026-01-01T00:00:09+00:00"
  },
  "started": "2026-01-01T00:00:00+00:00",
  "finished": null,
  "complete": true
}
"""


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """A database with two ids and one shard."""
    facts = {"source": "allocations", "query": {"not_found": "empty", "program_id": [1, 2]}, "format": "parquet",
             "shard_keys": 2, "cluster": "https://é", "server_timezone": "Asia/Kolkata", "page_size": 100,
             "verify": True, "started": "2026-01-01T00:00:00+00:00"}  # fmt: skip
    state = State(tmp_path / "state.sqlite")
    state.put(**facts)
    state.add_ids(["1", "2"])
    state.finish_ids()
    shard = Shard(0, "part-00000000.parquet", 3, 2, 1, "ab", 9, {"points_value": Decimal("1.500")}, 7)
    read = ("2026-01-01T00:00:00+00:00", "2026-01-01T00:00:09+00:00")
    state.commit(shard, (1, 2), (), {"requests": 5}, read, not_found=1)
    yield state
    state.close()


def test_the_bytes(state: State, tmp_path: Path) -> None:
    """A function of the database; what is read from the file is written as the same file."""
    written = Manifest.of(state).encode()
    assert written.decode() == WRITTEN % __version__
    (tmp_path / "manifest.json").write_bytes(written)
    assert Manifest.load(tmp_path / "manifest.json").encode() == written


def test_members_that_are_not_known(state: State) -> None:
    """They are not written; a time that is not known is null."""
    state.put(server_timezone=None, page_size=None, query={})
    members = json.loads(Manifest.of(state).encode())
    assert not {"server_timezone", "page_size"} & members.keys()
    assert "not_found" not in members["ids"]
    assert members["finished"] is None


def test_absent_and_other_members(state: State, tmp_path: Path) -> None:
    """An absent or null member has its default; a member of a later release is left out."""
    members = json.loads(Manifest.of(state).encode())
    for name in ("cluster", "drift", "failures", "read", "keys_digest", "shard_keys"):
        members[name] = None
    members["new"] = {"member": 1}
    (tmp_path / "manifest.json").write_text(json.dumps(members))
    manifest = Manifest.load(tmp_path / "manifest.json")
    assert (manifest.cluster, manifest.drift, manifest.failures, manifest.read) == (None, {}, None, None)
    assert (manifest.keys_digest, manifest.shard_keys) == (None, 1)
