"""A Redis of the tests on a free loopback port: started, waited for, ended.

Invariant: where the machine has none, the test is skipped with a line that says how to install it, and fails where
nothing may be missing, as in `.ci/run`; a server that was started never outlives its `with`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

HOWTO = "redis-server is not on this machine: apt-get install redis-server"
START = 20  # seconds


def program() -> str:
    """The path of the server."""
    found = shutil.which("redis-server")
    if found is None:
        if os.environ.get("CAPILLARY_CONTRACT") == "required" or os.environ.get("CI") == "true":
            pytest.fail(HOWTO, pytrace=False)
        pytest.skip(HOWTO)
    return found


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextlib.contextmanager
def running(port: int = 0, *options: str) -> Iterator[int]:
    """A server that keeps nothing; gives its port."""
    port = port or free_port()
    words = [program(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", *options]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        yield port
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + START
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert process.poll() is None, "redis-server ended"
            assert time.monotonic() < ends, "redis-server does not listen"
            time.sleep(0.02)
        else:
            return
