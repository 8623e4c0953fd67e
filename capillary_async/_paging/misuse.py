"""`AsyncOnly`: raises TypeError where a pager, fan-out or iterator is awaited or looped over with a plain `for`.

Invariant: the message names both right ways. Base of `Pager`, `FanOut` and `ClosableIterator`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

__all__ = ["AsyncOnly"]


class AsyncOnly:
    """Neither awaited nor iterated plainly. Type checkers see neither method, so that they refuse both too."""

    __slots__ = ()

    if not TYPE_CHECKING:

        def __iter__(self) -> NoReturn:
            """Raise TypeError."""
            raise _misuse(self, "is not looped over with a plain `for`")

        def __await__(self) -> NoReturn:
            """Raise TypeError."""
            raise _misuse(self, "is not awaited")


def _misuse(used: object, what: str) -> TypeError:
    name = type(used).__name__
    return TypeError(
        f"a {name} {what}: loop with `async for ... in ...`, or read all with "
        f"`await {'fan' if name.startswith('FanOut') else 'pager'}.collect()`"
    )
