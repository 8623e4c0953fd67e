"""`Recorder`: keeps the answers of the keys under way until it is known which of them the export uses.

Invariant: of a key that succeeds, the last answer to each of its requests is kept; of a key that fails, nothing. A step
around the calls of an export, in the event loop; `ReadLoop` takes the bodies of each key that is settled.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from attrs import evolve

from capillary_async import NotFoundError
from capillary_async.jobs._archive.pack import Body
from capillary_async.jobs._archive.requests import keys_of

if TYPE_CHECKING:
    from capillary_async import Handler, Request, Response

__all__ = ["Recorder"]


class Recorder:
    """The answers of the keys under way."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._bodies: dict[Any, dict[tuple[str, str], Body]] = {}

    async def __call__(self, request: Request, handler: Handler) -> Response:
        """Pass a call on, and keep its answer."""
        refusals: list[Response] = []
        try:
            response = await handler(evolve(request, refusals=refusals))
        except NotFoundError:
            # The end of a list, or an empty one; of a batch, its keys are read one by one.
            if refusals and len(keys_of(self._source, request.path, request.query)) == 1:
                self._keep(request, refusals[-1])
            raise
        self._keep(request, response)
        return response

    def begin(self, key: Any) -> None:
        """A key is about to be read."""
        self._bodies[key] = {}

    def take(self, key: Any, *, used: bool) -> list[Body]:
        """The bodies of a key that is settled, in the order in which they came; none where it failed."""
        bodies = self._bodies.pop(key, {})
        return list(bodies.values()) if used else []

    def _keep(self, request: Request, response: Response) -> None:
        asked, received = (request.path, request.query), datetime.now(UTC).isoformat(timespec="milliseconds")
        found = Body(*asked, response.status, response.request_id, received, response.body)
        for key in keys_of(self._source, *asked):
            bodies = self._bodies.get(key)
            if bodies is not None:
                bodies.pop(asked, None)
                bodies[asked] = found
