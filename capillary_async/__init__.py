"""An async Python SDK for Capillary's loyalty-points APIs: nothing lost, nothing counted twice, nothing rounded.

The way of one call: `session.points_allocation.by_expiry(...)` checks its arguments and gives a `Pager`, which is only
a recipe. Looping over it starts a walk, which asks the endpoint for a page: a frozen `Request`. The session sends it
through the chain

    your middlewares → log → retry → auth → throttle → check → wire

`retry` repeats attempts by pure rules and the session's quota, `auth` adds the credentials, `throttle` waits for a
permit, `wire` sends it with aiohttp and reads the whole body, and `check` decides what the answer is and decodes it:
records, or an error. The walk drops what came twice, sees the end, reads ahead and gives out pages; an error says
where reading stood. A `FanOut` does this for many keys with a few workers.
"""

from typing import TYPE_CHECKING

from capillary_async._lazy import lazily
from capillary_async._version import __version__

if TYPE_CHECKING:
    from capillary_async._config import Limits, Paging, Rate, RetryPolicy, Timeouts
    from capillary_async._fanout.fanout import FanOut, Outcome
    from capillary_async._paging.pager import Page, Pager, Position
    from capillary_async._session import AsyncSession
    from capillary_async._transport.messages import Request, Response
    from capillary_async._transport.stats import Stats
    from capillary_async.auth import BasicAuth, OAuthClient
    from capillary_async.endpoints import EventQuery, Identifier, LedgerInclude, LedgerQuery
    from capillary_async.endpoints._history import History, HistoryEntry, Unjoined
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
            "endpoints._history": ("History", "HistoryEntry", "Unjoined"),
            "_paging.pager": ("Page", "Pager", "Position"),
            "_session": ("AsyncSession",),
            "_transport.messages": ("Request", "Response"),
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
