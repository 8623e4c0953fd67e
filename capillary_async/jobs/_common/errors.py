"""The errors of the jobs.

Invariant: as with every error of the SDK, the message says what happened, to which file, and what to do; it pickles.
Raised by all of `jobs`.
"""

from __future__ import annotations

import errno
import sqlite3
from typing import TYPE_CHECKING

from capillary_async import CapillaryError
from capillary_async.tables import UnfitError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["JobError", "UnfitError", "about", "one_line"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class JobError(CapillaryError):
    """The job cannot run, or cannot go on, for a reason that concerns all of it. The message says what to do.

    Attributes:
        path: The file or folder it is about, None where there is none.
    """

    path: str | None

    def __init__(self, message: str = "", *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


def one_line(error: BaseException) -> str:
    """The message of a library on one line, at most 400 characters."""
    return " ".join(str(error).split())[:400]


def about(error: OSError | sqlite3.Error, folder: Path) -> JobError:
    """The error for a failed read or write of the folder: which file, and what to do."""
    full = isinstance(error, OSError) and error.errno in _FULL
    full = full or (isinstance(error, sqlite3.Error) and "full" in str(error))
    where = error.filename if isinstance(error, OSError) and error.filename else folder
    if full:
        return JobError(
            f"no room to write {where}: {error}; what is complete stays. Make room and give the same command again: "
            "it goes on at what is missing"
        )
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
        return JobError(f"{folder / 'state.sqlite'} is damaged: {error}; export into another folder")
    return JobError(f"cannot write {where}: {error}; repair the cause and give the same command again: it goes on")
