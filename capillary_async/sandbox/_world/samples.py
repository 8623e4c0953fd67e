"""The sample answers of the five API pages, so that their curl lines work here as they are printed.

Invariant: `samples.json` holds what the pages show, number text included (100.0 stays 100.0). The one ledger
sample that is not JSON on its page (`"eventReferenceIds":{RefId1}` in curly quotes) is kept with the quotes
repaired. `_world/world.py` reads it.
"""

from __future__ import annotations

from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any

import attrs
import msgspec

__all__ = ["LEDGER_OWNERS", "SAMPLE_MOBILE", "LedgerSample", "ledger_samples", "sample_rows"]

SAMPLE_MOBILE = "918088369835"
_MOBILE_OWNER, _MANUAL_OWNER = 565039506, 566135941
LEDGER_OWNERS = (_MOBILE_OWNER, _MANUAL_OWNER)
_MANUAL_EVENTS = frozenset({652367550, 656317605})  # these two name customer 566135941 on the page
# The page asks for the first and answers with an event that carries the second.
_REFERENCE_ON_PAGE = ("67587c26-d925-4f8d-9211-a9b4d6f8db8e", "fb98ae16-668d-4c48-826b-1c13fa5344e7")


@attrs.frozen
class LedgerSample:
    """One event of the ledger page, with the warnings that its answer carries."""

    customer_id: int
    event: dict[str, Any]
    warnings: tuple[dict[str, Any], ...]

    @property
    def references(self) -> tuple[str, ...]:
        """The reference ids that find it."""
        own = str(self.event.get("eventReferenceId") or self.event.get("eventReferenceIds"))
        return _REFERENCE_ON_PAGE if own in _REFERENCE_ON_PAGE else (own,)


@cache
def _document() -> dict[str, Any]:
    text = files("capillary_async.sandbox").joinpath("samples.json").read_bytes()
    return msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode(text)


def sample_rows(kind: str) -> tuple[dict[str, Any], ...]:
    """The rows of `awarded`, `allocations` or `events` that the pages show."""
    return tuple(_document()[kind])


@cache
def ledger_samples() -> tuple[LedgerSample, ...]:
    """Every event that the ledger page shows."""
    return tuple(
        LedgerSample(_owner(event), event, tuple(answer["warnings"]))
        for answer in _document()["ledger"]
        for event in answer["events"]
    )


def _owner(event: dict[str, Any]) -> int:
    return _MANUAL_OWNER if event["eventLogId"] in _MANUAL_EVENTS else _MOBILE_OWNER
