"""Sending files: several at once, each verified by what the store gives back.

Invariant: a file counts as sent when its bytes, read back from the store, have the size and the SHA-256 of the
manifest; one that is there with both is not sent again. Called by `_publishing/copy.py` and `_publishing/delta.py`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING

from attrs import frozen

from capillary_async._repr import brief_repr
from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._common.kill_points import reached

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping, Sequence

    from capillary_async.jobs._publishing.finished import Piece
    from capillary_async.jobs._publishing.store import Store

__all__ = ["PublishProgress", "Sent", "refuse_other", "send"]

_AT_ONCE = 8


@frozen(kw_only=True)
class Sent:
    """Files of an export in the store.

    Attributes:
        files: Files that are there and verified.
        sent: Those that were sent now; the others were there.
        bytes_sent: The bytes of these.
    """

    files: int = 0
    sent: int = 0
    bytes_sent: int = 0


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


def _is_there(store: Store, piece: Piece, sizes: Mapping[str, int]) -> bool:
    """Whether the store has a file with the right bytes; they are read only if the size is right."""
    return sizes.get(piece.name) == piece.bytes and store.sha256(piece.name) == (piece.bytes, piece.sha256)


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
) -> Sent:
    """Send what is not there, several files at once; `stop` ends it before the next file.

    Raises:
        JobError: The store refuses, a file came back with other bytes, or `stop` was set.
    """
    sent = done = size = 0
    pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="publish")
    try:
        for future in as_completed([pool.submit(_send_one, store, piece, sizes, stop) for piece in pieces]):
            new = future.result()
            done, sent, size = done + 1, sent + (new is not None), size + (new or 0)
            if on_progress is not None:
                on_progress(PublishProgress(files=len(pieces), done=done, bytes_sent=size))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return Sent(files=done, sent=sent, bytes_sent=size)


def _send_one(store: Store, piece: Piece, sizes: Mapping[str, int], stop: threading.Event) -> int | None:
    """Send a file and return its size; None if it was there."""
    if stop.is_set():
        raise JobError("interrupted")
    if _is_there(store, piece, sizes):
        return None
    store.put(piece.name, piece.path)
    reached("file-sent")
    size, digest = store.sha256(piece.name)
    if (size, digest) != (piece.bytes, piece.sha256):
        raise JobError(
            f"{store.destination}/{piece.name} was sent and came back otherwise: {size:,} bytes with SHA-256 {digest}, "
            f"the manifest says {piece.bytes:,} and {piece.sha256}. Remove that file and publish again"
        )
    reached("file-checked")
    return size
