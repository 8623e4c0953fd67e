"""The next step that the message of an error ends with.

Invariant: every message says what to do next. Pure functions of an error; called by `retry.py` when a call has
failed, and by `Calls`.
"""

from __future__ import annotations

from capillary_async.errors import (
    CapillaryError,
    ConnectError,
    DeadlineExceededError,
    DecodeError,
    RequestTimeoutError,
    ResponseTooLargeError,
    TransportError,
)

__all__ = ["next_step", "with_next_step"]

_TRY_AGAIN = "try again later, and if it comes again, check the network and what is in front of the API"
_DEADLINE = "raise Timeouts.call, or try again later"
_WITH_STEP = ("raise Timeouts.call", "check Rate.shared")
_MALFORMED = "try again later, and if it comes again, check base_url and what is in front of the API"
_SHAPE = "nothing of it was given out: report it to Capillary, with the request id"


def next_step(error: CapillaryError) -> str:
    """The next step, empty where the error's own text has one."""
    if isinstance(error, ResponseTooLargeError | RequestTimeoutError | ConnectError):
        return ""
    if isinstance(error, DeadlineExceededError):
        return "" if any(step in error.message for step in _WITH_STEP) else _DEADLINE
    if isinstance(error, DecodeError):
        return _MALFORMED if error.malformed else _SHAPE
    return _TRY_AGAIN if isinstance(error, TransportError) else ""


def with_next_step(error: CapillaryError) -> str:
    """The text of the error with its next step."""
    step = next_step(error)
    return f"{error.message}; {step}" if step else error.message
