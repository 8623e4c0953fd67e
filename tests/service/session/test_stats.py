"""Counters: they only grow, and no thread loses one."""

import gzip
import pickle
import threading
from collections.abc import Callable

import pytest
from support.raw_server import Answer, RawServer, http

from capillary_async import AsyncSession, Stats
from capillary_async._transport.stats import count
from capillary_async.errors import CapillaryError

Make = Callable[..., AsyncSession]
NAMES = {"requests", "retries", "throttles", "bytes", "records", "duplicates"}


def test_each_counter_is_added_to_by_its_name():
    stats = Stats()
    count(stats, requests=1, retries=2, throttles=3, bytes=4, records=5, duplicates=6)
    count(stats, requests=1)
    assert stats.snapshot() == {
        "requests": 2, "retries": 2, "throttles": 3, "bytes": 4, "records": 5, "duplicates": 6,
    }  # fmt: skip
    assert stats.requests == 2
    assert set(stats.snapshot()) == NAMES


def test_the_repr_shows_them_all():
    assert all(f"{name}=0" in repr(Stats()) for name in NAMES)


def test_a_snapshot_is_a_value_and_the_counters_are_not_pickled():
    stats = Stats()
    before = stats.snapshot()
    count(stats, records=1)
    assert before["records"] == 0
    with pytest.raises(TypeError, match=r"pickle stats.snapshot\(\) instead"):
        pickle.dumps(stats)


def test_threads_lose_nothing():
    stats = Stats()

    def work() -> None:
        for _ in range(5000):
            count(stats, requests=1, bytes=2)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (stats.requests, stats.bytes) == (20_000, 40_000)


async def test_a_session_counts_what_it_did(session_at: Make):
    """Requests that went out, attempts beyond the first, answers that asked for less, and bytes of whole bodies."""
    body = b'[{"id": 1}, {"id": 2}]'
    async with RawServer(Answer(b"", "close"), http(b"busy", 503), http(b"", 429), http(body)) as server:
        session = session_at(server.url)
        rows = session.points_allocation.by_event(entity_id=1, customer_id=1, event_type_id=1)
        assert len(await rows.collect()) == 2
        server._answers[:] = [http(b"{}", 404)]
        with pytest.raises(CapillaryError):
            await session.request("GET", "/path")
    assert session.stats.snapshot() == {
        "requests": 5, "retries": 3, "throttles": 2, "bytes": 4 + len(body) + 2, "records": 2, "duplicates": 0,
    }  # fmt: skip


async def test_what_requests_and_bytes_count(session_at: Make, unused_tcp_port: int):
    """Requests without a connection too; bytes of whole bodies alone, as they came over the wire."""
    session = session_at(f"http://127.0.0.1:{unused_tcp_port}")
    with pytest.raises(CapillaryError):
        await session.request("GET", "/path")
    assert (session.stats.requests, session.stats.bytes) == (5, 0)
    cut = Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[1", "close")
    packed = gzip.compress(b"[1,2]" + b" " * 1000)
    async with RawServer(cut, http(packed, headers={"Content-Encoding": "gzip"})) as server:
        session = session_at(server.url)
        assert await session.request("GET", "/path") == [1, 2]
        assert (session.stats.requests, session.stats.retries) == (2, 1)
        assert session.stats.bytes == len(packed)
