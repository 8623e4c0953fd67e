"""What `AsyncSession.from_env()` of a block finds: a sandbox of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.environment import name_cluster

if TYPE_CHECKING:
    from capillary_async.sandbox import Sandbox


@pytest.fixture
def capillary_sandbox_options() -> dict[str, Any]:
    return {"customers": 20, "whales": 0}


@pytest.fixture
def cluster(capillary_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """The sandbox, named by the environment."""
    name_cluster(monkeypatch, capillary_sandbox.url, capillary_sandbox.username, capillary_sandbox.password)
    return capillary_sandbox
