"""Sending files: several at once, each verified by what the store gives back.

Invariant: a file counts as sent when its bytes, read back from the store, have the size and the SHA-256 of the
manifest; one that is there with both is not sent again. Called by `_publishing/copy.py` and `_publishing/delta.py`.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, TypeVar

from attrs import frozen

from capillary_async._repr import brief_repr
from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._common.kill_points import reached

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from capillary_async.jobs._publishing.finished import Piece
    from capillary_async.jobs._publishing.store import Store

__all__ = ["PublishProgress", "Sent", "refuse_other", "send"]

T = TypeVar("T")
_AT_ONCE = 8


@frozen(kw_only=True)
class Sent:
    """Files of an export in the store.

    Attributes:
        files: Files that are there and verified.
        sent: Those that were sent now; the others were there.
        bytes_sent: The bytes of these.
        pieces: The files as they are there.
    """

    files: int = 0
    sent: int = 0
    bytes_sent: int = 0
    pieces: tuple[Piece, ...] = ()


@frozen(kw_only=True)
class PublishProgress:
    """How far a publication is.

    Attributes:
        files: Files in all.
        done: Files that are there and verified.
        bytes_sent: Bytes that were sent.
    """

    files: int
    done: int
    bytes_sent: int

    __repr__ = brief_repr


def refuse_other(store: Store, sizes: Mapping[str, int], pieces: Sequence[Piece]) -> None:
    """Check that no file is beside those of this export, which a reader of the folder would count.

    Raises:
        JobError: One is.
    """
    other = sorted(set(sizes) - {piece.name for piece in pieces})
    if other:
        raise JobError(
            f"{store.destination}/{other[0]} is no file of this export, and a reader of the folder would count it"
            f"{f' (and {len(other) - 1} more)' if len(other) > 1 else ''}: remove it, or publish at another URL"
        )


def send(
    store: Store,
    pieces: Sequence[Piece],
    sizes: Mapping[str, int],
    stop: threading.Event,
    on_progress: Callable[[PublishProgress], None] | None,
    *,
    replace: bool,
    prepare: Callable[[Piece], AbstractContextManager[Piece]] = nullcontext,
    before: Callable[[], None] | None = None,
) -> Sent:
    """Send what is not there, several files at once; `stop` ends it before the next file.

    Args:
        store: Where to.
        pieces: The files.
        sizes: The sizes of the files that are there.
        stop: Set when the caller is cancelled.
        on_progress: Called after each file.
        replace: Whether a file that is there with other bytes is replaced. One that was cut off always is.
        prepare: Gives a file in the form that is sent.
        before: Called before each file is sent.

    Raises:
        JobError: The store refuses, a file is there or came back with other bytes, or `stop` was set.
    """

    def looked_at(piece: Piece) -> Piece | None:
        with prepare(piece) as ready:
            return ready if _is_there(store, ready, sizes[piece.name], replace) else None

    def sent(piece: Piece) -> Piece:
        with prepare(piece) as ready:
            if before is not None:
                before()
            _send_one(store, ready)
            return ready

    found = [piece for piece in pieces if piece.name in sizes]
    there = {piece.name: piece for piece in _in_threads(looked_at, found, stop) if piece is not None}
    missing, done, size = [piece for piece in pieces if piece.name not in there], len(there), 0
    for piece in _in_threads(sent, missing, stop):
        there[piece.name] = piece
        done, size = done + 1, size + piece.bytes
        if on_progress is not None:
            on_progress(PublishProgress(files=len(pieces), done=done, bytes_sent=size))
    final = tuple(there[piece.name] for piece in pieces)
    return Sent(files=len(pieces), sent=len(missing), bytes_sent=size, pieces=final)


def _in_threads(call: Callable[[Piece], T], pieces: Sequence[Piece], stop: threading.Event) -> Iterator[T]:
    """Call it for each file, several at once; gives the results as they come."""

    def unless_stopped(piece: Piece) -> T:
        if stop.is_set():
            raise JobError("interrupted")
        return call(piece)

    pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="publish")
    try:
        for future in as_completed([pool.submit(unless_stopped, piece) for piece in pieces]):
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _is_there(store: Store, piece: Piece, size: int, replace: bool) -> bool:  # noqa: FBT001 - of one caller
    """Whether the store has a file with the right bytes; they are read where it matters."""
    if size != piece.bytes and replace:
        return False
    if store.sha256(piece.name) == (size, _digest_of_first(piece, size)):
        return size == piece.bytes  # or the first part of one that was cut off while it was written
    if replace:
        return False
    raise JobError(
        f"{store.destination}/{piece.name} is there with other bytes than {piece.path}, e.g. of another export that "
        "was not published to its end: remove what is there, or publish at another URL"
    )


def _digest_of_first(piece: Piece, size: int) -> str:
    """The SHA-256 of the first bytes of a file on this disk."""
    if size == piece.bytes:
        return piece.sha256
    with piece.path.open("rb") as file:
        return hashlib.sha256(file.read(size)).hexdigest()


def _send_one(store: Store, piece: Piece) -> None:
    store.put(piece.name, piece.path)
    reached("file-sent")
    size, digest = store.sha256(piece.name)
    if (size, digest) != (piece.bytes, piece.sha256):
        raise JobError(
            f"{store.destination}/{piece.name} was sent and came back otherwise: {size:,} bytes with SHA-256 {digest}, "
            f"the manifest says {piece.bytes:,} and {piece.sha256}. Remove that file and publish again"
        )
    reached("file-checked")
