"""The journal: every request of the sandbox with its outcome.

Invariant: a request is written down when it arrives, so that one still in flight, or one whose client went away, is
counted too. `Sandbox` writes it; tests read `sandbox.journal`.
"""

from __future__ import annotations

import time

import attrs
from multidict import MultiMapping

from capillary_async._repr import brief_repr
from capillary_async.sandbox._faults.faults import Fault
from capillary_async.sandbox._protocol.query import whole_number

__all__ = ["Exchange", "Journal"]

_FROZEN = attrs.setters.frozen


@attrs.define(eq=False, kw_only=True)
class Exchange:
    """One request and its outcome.

    What was asked never changes; `status`, `finished` and `faults` are filled in when the answer is sent.

    Attributes:
        number: From 1, in the order of arrival.
        method: The HTTP method.
        path: The path, decoded.
        query_string: The query as it stood on the wire, still encoded.
        params: The query decoded; a multi-mapping (`params.getall(name)` for one sent twice).
        headers: The request's headers; names match in any case. Kept out of the repr: they hold credentials.
        arrived: When it came, in seconds of `time.monotonic()`.
        in_flight: How many requests were open when it came, itself included.
        request_id: The X-CAP-REQUEST-ID it was answered with.
        finished: When its answer was ready to be sent; None before, and for a client that went away first.
        status: The HTTP status answered; None before, for a client that went away, and for a reset connection.
        faults: The scripted faults that were played on it.
    """

    number: int = attrs.field(on_setattr=_FROZEN)
    method: str = attrs.field(on_setattr=_FROZEN)
    path: str = attrs.field(on_setattr=_FROZEN)
    query_string: str = attrs.field(on_setattr=_FROZEN)
    params: MultiMapping[str] = attrs.field(on_setattr=_FROZEN, repr=False)
    headers: MultiMapping[str] = attrs.field(on_setattr=_FROZEN, repr=False)
    arrived: float = attrs.field(factory=time.monotonic, on_setattr=_FROZEN)
    in_flight: int = attrs.field(on_setattr=_FROZEN)
    request_id: str = attrs.field(on_setattr=_FROZEN)
    finished: float | None = None
    status: int | None = None
    faults: tuple[Fault, ...] = ()

    __repr__ = brief_repr

    @property
    def page(self) -> int | None:
        """The page asked for; None if the request has no valid page."""
        return whole_number(self.params.get("page", ""))

    @property
    def fault(self) -> Fault | None:
        """The first fault of the request."""
        return self.faults[0] if self.faults else None


class Journal:
    """Keeps the last `limit` exchanges in a plain list, and counts all of them.

    Attributes:
        exchanges: The records, oldest first; a test may clear it.
        requests: All requests ever seen.
        in_flight: Requests open now.
        peak_in_flight: The most that were open at once.
    """

    def __init__(self, limit: int) -> None:
        self.exchanges: list[Exchange] = []
        self.requests = 0
        self.in_flight = 0
        self.peak_in_flight = 0
        self._limit = limit

    def arrive(self) -> tuple[int, int]:
        """Count a request in; return its number and the number of open ones."""
        self.requests += 1
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        return self.requests, self.in_flight

    def write(self, exchange: Exchange) -> None:
        """Append the record; the oldest are removed in bulk, so that a long run costs no more per request."""
        self.exchanges.append(exchange)
        if len(self.exchanges) > self._limit + self._limit // 10:
            del self.exchanges[: -self._limit]

    def leave(self) -> None:
        """Count a request out."""
        self.in_flight -= 1
