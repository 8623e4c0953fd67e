"""What the tests of the jobs share: a service with customers, and a session with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.job_server import Customers

from capillary_async import AsyncSession, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def server() -> Iterator[Customers]:
    """A service with customers."""
    with Customers() as customers:
        yield customers


@pytest.fixture
def session(server: Customers, session_at: Callable[..., AsyncSession]) -> AsyncSession:
    """A session that does not retry, so that tests count failures."""
    return session_at(server.url, retry=RetryPolicy(attempts=1))
