"""A real local server with the five endpoints, customers, credentials and scripted faults: for demo, docs and tests.

Invariant: what is listed below is all that users import; the other files are private.

    async with Sandbox(customers=500, seed=7, faults=[Throttle(retry_after=1, times=2)]) as sandbox:
        async with AsyncSession(sandbox.url, auth=sandbox.auth) as capillary:
            ...
        assert [seen.status for seen in sandbox.journal][:3] == [429, 429, 200]
"""

from __future__ import annotations

from capillary_async._lazy import adopt
from capillary_async.sandbox._faults.faults import (
    ConnectionReset,
    CutBody,
    ErrorEnvelope,
    Fault,
    HtmlAnswer,
    ServerFailure,
    SlowFirstByte,
    Throttle,
)
from capillary_async.sandbox._faults.list_faults import (
    NotFoundPastEnd,
    NullEntries,
    PageCap,
    PagingIgnored,
    RepeatedPage,
    RowsChanged,
    RowsInserted,
    RowsRemoved,
)
from capillary_async.sandbox._protocol.answers import Answer
from capillary_async.sandbox._server.journal import Exchange
from capillary_async.sandbox._server.server import Sandbox
from capillary_async.sandbox._world.totals import Totals

__all__ = [
    "Answer",
    "ConnectionReset",
    "CutBody",
    "ErrorEnvelope",
    "Exchange",
    "Fault",
    "HtmlAnswer",
    "NotFoundPastEnd",
    "NullEntries",
    "PageCap",
    "PagingIgnored",
    "RepeatedPage",
    "RowsChanged",
    "RowsInserted",
    "RowsRemoved",
    "Sandbox",
    "ServerFailure",
    "SlowFirstByte",
    "Throttle",
    "Totals",
]

adopt(__name__, [globals()[name] for name in __all__])
del adopt  # no name of this package's
