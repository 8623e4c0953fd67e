"""Event loops across threads and forks: call into a loop, and renew in a forked child what belongs to its parent.

Invariant: a call into a closed loop is no error. In a child nothing waits for a lock, a permit, a socket or a task of
the parent, and nothing of the parent's is closed, written to or finalized. Called by the session, its chain, the
iterators and the fan-out.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["bury", "call_in", "renew_in_child", "running_loop"]

T = TypeVar("T")

_renewals: weakref.WeakKeyDictionary[Any, Callable[[Any], None]] = weakref.WeakKeyDictionary()
# Never emptied: finalizers of the parent's transports would reach into its selector, which parent and child share.
_buried: list[Any] = []


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread; None outside of one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def call_in(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: object) -> bool:
    """Call the function soon in a loop, from any thread; False where that loop is closed, and its tasks with it."""
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        return False
    return True


def renew_in_child(owner: T, renew: Callable[[T], None]) -> None:
    """Call `renew(owner)` in every forked child, while that has a single thread, for as long as the owner lives."""
    _renewals[owner] = renew


def bury(*inherited: Any) -> None:
    """Keep what belongs to the parent for as long as this process lives, so that no finalizer of it runs."""
    _buried.extend(inherited)


def _renew() -> None:
    for owner, renew in list(_renewals.items()):
        renew(owner)


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_renew)
