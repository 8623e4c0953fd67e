"""Two publishers at one URL: at most one export is sent, in whatever order their steps come."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pyarrow")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capillary_async import jobs
from capillary_async.jobs._publishing import copy, sending
from capillary_async.jobs._publishing.address import destination_of
from capillary_async.jobs._publishing.finished import FinishedExport, finished_export
from capillary_async.jobs._publishing.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STEPS = ("names", "remove", "read", "sizes", "sha256", "put", "put_bytes")


class Killed(BaseException):
    """The process ended."""


class Turns:
    """Lets one publisher do one call of its store at a time, in a random order."""

    def __init__(self, order: random.Random) -> None:
        self._order, self._changed = order, threading.Condition()
        self._waiting: set[int] = set()
        self._turn: int | None = None
        self._running: set[int] = set()

    def run(self, calls: list[Any]) -> list[Any]:
        """The result or the error of each call."""
        found: list[Any] = [None] * len(calls)

        def one(number: int) -> None:
            try:
                found[number] = calls[number]()
            except (jobs.JobError, Killed) as error:
                found[number] = error
            with self._changed:
                self._running.discard(number)
                self._changed.notify_all()

        self._running = set(range(len(calls)))
        threads = [threading.Thread(target=one, args=(number,)) for number in self._running]
        for thread in threads:
            thread.start()
        while self._running:
            self._next()
        for thread in threads:
            thread.join()
        return found

    def _next(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._turn is None and self._waiting >= self._running)
            if self._running:
                self._turn = self._order.choice(sorted(self._running))
                self._changed.notify_all()

    def wait(self, number: int) -> None:
        with self._changed:
            self._waiting.add(number)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._turn == number)
            self._waiting.discard(number)
            self._turn = None


class Stepwise(Store):
    """A store whose every call waits for its turn; one with steps left ends as a killed process does."""

    def __init__(self, url: str, turns: Turns, number: int, left: int) -> None:
        super().__init__(destination_of(url))
        self.turns, self.number, self.left = turns, number, left


def _stepwise(name: str) -> Any:
    def step(self: Stepwise, *args: Any) -> Any:
        self.turns.wait(self.number)
        self.left -= 1
        if self.left < 0:
            raise Killed
        return getattr(Store, name)(self, *args)

    return step


for _name in STEPS:
    setattr(Stepwise, _name, _stepwise(_name))


@pytest.fixture(scope="module")
def both(exports: Path) -> list[FinishedExport]:
    return [finished_export(exports / name, threading.Event()) for name in ("other", "later")]


def expected(export: FinishedExport) -> dict[str, bytes]:
    paths = [*(export.path / "shards").iterdir(), export.path / "manifest.json"]
    return {path.relative_to(export.path).as_posix(): path.read_bytes() for path in paths}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.integers(0, 1 << 32),
    which=st.sampled_from([(0, 1), (1, 0), (0, 1, 0), (1, 0, 0)]),
    killed=st.integers(0, 60),
)
def test_at_most_one_export_is_sent(
    both: list[FinishedExport],
    tmp_path_factory: pytest.TempPathFactory,
    order: int,
    which: tuple[int, ...],
    killed: int,
) -> None:
    """The shards of two exports are never mixed, also when a publisher is killed."""
    target, stop, turns = tmp_path_factory.mktemp("target") / "a", threading.Event(), Turns(random.Random(order))
    stores = [
        Stepwise(target.as_uri(), turns, number, killed if number == 0 else 10_000) for number in range(len(which))
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sending, "_AT_ONCE", 1)
        found = turns.run([
            lambda store=store, one=one: copy.publish_copy(store, both[one], stop, None)
            for store, one in zip(stores, which, strict=True)
        ])  # fmt: skip
    sent = {one for one, result in zip(which, found, strict=True) if isinstance(result, sending.Sent)}
    assert len(sent) <= 1
    there = contents(target) if target.exists() else {}
    shards = {name: data for name, data in there.items() if name.startswith("shards/")}
    assert any(shards.items() <= expected(export).items() for export in both)
    assert not sent or expected(both[sent.pop()]).items() <= there.items()


def publish(folder: Path, url: str) -> jobs.PublishResult:
    return asyncio.run(jobs.publish(folder, url))


def refused(folder: Path, url: str) -> str:
    with pytest.raises(jobs.JobError) as caught:
        publish(folder, url)
    return str(caught.value)


def claims_in(folder: Path) -> list[Path]:
    return list(folder.glob("_publishing-*"))


@contextlib.contextmanager
def broken_at(ending: str) -> Iterator[None]:
    """Let stores fail when they write the file."""
    put = Store.put

    def fail(self: Store, name: str, source: Path) -> None:
        if name.endswith(ending):
            raise jobs.JobError("no more room")
        put(self, name, source)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "put", fail)
        yield


def test_a_claim_that_was_left(exports: Path, tmp_path: Path) -> None:
    """The same export goes on; another is refused with the files to remove, and nothing of it is there."""
    url, target = (tmp_path / "a").as_uri(), tmp_path / "a"
    with broken_at("1.parquet"):
        assert "no more room" in refused(exports / "first", url)
    before = contents(target)
    (left,) = claims_in(target)
    assert "allocations" in left.read_text()
    text = refused(exports / "later", url)
    assert f"remove {url}/shards and each file {url}/{left.name.rpartition('-')[0]}-*" in text
    assert contents(target) == before
    assert publish(exports / "first", url).sent >= 1
    assert claims_in(target) == []
    assert "another export is at" in refused(exports / "later", url)
    assert claims_in(target) == []


def test_a_claim_that_is_removed_meanwhile(exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Someone believes that no process publishes any more: the process sends nothing further."""
    put = Store.put

    def removed(self: Store, name: str, source: Path) -> None:
        put(self, name, source)
        for each in claims_in(tmp_path / "a"):
            each.unlink(missing_ok=True)  # of several threads

    monkeypatch.setattr(Store, "put", removed)
    assert "was removed meanwhile" in refused(exports / "first", (tmp_path / "a").as_uri())
    assert not (tmp_path / "a" / "manifest.json").exists()


@pytest.mark.usefixtures("store")
def test_claims_in_s3(exports: Path) -> None:
    """As on a disk; one that may not be removed does no harm after the manifest."""
    url = "s3://lake/claims"
    with broken_at("1.parquet"):
        assert "no more room" in refused(exports / "first", url)
    assert "another export is being published at" in refused(exports / "later", url)

    def denied(self: Store, name: str) -> None:
        raise jobs.JobError(f"{name} may not be removed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "remove", denied)
        publish(exports / "first", url)
    assert publish(exports / "first", url).already_there
    assert "another export is at" in refused(exports / "later", url)
