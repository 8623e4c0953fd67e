"""What all tests share: aioresponses on today's aiohttp, and sessions that close themselves."""

import asyncio.constants
import inspect
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import aiohttp
import aioresponses.core
import pytest
from aiohttp.client_proto import ResponseHandler
from support.environment import AT_ONCE, PASSWORD, USERNAME
from support.paths import ROOT

from capillary_async import AsyncSession, BasicAuth

# aioresponses 0.7.9 does not know the `stream_writer` of aiohttp 3.14, and pauses its reader at 128 KiB for ever.
if "stream_writer" in inspect.signature(aiohttp.ClientResponse.__init__).parameters:

    class _Response(aiohttp.ClientResponse):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{"stream_writer": Mock(), **kwargs})

    aioresponses.core.ClientResponse = _Response
    aioresponses.core.stream_reader_factory = lambda loop=None: aiohttp.StreamReader(
        ResponseHandler(loop=loop), limit=2**30, loop=loop
    )

# Tests start hundreds of processes. Where Python is to write no compiled files beside the sources, each of them would
# compile the package and its dependencies again, half a second each: they share compiled files beside pytest's own.
if sys.dont_write_bytecode:
    sys.dont_write_bytecode = False
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(ROOT / ".pytest_cache" / "pycache")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A script's background ignores SIGINT, and so would all processes that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# The development mode keeps the stack of each callback and timer, ten frames deep, at the cost of most of its time.
if sys.flags.dev_mode:
    asyncio.constants.DEBUG_STACK_DEPTH = 1


_ALL_LONG = re.compile(r"^pytestmark = \[?\s*pytest\.mark\.long\b", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files of which no test would be selected are not imported: what those of the long tests import takes seconds."""
    if collection_path.suffix != ".py" or config.option.markexpr not in {"long", "not long"}:
        return None
    text = collection_path.read_text("utf-8")
    none = _ALL_LONG.search(text) if config.option.markexpr == "not long" else "mark.long" not in text
    return True if none else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spark's tests first, since one process takes minutes for them while the others do the rest.

    `CAPILLARY_TESTS_EXAMPLES=20`: 20 % of the examples that each property draws, and at least five.
    """
    items.sort(key=lambda item: item.path.parent.name != "spark")
    share = int(os.environ.get("CAPILLARY_TESTS_EXAMPLES", "100"))
    if share == 100:
        return
    from hypothesis import settings

    for test in {getattr(item, "obj", None) for item in items}:
        if getattr(test, "is_hypothesis_test", False):
            drawn = test._hypothesis_internal_use_settings
            fewer = settings(drawn, max_examples=max(5, drawn.max_examples * share // 100))
            test._hypothesis_internal_use_settings = fewer


@pytest.fixture
async def session_at() -> AsyncIterator[Callable[..., AsyncSession]]:
    """Sessions at a URL, whose retries do not wait; closed at the end of the test."""
    made: list[AsyncSession] = []

    def make(url: str, **options: Any) -> AsyncSession:
        given = {"auth": BasicAuth(USERNAME, password=PASSWORD), "retry": AT_ONCE, **options}
        made.append(AsyncSession(url, **given))
        return made[-1]

    yield make
    for session in made:
        await session.aclose()
