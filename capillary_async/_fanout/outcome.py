"""What a fan-out gives and works by: `Outcome`, its options, and the plan of one run.

Invariant: data only; a plan holds no place, so that it can be run twice. Made by `_fanout/fanout.py`, followed by the
crew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from attrs import field, frozen

from capillary_async._config import Paging
from capillary_async._fanout.keys import KeySource
from capillary_async._fanout.work import Reader
from capillary_async._paging.pager import Position
from capillary_async._repr import brief_repr
from capillary_async.errors import ApiMessage, CapillaryError

__all__ = ["RETRIES_WHILE_UP", "FanOutOptions", "FanOutRun", "Outcome"]

RETRIES_WHILE_UP = 3  # how often a key is asked again that keeps failing while others are answered

K = TypeVar("K")
K_co = TypeVar("K_co", covariant=True)
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@frozen
class Outcome(Generic[K_co, T_co]):
    """What came of one key.

    Attributes:
        key: The key asked, as the endpoint understands it (a decimal string became an int); what was given, where it is
            no key.
        items: The records; empty when `error` is set.
        error: Why there are none, else None. Its `position` is the beginning, since nothing was given.
        warnings: Of all its pages.
        pages: How many pages were read.
    """

    key: K_co
    items: tuple[T_co, ...] = ()
    error: CapillaryError | None = None
    warnings: tuple[ApiMessage, ...] = ()
    pages: int = 0
    _drift: Any = field(default=None, repr=False, eq=False, alias="drift")  # for the jobs

    __repr__ = brief_repr

    @property
    def ok(self) -> bool:
        """Whether the key was answered."""
        return self.error is None

    def unwrap(self) -> tuple[T_co, ...]:
        """The items.

        Raises:
            CapillaryError: The error of this key, as itself.
        """
        if self.error is not None:
            raise self.error
        return self.items


@frozen
class FanOutOptions:
    """What `FanOut.options` sets."""

    concurrency: int
    paging: Paging
    unique: bool = True

    __repr__ = brief_repr


@frozen(eq=False, repr=False)
class FanOutRun(Generic[K, T]):
    """What a run works by.

    Attributes:
        keys: The input.
        reader: How an endpoint reads keys.
        options: Workers, paging, and whether repeated keys are asked once.
        max_wait: Seconds an outage may last.
        retries_while_up: How often a key answered with 429 is asked again while others are answered.
        whole: True where the loop takes one outcome per key, False where it takes pages as they come.
        ordered: Whether the outcomes are given in the order of the input.
        sleep: How the probes of an outage wait, for tests.
        clock: Monotonic seconds, for tests.
    """

    keys: KeySource[K]
    reader: Reader[K]
    options: FanOutOptions
    max_wait: float
    whole: bool = True
    ordered: bool = False
    retries_while_up: int = RETRIES_WHILE_UP
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic

    @property
    def workers(self) -> int:
        """How many can have work."""
        length = self.keys.length
        if length is None:
            return self.options.concurrency
        return min(self.options.concurrency, -(-length // self.reader.batch))

    @property
    def reorder_window(self) -> int | None:
        """Maximum outcomes buffered until an earlier one comes; None where the loop takes them in any order."""
        return 2 * self.options.concurrency * self.reader.batch if self.ordered else None

    def with_key(self, error: CapillaryError, key: Any) -> CapillaryError:
        """The error with its key; where outcomes are wanted, not with a place behind pages that are not given out."""
        error.key = key
        if self.whole and error.position is not None:
            error.position = Position(1)
        return error
