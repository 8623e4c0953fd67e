"""One Spark session for all tests of this folder, started when the first of them needs it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
from support.spark_session import start, stop

from capillary_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def spark_logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the event log."""
    return tmp_path_factory.mktemp("spark-events")


@pytest.fixture(scope="session")
def spark(spark_logs: Path) -> Iterator[Any]:
    """A classic session that knows the format `capillary`."""
    from capillary_async.spark import register

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        session = start(spark_logs)
        register(session)
    yield session
    stop(session)


@pytest.fixture
def sandbox_with() -> Iterator[Callable[..., Sandbox]]:
    """Sandboxes that listen until the end of the test."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Sandbox(**{"whales": 0, **options}))
