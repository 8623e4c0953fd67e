"""`Observers`: the observers of a session, those of its user and the log, as one.

Invariant: an error of an observer is logged and harms no call; without observers and with the log off, no record is
made. Made by `chain.py`; called by what makes records.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from capillary_async.telemetry._log import LOGGED, log, logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from capillary_async.telemetry._events import Event, Observer

__all__ = ["Observers"]


class Observers:
    """The observers of one session.

    Attributes:
        given: Whether a user gave some.
        base_url: Of the session.
        redact: Takes the session's secrets out of a text that a server sent, e.g. a request id.
    """

    def __init__(self, given: Sequence[Observer] = (), base_url: str = "") -> None:
        self.given = bool(given)
        self.base_url = base_url
        self.redact: Callable[[str], str] = str
        self._observers = tuple(given)
        self._failed: set[int] = set()

    @property
    def active(self) -> bool:
        """Whether anything takes records now."""
        return self.given or logger.isEnabledFor(logging.INFO)

    def notify(self, event: Event) -> None:
        """Give a record to each of them."""
        for observer in self._observers:
            try:
                observer(event)
            except Exception:  # noqa: BLE001 - an observer of the user's, which harms no call
                self._report(observer, event)
        if type(event) in LOGGED and logger.isEnabledFor(logging.INFO):
            log(event)

    def _report(self, observer: Observer, event: Event) -> None:
        """Log its error: the first one as an error with its traceback, the others, which may be many, for DEBUG."""
        level = logging.DEBUG if id(observer) in self._failed else logging.ERROR
        self._failed.add(id(observer))
        logger.log(level, "the observer %s raised for %s", _name(observer), type(event).__name__, exc_info=True)


def _name(observer: Observer) -> str:
    return getattr(observer, "__qualname__", type(observer).__qualname__)
