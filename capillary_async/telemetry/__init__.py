"""What a session does, seen from outside: the records that its observers get, and OpenTelemetry made of them.

Invariant: an observer is a callable that takes one frozen record; it sees no query, no header, no body and no secret.
Give observers to `AsyncSession(observers=[...])`; the log of the package is one of them.
"""

from typing import TYPE_CHECKING

from capillary_async._lazy import lazily

if TYPE_CHECKING:
    from capillary_async.telemetry._events import (
        AttemptEnded,
        AttemptStarted,
        CallEnded,
        CallStarted,
        Event,
        GateOpened,
        GateShut,
        KeyFinished,
        LimitChanged,
        Observer,
        PageRead,
        Waited,
    )
    from capillary_async.telemetry._opentelemetry import OpenTelemetry

__all__ = [
    "AttemptEnded",
    "AttemptStarted",
    "CallEnded",
    "CallStarted",
    "Event",
    "GateOpened",
    "GateShut",
    "KeyFinished",
    "LimitChanged",
    "Observer",
    "OpenTelemetry",
    "PageRead",
    "Waited",
]

if not TYPE_CHECKING:  # type checkers read the imports above, and refuse a name that is not among them
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "_events": tuple(name for name in __all__ if name != "OpenTelemetry"),
            "_opentelemetry": ("OpenTelemetry",),
        },
    )
    del TYPE_CHECKING, lazily  # no names of this package's
