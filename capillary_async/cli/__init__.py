"""`capillary-async`: the command line.

Invariant: importing this package needs nothing beyond the core dependencies, so that a missing `cli` extra is one clear
line and no traceback. The entry point is `main`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_EXTRA = ("cyclopts", "rich")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 0 success, 1 it could not run, 2 some customers failed.

    Args:
        arguments: The arguments after the program's name; None reads those of this process.
    """
    try:
        from capillary_async.cli._app import run  # noqa: PLC0415 - the extra may be missing
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        text = f'the command line needs the cli extra ({error.name} is missing): pip install "capillary-async[cli]"'
        print(f"capillary-async: {text}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:  # the imports take a while
        return 130
    return run(sys.argv[1:] if arguments is None else arguments)
