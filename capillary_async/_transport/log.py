"""The log of calls: one DEBUG line of the logger `capillary_async` per call, with its outcome.

Invariant: nothing is formatted unless DEBUG is on; a line has method, path and outcome, and never a query, a header or
a body, which have customers' data and secrets. Called by `chain.py`, as the outermost step after users' middlewares.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from capillary_async.errors import CapillaryError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from capillary_async._transport.messages import Handler, Request, Response

__all__ = ["log"]

logger = logging.getLogger("capillary_async")


def log(request: Request, handler: Handler) -> Awaitable[Response]:
    """Pass the request on, and log its outcome at DEBUG."""
    return _logged(request, handler) if logger.isEnabledFor(logging.DEBUG) else handler(request)


async def _logged(request: Request, handler: Handler) -> Response:
    began = time.monotonic()
    try:
        response = await handler(request)
    except CapillaryError as error:
        logger.debug(
            "%s %s: %s after %.3f s", request.method, request.path, type(error).__name__, time.monotonic() - began
        )
        raise
    logger.debug(
        "%s %s: HTTP %d, %d bytes in %.3f s, request id %s",
        request.method, request.path, response.status, len(response.body), time.monotonic() - began,
        response.request_id,
    )  # fmt: skip
    return response
