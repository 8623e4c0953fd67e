"""Running a command's coroutine, and ending: signals, broken pipes, and errors as one line each.

Invariant: whatever ends a command, its clean-up runs, and the exit code says what happened. Called by `_app.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import os
import signal
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

from capillary_async.cli._io.words import as_options, one_line
from capillary_async.errors import CapillaryError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

__all__ = [
    "BROKEN_PIPE",
    "CANNOT_RUN",
    "DIFFERENT",
    "INTERRUPTED",
    "SOME_FAILED",
    "TERMINATED",
    "UnusableError",
    "ending",
    "fill_standard_streams",
    "jobs",
    "run",
]

CANNOT_RUN, SOME_FAILED, DIFFERENT = 1, 2, 3
_LAST_STREAM = 2
INTERRUPTED, BROKEN_PIPE, TERMINATED = 130, 141, 143  # 128 and the signal's number, as shells say it


class UnusableError(Exception):
    """The command cannot run with its options; the message says why."""


def jobs(command: str = "this command") -> Any:
    """Return the package of the extra `jobs`.

    Raises:
        UnusableError: The extra is missing.
    """
    try:
        from capillary_async import jobs as package  # noqa: PLC0415 - the extra may be missing
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("capillary_async"):
            raise
        raise UnusableError(
            f'{command} needs the jobs extra ({error.name} is missing): pip install "capillary-async[cli,jobs]"'
        ) from None
    return package


def run(coroutine: Coroutine[Any, Any, int]) -> int:
    """Run the coroutine, on uvloop if that is installed; SIGINT and SIGTERM cancel it."""
    with _handlers_restored(), asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_cancelled_by_sigterm(coroutine))


@contextlib.contextmanager
def _handlers_restored() -> Generator[None]:
    """Put the signal handlers back: a closed loop of uvloop leaves its own, deaf to Ctrl-C."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and threading.current_thread() is threading.main_thread():
                signal.signal(number, handler)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if importlib.util.find_spec("uvloop") is None:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
    return factory


async def _cancelled_by_sigterm(coroutine: Coroutine[Any, Any, int]) -> int:
    task = asyncio.current_task()
    # Neither Windows nor threads other than the main one have signal handlers.
    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGTERM, partial(task.cancel, "SIGTERM") if task else coroutine.close
        )
    return await coroutine


def fill_standard_streams() -> None:
    """Where a standard stream is closed, its number would go to a file or a connection: give it to nothing.

    Raises:
        UnusableError: It is stdout.
    """
    number = os.open(os.devnull, os.O_RDWR)
    while number <= _LAST_STREAM:
        number = os.open(os.devnull, os.O_RDWR)
    os.close(number)
    streams: dict[str, TextIO | None] = {"out": sys.stdout, "err": sys.stderr}  # None where it is closed
    if streams["err"] is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - open to the end
    if streams["out"] is None:
        raise UnusableError("stdout is closed")


def ending(command: Callable[[], int]) -> int:
    """Return the exit code of a command, whatever it raises; an error is one line on stderr."""
    try:
        fill_standard_streams()
        code = command()
        sys.stdout.flush()
    except BrokenPipeError:
        return _broken_pipe()
    except KeyboardInterrupt:
        return _print_error("interrupted", INTERRUPTED)
    except asyncio.CancelledError:
        return _print_error("terminated", TERMINATED)
    except (UnusableError, CapillaryError, OSError) as error:
        return _print_error(as_options(str(error)), CANNOT_RUN)
    return code


def _print_error(text: str, code: int) -> int:
    with contextlib.suppress(OSError):
        print(f"capillary-async: {one_line(text)}", file=sys.stderr)  # noqa: T201
    return code


def _broken_pipe() -> int:
    """Whoever read our output went away, e.g. `head`: nothing to say, and nothing left to flush at exit."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    return BROKEN_PIPE
