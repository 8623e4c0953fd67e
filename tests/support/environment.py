"""The cluster that tests name: its credentials, the retries without a wait, and the environment that names it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from capillary_async import RetryPolicy

if TYPE_CHECKING:
    import pytest

PASSWORD = "p4ss-w/rd+till"
USERNAME = "till.id"
AT_ONCE = RetryPolicy(backoff=0, throttle_backoff=0)


def name_cluster(monkeypatch: pytest.MonkeyPatch, url: str, username: str = "till", password: str = PASSWORD) -> None:
    """Name this cluster until the end of the test, and nothing else of ours."""
    for name in [name for name in os.environ if name.startswith("CAPILLARY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CAPILLARY_BASE_URL", url)
    monkeypatch.setenv("CAPILLARY_USERNAME", username)
    monkeypatch.setenv("CAPILLARY_PASSWORD", password)
