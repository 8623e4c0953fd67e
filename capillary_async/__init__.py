"""An async Python SDK for Capillary's loyalty-points APIs: nothing lost, nothing counted twice, nothing rounded.

The path of one call, `async for row in session.points_allocation.by_expiry(...)`:

1. `endpoints/points_allocation.py` checks the arguments and gives a `Pager` (`_paging/pager.py`), a recipe.
2. The loop opens an `ItemIterator` (`_paging/iterators.py`) over a `ListReader` (`_paging/reader.py`).
3. The reader takes pages from `_paging/requests.py`: page 1, then several ahead; `endpoints/_caller.py` sends each.
4. `_transport/chain.py` passes it on: middlewares → `retry` → `credentials` → `limiter` → `classify` → `wire`.
5. `retry` repeats attempts by the pure rules of `retry_decision.py`, as far as the session's quota goes.
6. `limiter` waits for a permit: concurrency and rate of `adaptive_limit.py`, the shut gate of `gate.py`.
7. `wire` sends one attempt with aiohttp and reads the whole body; `body` verifies and decompresses it.
8. `classify` decides what the answer is: an error, or records, which `_codec/decode.py` makes of the bytes; of a large
   page read ahead it does so when the reader takes the page.
9. The reader drops records that come twice (`_paging/duplicates.py`) and finds the end (`_paging/cursor.py`).
10. A `FanOut` (`_fanout/fanout.py`) does 3 to 9 for many keys with a few workers, one `Outcome` per key.
"""

from typing import TYPE_CHECKING

from capillary_async._lazy import lazily
from capillary_async._version import __version__

if TYPE_CHECKING:
    from capillary_async._config import Limits, Paging, Rate, RetryPolicy, Timeouts
    from capillary_async._fanout.fanout import FanOut, Outcome
    from capillary_async._paging.pager import Page, Pager, Position
    from capillary_async._session import AsyncSession
    from capillary_async._transport.messages import Handler, Middleware, Request, Response
    from capillary_async._transport.stats import Stats
    from capillary_async.auth import BasicAuth, OAuthClient
    from capillary_async.endpoints import EventQuery, Identifier, LedgerInclude, LedgerQuery
    from capillary_async.endpoints._history import History
    from capillary_async.endpoints._history_join import HistoryEntry, Unjoined
    from capillary_async.errors import (
        APIError,
        ApiMessage,
        AttemptRecord,
        AuthenticationError,
        BadRequestError,
        CapillaryError,
        ConnectError,
        CustomerNotFoundError,
        DeadlineExceededError,
        DecodeError,
        InvalidRequestError,
        LedgerRequestError,
        MergedCustomerError,
        NotFoundError,
        PageDriftError,
        PageLoopError,
        PagingError,
        PermissionDeniedError,
        RateLimitedError,
        RecordConflictError,
        RequestTimeoutError,
        ResponseTooLargeError,
        ServerError,
        TLSError,
        TransportError,
    )
    from capillary_async.models import (
        EventName,
        EventType,
        LedgerEvent,
        LoyaltyEvent,
        PointsAllocation,
        PointsAwarded,
        PointsStatus,
        SourceTable,
    )

__all__ = [
    "APIError",
    "ApiMessage",
    "AsyncSession",
    "AttemptRecord",
    "AuthenticationError",
    "BadRequestError",
    "BasicAuth",
    "CapillaryError",
    "ConnectError",
    "CustomerNotFoundError",
    "DeadlineExceededError",
    "DecodeError",
    "EventName",
    "EventQuery",
    "EventType",
    "FanOut",
    "Handler",
    "History",
    "HistoryEntry",
    "Identifier",
    "InvalidRequestError",
    "LedgerEvent",
    "LedgerInclude",
    "LedgerQuery",
    "LedgerRequestError",
    "Limits",
    "LoyaltyEvent",
    "MergedCustomerError",
    "Middleware",
    "NotFoundError",
    "OAuthClient",
    "Outcome",
    "Page",
    "PageDriftError",
    "PageLoopError",
    "Pager",
    "Paging",
    "PagingError",
    "PermissionDeniedError",
    "PointsAllocation",
    "PointsAwarded",
    "PointsStatus",
    "Position",
    "Rate",
    "RateLimitedError",
    "RecordConflictError",
    "Request",
    "RequestTimeoutError",
    "Response",
    "ResponseTooLargeError",
    "RetryPolicy",
    "ServerError",
    "SourceTable",
    "Stats",
    "TLSError",
    "Timeouts",
    "TransportError",
    "Unjoined",
    "__version__",
]

if not TYPE_CHECKING:  # type checkers read the imports above, and refuse a name that is not among them
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "_config": ("Limits", "Paging", "Rate", "RetryPolicy", "Timeouts"),
            "_fanout.fanout": ("FanOut", "Outcome"),
            "endpoints._history": ("History",),
            "endpoints._history_join": ("HistoryEntry", "Unjoined"),
            "_paging.pager": ("Page", "Pager", "Position"),
            "_session": ("AsyncSession",),
            "_transport.messages": ("Handler", "Middleware", "Request", "Response"),
            "_transport.stats": ("Stats",),
            "auth": ("BasicAuth", "OAuthClient"),
            "endpoints": ("EventQuery", "Identifier", "LedgerInclude", "LedgerQuery"),
            "errors": (
                "APIError",
                "ApiMessage",
                "AttemptRecord",
                "AuthenticationError",
                "BadRequestError",
                "CapillaryError",
                "ConnectError",
                "CustomerNotFoundError",
                "DeadlineExceededError",
                "DecodeError",
                "InvalidRequestError",
                "LedgerRequestError",
                "MergedCustomerError",
                "NotFoundError",
                "PageDriftError",
                "PageLoopError",
                "PagingError",
                "PermissionDeniedError",
                "RateLimitedError",
                "RecordConflictError",
                "RequestTimeoutError",
                "ResponseTooLargeError",
                "ServerError",
                "TLSError",
                "TransportError",
            ),
            "models": (
                "EventName",
                "EventType",
                "LedgerEvent",
                "LoyaltyEvent",
                "PointsAllocation",
                "PointsAwarded",
                "PointsStatus",
                "SourceTable",
            ),
        },
    )
    del TYPE_CHECKING, lazily  # no names of this package's
