"""The pytest plugin: fixtures `capillary_sandbox` and `capillary_session` for tests of code that uses this package.

Invariant: the fixtures are plain ones, and the server runs in a thread of its own, so that they work alike under
pytest-asyncio (auto and strict, any loop scope), anyio's plugin, and in tests without an event loop. pytest loads this
file through the entry point.

    @pytest.fixture
    def capillary_sandbox_options():
        return {"customers": 20, "faults": [Throttle(retry_after=0.1)]}

    async def test_report(capillary_sandbox, capillary_session):
        report = await my_report(capillary_session, capillary_sandbox.customer_ids)
        assert report.total == capillary_sandbox.totals().points["points_exclusive"]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from anyio.from_thread import start_blocking_portal

from capillary_async import AsyncSession
from capillary_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def capillary_sandbox_options() -> dict[str, Any]:
    """The arguments of the `Sandbox` behind `capillary_sandbox`; override it to choose them."""
    return {}


@pytest.fixture
def capillary_session_options() -> dict[str, Any]:
    """Further arguments of the `AsyncSession` behind `capillary_session`; override it to choose them."""
    return {}


@pytest.fixture
def capillary_sandbox(capillary_sandbox_options: dict[str, Any]) -> Iterator[Sandbox]:
    """A `Sandbox` that listens, for one test."""
    with Sandbox(**capillary_sandbox_options) as sandbox:
        yield sandbox


@pytest.fixture
def capillary_session(capillary_sandbox: Sandbox, capillary_session_options: dict[str, Any]) -> Iterator[AsyncSession]:
    """An `AsyncSession` on `capillary_sandbox`, for one test."""
    options: dict[str, Any] = {"auth": capillary_sandbox.auth, **capillary_session_options}
    session = AsyncSession(capillary_sandbox.url, **options)
    yield session
    # A thread, since this one may have an event loop of its own, be it idle or running.
    with start_blocking_portal() as portal:
        portal.call(session.aclose)
