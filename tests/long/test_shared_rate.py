"""One rate for four processes, counted by the server: alone, together, and with one killed while it has turns."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import redis_server
from support.raw_server import RawServer, http, in_thread

pytestmark = pytest.mark.long

CLIENT = Path(redis_server.__file__).with_name("rate_client.py")
PERMITS = 200
LEASES = 4 * 10


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    with redis_server.running() as port:
        yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def clients(server: RawServer, redis: str, seconds: float, *workers: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A process for each number of workers; they have begun."""
    words = [sys.executable, str(CLIENT), server.url, redis, str(PERMITS), str(seconds)]
    begun = [subprocess.Popen([*words, str(number)], stdout=subprocess.PIPE) for number in workers]
    try:
        for process in begun:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
        yield begun
    finally:
        for process in begun:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def counted(server: RawServer, begin: float, end: float) -> tuple[float, int]:
    """The rate between two times, and the most requests in any second."""
    times = sorted(seen.at for seen in server.seen)
    most = first = 0
    for number, at in enumerate(times):
        while times[first] <= at - 1:
            first += 1
        most = max(most, number - first + 1)
    return sum(begin <= at < end for at in times) / (end - begin), most


def test_four_processes_have_one_rate(redis: str) -> None:
    """For 20 s: within 2 % of the rate, and in no second more than it and the leases."""
    with in_thread(http()) as server, clients(server, redis, 20, 16, 16, 16, 16) as processes:
        begin = time.monotonic()
        for process in processes:
            assert process.wait(60) == 0
        rate, most = counted(server, begin + 1, begin + 18)
    assert most <= PERMITS + LEASES
    assert 0.98 * PERMITS <= rate <= 1.02 * PERMITS


def test_one_of_four_has_the_whole_rate(redis: str) -> None:
    """The others, which send nothing, take nothing from it."""
    with in_thread(http()) as server, clients(server, redis, 6, 0, 0, 0, 16) as processes:
        begin = time.monotonic()
        assert processes[-1].wait(60) == 0
        rate, most = counted(server, begin + 1, begin + 5)
    assert most <= PERMITS + LEASES
    assert 0.98 * PERMITS <= rate <= 1.02 * PERMITS


def test_a_killed_process_takes_its_lease_along(redis: str) -> None:
    """And no more: the others have the whole rate a moment later."""
    with in_thread(http()) as server, clients(server, redis, 7, 16, 16, 16, 16) as processes:
        begin = time.monotonic()
        time.sleep(2)
        processes[0].kill()
        for process in processes[1:]:
            assert process.wait(60) == 0
        rate, most = counted(server, begin + 1, begin + 6)
    assert most <= PERMITS + LEASES
    # At most ten turns, of 1,000, went with it.
    assert 0.98 * PERMITS <= rate <= 1.02 * PERMITS
