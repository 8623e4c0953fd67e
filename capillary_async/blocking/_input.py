"""`CallersInput`: the input of a fan-out, read in the thread that waits for the fan-out, as a plain `for` reads it.

Invariant: a cursor, a generator or a list of the same session is used by no other thread than the caller's. Made by
`blocking/_loop.py`, read by the fan-out's `KeyQueue`.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any, Self

from capillary_async._loops import call_in

__all__ = ["CallersInput"]

_MOST = 64  # keys in one go
_LONGEST = 0.002  # seconds of one go: a slow input gives each key as it comes


class CallersInput:
    """An asynchronous iterator over a plain one. The caller reads ahead while it waits for a result."""

    def __init__(self, work: SimpleQueue[Any], source: Iterator[Any]) -> None:
        self._work = work
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._keys: list[Any] = []  # in reverse
        self._last: BaseException | None = None  # what comes after these

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if not self._keys and self._last is None:
            await self._more()
        if self._keys:
            return self._keys.pop()
        raise self._last or StopAsyncIteration

    async def _more(self) -> None:
        done: asyncio.Future[None] = self._loop.create_future()

        def read() -> None:
            if not done.cancelled():
                self._read()
                call_in(self._loop, _set, done)

        self._work.put(read)
        await done

    def _read(self) -> None:
        """In the thread of the caller."""
        keys: list[Any] = []
        end = time.monotonic() + _LONGEST
        try:
            while len(keys) < _MOST and time.monotonic() < end:
                keys.append(next(self._source))
        except StopIteration:
            self._last = StopAsyncIteration()
        except Exception as error:  # noqa: BLE001 - whatever the input raises is the caller's to see
            self._last = error
        self._keys = keys[::-1]

    async def aclose(self) -> None:
        """Have a generator closed where it is read; the caller closes a file or a cursor."""
        if inspect.isgenerator(self._source):
            self._work.put(self._source.close)


def _set(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
