"""A client's retries and limiter around a service of one's own, in virtual time.

Invariant: no sockets; a call's clock is that of its loop, once `virtual_calls` was used.
"""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from capillary_async import Limits, RetryPolicy, Timeouts
from capillary_async._priority import begin_bulk
from capillary_async._transport import messages
from capillary_async._transport.limiter import RequestLimiter
from capillary_async._transport.messages import Request, Response, decoded_of, set_decoded
from capillary_async._transport.retry import Quota, Retry
from capillary_async._transport.stats import Stats
from capillary_async.errors import CapillaryError
from support.virtual_time import clock

RIGHT = Response(200)


def virtual_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call's clock is that of its loop."""
    monkeypatch.setattr(messages, "time", SimpleNamespace(monotonic=clock))


class Service:
    """Answers within 10 ms; `fault_for(path, seconds)` gives the error instead, if any. Notes when what was asked."""

    def __init__(self, fault_for: Callable[[int, float], CapillaryError | None], takes: float = 0.01) -> None:
        self.fault_for, self.takes = fault_for, takes
        self.asked: list[tuple[float, int]] = []
        self.began: float | None = None

    async def __call__(self, request: Request) -> Response:
        self.began = clock() if self.began is None else self.began
        key, at = int(request.path[1:]), clock() - self.began
        self.asked.append((at, key))
        fault = self.fault_for(key, at)
        await asyncio.sleep(self.takes)
        if fault is not None:
            raise fault
        return RIGHT

    def times(self, since: float = 0.0) -> list[float]:
        """When it was asked, in tenths of a second."""
        return [round(at, 1) for at, _ in self.asked if at >= since]

    def count(self, key: int) -> int:
        return [asked for _, asked in self.asked].count(key)


class Client:
    """Retries around a limiter, as a session has them; without a quota each error of the service ends a round."""

    def __init__(
        self, service: Any, *, attempts: int = 5, quota: int = 14, call: float = 180.0, throttle_backoff: float = 1.0
    ) -> None:
        self.service = service
        policy = RetryPolicy(attempts=attempts, quota=quota, throttle_backoff=throttle_backoff)
        self.limiter = RequestLimiter(Limits(), policy, clock=clock)
        self.quota = Quota(quota)
        self.quota.left = 0
        self.quota.give = lambda tokens: None  # type: ignore[method-assign]  # it stays empty
        timeouts, stats = Timeouts(call=call), Stats()
        self.retry = Retry(policy, timeouts, self.quota, stats, limiter=self.limiter, uniform=lambda low, high: high)

    async def get(self, key: int) -> Response:
        return await self.retry(Request("GET", f"/{key}"), lambda request: self.limiter(request, self.service))

    async def outcome(self, key: int) -> CapillaryError | None:
        try:
            await self.get(key)
        except CapillaryError as error:
            return error
        return None

    async def fan_out(self, keys: Any, workers: int = 4) -> dict[int, CapillaryError | None]:
        """Keys by workers that stop at what concerns them all."""
        left, outcomes = iter(keys), dict[int, CapillaryError | None]()

        async def work() -> None:
            begin_bulk()
            for key in left:
                outcomes[key] = await self.outcome(key)

        await asyncio.gather(*(asyncio.ensure_future(work()) for _ in range(workers)))
        return outcomes

    @property
    def idle(self) -> bool:
        limiter = self.limiter
        return not (limiter._pace.held or limiter._line or limiter.patient_calls)


def gated(shelf: Any, client: Client | None = None) -> Client:
    """Have each page of a shelf fetched by a client; what `shelf.before` raises is the error of one attempt."""
    client = client or Client(None)
    send, asked = shelf.fetch, dict[str, tuple[Any, int, int]]()

    async def service(request: Request) -> Response:
        return set_decoded(Response(200), await send(*asked[request.path]))

    async def fetch(*page: Any) -> Any:
        request = Request("GET", "/" + "/".join(map(str, page)))
        asked[request.path] = page
        return decoded_of(await client.retry(request, lambda each: client.limiter(each, service)))

    shelf.fetch = fetch
    return client
