"""The session for code without an event loop: scripts, thread pools, notebooks, pandas users, Spark tasks.

Invariant: the same calls, arguments, results and errors as of `AsyncSession`; nothing of the API is written twice.

    with blocking.Session("https://eu.api.capillarytech.com", auth=...) as capillary:
        for allocation in capillary.points_allocation.by_expiry(...): ...
"""

from typing import TYPE_CHECKING

from capillary_async._lazy import lazily

if TYPE_CHECKING:
    from capillary_async.blocking._session import FanOut, Pager, Session

__all__ = ["FanOut", "Pager", "Session"]

__getattr__, __dir__ = lazily(__name__, {"_session": ("FanOut", "Pager", "Session")})
