"""The script: which fault is played on which request, how often, and what the moved lists look like by now.

Invariant: all state of the faults is here, none in them. `Sandbox` asks for a `FaultPlan` once per request; the
endpoints page through it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from capillary_async.sandbox._protocol.answers import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from capillary_async.sandbox._faults.faults import Fault
    from capillary_async.sandbox._protocol.answers import Answer
    from capillary_async.sandbox._protocol.query import Window
    from capillary_async.sandbox._world.records import Row

__all__ = ["FaultPlan", "Script"]


@attrs.define(eq=False)
class _Cue:
    """A fault and how far it has come."""

    fault: Fault
    seen: int = 0
    played: int = 0

    def due(self, path: str, page: int) -> bool:
        """Count a request; whether the fault is to be played on it."""
        if not self.fault.matches(path, page):
            return False
        self.seen += 1
        times = self.fault.times
        return self.seen > self.fault.after and (times is None or self.played < times)


class Script:
    """The faults of one sandbox, in order."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._cues = [_Cue(fault) for fault in faults]
        self._moved: dict[str, list[Fault]] = {}

    def add(self, faults: Iterable[Fault]) -> None:
        """More faults, after those that are there."""
        self._cues += [_Cue(fault) for fault in faults]

    def clear(self) -> None:
        """No faults any more, and every list as it was."""
        self._cues.clear()
        self._moved.clear()

    def play(self, path: str, page: int) -> FaultPlan:
        """What is played on this request."""
        due: list[Fault] = []
        taken = False
        for cue in self._cues:
            if not cue.due(path, page) or (taken and cue.fault.exclusive):
                continue
            taken = taken or cue.fault.exclusive
            cue.played += 1
            due.append(cue.fault)
        return FaultPlan(tuple(due), self)

    def moved(self, key: str, rows: Sequence[Row], movers: Iterable[Fault]) -> Sequence[Row]:
        """The list after every move, those of this request included."""
        moves = self._moved.get(key, [])
        fresh = list(movers)
        if fresh:
            moves = self._moved[key] = moves + fresh
        for nth, fault in enumerate(moves):
            rows = fault.move(rows, nth)
        return rows


@attrs.frozen
class FaultPlan:
    """The faults of one request.

    Attributes:
        faults: Those that are played.
    """

    faults: tuple[Fault, ...]
    _script: Script = attrs.field(repr=False)

    @property
    def delay(self) -> float:
        """Seconds to wait first."""
        return sum(fault.delay() for fault in self.faults)

    def instead(self, path: str) -> Answer | None:
        """What to answer instead of what was asked for."""
        return next((answer for fault in self.faults if (answer := fault.instead(path)) is not None), None)

    def page(self, key: str, rows: Sequence[Row], window: Window) -> list[Any]:
        """The entries of one page of the list that has this key.

        Raises:
            Refused: The page is past the end, and a fault makes that a 404.
        """
        rows = self._script.moved(key, rows, (fault for fault in self.faults if fault.moves_rows))
        for fault in self.faults:
            window = fault.window(window)
        found = list(rows[window.start : window.start + window.size])
        return self.entries(found) if found or window.start == 0 else self._past_end()

    def entries(self, rows: list[Any]) -> list[Any]:
        """The rows with whatever a fault puts among them."""
        for fault in self.faults:
            rows = fault.entries(rows)
        return rows

    def spoil(self, answer: Answer) -> Answer:
        """How the answer is sent."""
        for fault in self.faults:
            answer = fault.spoil(answer)
        return answer

    def _past_end(self) -> list[Any]:
        for fault in self.faults:
            answer = fault.past_end()
            if answer is not None:
                raise Refused(answer)
        return []
