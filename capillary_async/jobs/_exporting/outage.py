"""When the service does not answer: wait, probe with one request at a time, and go on when it is back.

Invariant: an outage pauses the job instead of failing customers, for at most a quarter of an hour. Used by
`_export.py`.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from capillary_async.jobs._common.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from capillary_async import CapillaryError

__all__ = ["Outage"]

PROBES = (5.0, 10.0, 20.0, 40.0, 60.0)  # seconds before each probe; the last one repeats
PATIENCE = 900.0  # seconds


class Outage:
    """How long the service has been silent, over all pauses in which nobody was answered.

    Args:
        probe: Asks once; true where the service answered.
        tell: Told what happens, and nothing (None) when it is over.
        sleep, clock: For tests.
    """

    def __init__(
        self,
        probe: Callable[[], Awaitable[bool]],
        tell: Callable[[str | None], None],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._probe, self._tell = probe, tell
        self._sleep, self._clock = sleep, clock
        self._since: float | None = None
        self._number = 0

    def answered(self) -> None:
        """A key was answered: the next silence is another one."""
        self._since, self._number = None, 0

    async def wait(self, error: CapillaryError) -> None:
        """Wait until the service answers.

        Raises:
            JobError: It did not for a quarter of an hour.
        """
        if self._since is None:
            self._since = self._clock()
        while (left := self._since + PATIENCE - self._clock()) > 0:
            pause = min(PROBES[min(self._number, len(PROBES) - 1)], left)
            self._number += 1
            silent = self._clock() - self._since
            self._tell(f"no answer for {silent:.0f} s ({type(error).__name__}); asking again in {pause:.0f} s")
            await self._sleep(pause)
            if await self._probe():
                self._tell(None)
                return
        raise JobError(
            f"the service did not answer for {PATIENCE / 60:.0f} minutes; what is complete stays: give the same "
            f"command again when it is back, and it goes on. Last: {error}"
        ) from error
