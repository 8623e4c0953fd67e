"""The turns of one process in a shared rate: how many it leases, when each is due, and what became of Redis.

Invariant: pure. Nothing waits, nothing is locked, and no clock is read but the one handed in; no turn is taken before
its time. Called by `AdaptiveLimit` and `RequestLimiter` under the limiter's lock; `RedisRate` leases them.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from capillary_async._transport.outage import OutageReport
from capillary_async._transport.retry_decision import NotSentError
from capillary_async.errors import ConnectError, DeadlineExceededError

if TYPE_CHECKING:
    from collections.abc import Callable

    from capillary_async._config import Rate
    from capillary_async._transport.messages import CallState
    from capillary_async.errors import CapillaryError

__all__ = ["AHEAD", "Lease", "cost_of", "largest_lease"]

TEN = 10
SHARE = 0.01  # of a second: the largest lease of a rate beyond a thousand in a second
GRACE = 0.5  # seconds for which a turn may be late, at least; an interval of the rate, if that is more
OVERDUE = 1.0  # seconds after which Redis is late with its answer
AHEAD = 60.0  # seconds: no turn is leased that is further away, so that what processes leave behind is waited out soon


def largest_lease(rate: Rate) -> int:
    """The number of turns that a process may keep: ten, but never more than one second's."""
    each_second = rate.permits / rate.per
    return max(1, min(int(each_second), max(TEN, int(each_second * SHARE))))


def cost_of(rate: Rate, turns: int) -> int:
    """The time of so many turns in whole microseconds, rounded up."""
    return math.ceil(turns * rate.per * 1_000_000 / rate.permits)


class Lease:
    """The turns that a process has, and whether Redis gives it more.

    It leases no more turns than calls wait that could be sent now, so that nearly none is left unused, whichever
    process is busy; and it leases the next when a quarter of them is left, so that a busy process does not wait for
    Redis.

    Attributes:
        asked: When Redis was asked for turns that it has not given yet; None if it is not being asked.
    """

    def __init__(self, rate: Rate, *, clock: Callable[[], float]) -> None:
        self._address = str(rate.shared)
        self._interval = rate.per / rate.permits
        self._largest = largest_lease(rate)
        self._grace = max(GRACE, self._interval)
        self._clock = clock
        self._turns: deque[float] = deque()  # when each is due
        self._after = -math.inf  # the time of the next turn, were Redis to forget those that it gave
        self._full_until = -math.inf  # all turns that may be leased are
        self._worked = False  # whether Redis ever gave turns
        self._since = 0.0  # when the first request failed of those that failed in a row
        self._failures = 0
        self._final = False  # whether waiting is useless
        self._refused = ""  # what Redis, or the way to it, answered last, where that was no turns
        self.asked: float | None = None

    def __len__(self) -> int:
        return len(self._turns)

    @property
    def down(self) -> bool:
        """Whether Redis gives no turns."""
        return self._refused != "" or self._overdue

    @property
    def _overdue(self) -> bool:
        return self.asked is not None and self._clock() - self.asked >= OVERDUE

    def wait(self) -> float | None:
        """None if a turn is due; else the seconds until one is (0.0: when Redis has answered)."""
        now = self._clock()
        while self._turns and self._turns[0] < now - self._grace:
            self._turns.popleft()
        if self._turns:
            return self._turns[0] - now if self._turns[0] > now else None
        return max(0.0, self._full_until - now)

    def took(self) -> None:
        """A turn was taken."""
        if self._turns:
            self._turns.popleft()

    def unused(self) -> None:
        """A turn was taken and nothing was sent."""
        if len(self._turns) < self._largest:
            self._turns.appendleft(self._clock())

    def needed(self, waiting: int, room: int) -> int:
        """How many turns to lease now.

        Args:
            waiting: How many requests wait for a permit.
            room: How many of them could be sent, but for the rate.
        """
        if self.asked is not None or self._full_until > self._clock() or 4 * len(self._turns) > self._largest:
            return 0
        return max(0, min(waiting, room, self._largest) - len(self._turns))

    def granted(self, first: float, turns: int) -> None:
        """Redis gave so many turns, the first of which is due at `first`, or after those that it gave before."""
        first = max(first, self._after)
        self._after = first + turns * self._interval
        self._turns.extend(first + number * self._interval for number in range(turns))
        self._answered()

    def full(self, until: float) -> None:
        """Redis gave no turns, since those that it gave before reach too far ahead."""
        self._full_until = until
        self._answered()

    def _answered(self) -> None:
        self.asked, self._worked, self._final = None, True, False
        self._refused, self._failures = "", 0

    def failed(self, reason: str, *, final: bool) -> None:
        """Redis gave no answer, or refused; `final` where it would again. It counts before it ever gave turns."""
        if not self._refused:
            self._since = self._clock() if self.asked is None else self.asked
        self.asked = None
        self._refused = reason
        self._failures += 1
        self._final = final and not self._worked

    # --- calls that wait ----------------------------------------------------------------------------------------------

    def refusal_for(self, call: CallState | None, since: float) -> CapillaryError | None:
        """The error for a call that must not wait any longer; None if it may. Single calls have their own clock.

        Args:
            call: The call.
            since: When it began to wait.
        """
        if not self.down:
            return None
        if self._final:
            return NotSentError(self._error(), final=True)
        if call is None or not call.max_wait:
            return None
        began = since if call.waits_since is None else min(since, call.waits_since)
        waited = self._clock() - max(self._began, began)
        return NotSentError(self._error(waited), final=True) if waited >= call.max_wait else None

    @property
    def _began(self) -> float:
        """When Redis ceased to give turns."""
        return self._since if self._refused or self.asked is None else self.asked

    def _error(self, waited: float | None = None) -> CapillaryError:
        if waited is None:
            error: CapillaryError = ConnectError(f"not sent: {self.story}", kind="shared-rate")
        else:
            text = f"not sent: the call has waited for {waited:.0f} s: {self.story}"
            error = DeadlineExceededError(text, kind="queue")
        error.sent, error.outage = False, True
        return error

    @property
    def story(self) -> str:
        """Why no request is sent, and what to do."""
        why = self._refused or "it has not answered yet"
        return (
            f"Redis at {self._address} gives this session no part of its shared rate ({why}); check "
            "Rate.shared, its password, the network and that Redis, and try again later; or give each process its own "
            "part of the rate"
        )

    def report(self) -> OutageReport | None:
        """That Redis does not answer, to be shown; None where it does."""
        if not self.down:
            return None
        seconds = self._clock() - self._began
        return OutageReport(self._error(), self._began, seconds, self._failures, 0.0, f" of Redis at {self._address}")
