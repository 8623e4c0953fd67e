"""What a forked child must not share with its parent, renewed in the child.

Invariant: in a child nothing waits for a lock, a permit, a socket or a task of the parent, and nothing of the parent's
is closed, written to or finalized. Used by the session and by the steps of its chain that have state of their own.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["bury", "renew_in_child"]

T = TypeVar("T")

_renewals: weakref.WeakKeyDictionary[Any, Callable[[Any], None]] = weakref.WeakKeyDictionary()
# Never emptied: finalizers of the parent's transports would reach into its selector, which parent and child share.
_buried: list[Any] = []


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
