"""The environment that names a cluster, as the command line and `AsyncSession.from_env()` read it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def name_cluster(
    monkeypatch: pytest.MonkeyPatch, url: str, username: str = "till", password: str = "p4ss-w/rd+till"
) -> None:
    """Name this cluster until the end of the test, and nothing else of ours."""
    for name in [name for name in os.environ if name.startswith("CAPILLARY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CAPILLARY_BASE_URL", url)
    monkeypatch.setenv("CAPILLARY_USERNAME", username)
    monkeypatch.setenv("CAPILLARY_PASSWORD", password)
