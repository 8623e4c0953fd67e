"""The log of the package, an observer: per call one DEBUG line with its outcome, per retry and gate one INFO line.

Invariant: nothing is formatted unless the level is on; a line has method, path and outcome, and never a query, a header
or a body. Its values are `extra` fields of the log record too. Called by `Observers`.
"""

from __future__ import annotations

import logging

import msgspec

from capillary_async.telemetry._events import AttemptEnded, CallEnded, Event, GateOpened, GateShut

__all__ = ["LOGGED", "log", "logger"]

logger = logging.getLogger("capillary_async")
LOGGED = frozenset({AttemptEnded, CallEnded, GateOpened, GateShut})  # the records that have a line


def log(event: Event) -> None:
    """Write the line of a record, if it has one."""
    if isinstance(event, CallEnded):
        if logger.isEnabledFor(logging.DEBUG):
            _call(event)
    elif isinstance(event, AttemptEnded):
        if event.retried:
            values = (event.method, event.path, event.number, _what_came(event), event.slept)
            logger.info("%s %s: attempt %d: %s; again in %.2f s", *values, extra=_fields(event))
    elif isinstance(event, GateShut):
        logger.info("the gate of the session is shut: %s", event.reason, extra=_fields(event))
    elif isinstance(event, GateOpened):
        text = "the gate of the session is open again after %.1f s: %s"
        logger.info(text, event.seconds, event.reason, extra=_fields(event))


def _call(event: CallEnded) -> None:
    if event.error is not None:
        failed = (event.method, event.path, event.error, event.seconds)
        logger.debug("%s %s: %s after %.3f s", *failed, extra=_fields(event))
        return
    text = "%s %s: HTTP %d, %d bytes in %.3f s, request id %s"
    values = (event.method, event.path, event.status, event.size, event.seconds, event.request_id)
    logger.debug(text, *values, extra=_fields(event))


def _fields(event: Event) -> dict[str, object]:
    """The values of a record, with its class as `event`; no name of them is one of `LogRecord`'s own."""
    return {"event": type(event).__name__, **msgspec.structs.asdict(event)}


def _what_came(event: AttemptEnded) -> str:
    """What an attempt came to: 429 and 503 are two things."""
    if event.kind == "status":
        return f"HTTP {event.status}"
    if event.kind == "code":
        return f"code {event.code} under HTTP {event.status}"
    return event.kind if event.status is None else f"{event.kind} under HTTP {event.status}"
