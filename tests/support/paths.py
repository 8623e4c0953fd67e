"""Folders that tests read from."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
PACKAGE = ROOT / "capillary_async"
SAMPLES = TESTS / "samples"
SUPPORT = TESTS / "support"
