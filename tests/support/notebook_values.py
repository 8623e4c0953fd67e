"""Everything that shows itself in a notebook, holding texts that would break a page, or thousands of rows."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from attrs import NOTHING, evolve, fields

from capillary_async import AsyncSession, BasicAuth, Outcome, Page, PointsAllocation, Position, blocking
from capillary_async.errors import ApiMessage, ServerError
from capillary_async.jobs import ExportResult, ReconcileResult, VerifyResult
from capillary_async.jobs._report.result import PointsReport

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SECRET = "s3cret-of-the-till"


def allocation(text: str, number: int = 7) -> PointsAllocation:
    """A record with every field set, texts to this one."""
    given: dict[str, Any] = {}
    for one in fields(PointsAllocation):
        if one.init and one.repr:
            kind = str(one.type)
            given[one.name] = (
                Decimal("12345678901234.567") if "Decimal" in kind else NOW if "datetime" in kind
                else date(2027, 1, 1) if "date" in kind else text if "str" in kind else number
            )  # fmt: skip
    return PointsAllocation(**given)


def result(kind: Any, text: str) -> Any:
    """A job's result whose every text is this one."""
    given: dict[str, Any] = {}
    for one in fields(kind):
        if one.default is NOTHING or "tuple[str" in str(one.type):
            hint = str(one.type)
            given[one.name] = (
                (text,) * 40 if "tuple" in hint else {text: Decimal(5)} if "Mapping" in hint
                else Path(text or "x") if "Path" in hint else True if "bool" in hint else NOW if "datetime" in hint
                else None if "None" in hint else Decimal("7.125") if "Decimal" in hint
                else 7 if "int" in hint or "float" in hint else text
            )  # fmt: skip
    if kind is ReconcileResult:
        given |= {"findings": (), "subjects": (), "groups": ()}
    return kind(**given)


def notebook_values(text: str, rows: int = 3) -> dict[str, Any]:
    """The objects by name, with this text wherever one may come in."""
    name = text if text and text.isprintable() and ":" not in text else "till"  # others are refused
    session = AsyncSession("https://eu.api.capillarytech.com", auth=BasicAuth(name, password=SECRET))
    plain = blocking.Session("https://eu.api.capillarytech.com", auth=BasicAuth("till", password=SECRET))
    session.stats.requests = 12_345
    records = tuple(allocation(text, number) for number in range(rows))
    warnings = (ApiMessage(8015, text),) * 30
    error = ServerError(f"GET /v2/x: {text}", status=500)
    ledger = session.points_ledger.explode_many([])
    pager = session.loyalty_events.list(5, event_type=name)
    return {
        "session": session,
        "view": session.with_options(priority="bulk"),
        "blocking session": plain,
        "stats": session.stats,
        "pager": pager,
        "pager with options": pager.options(start=Position(3, 2, 50), max_items=9, page_size=50),
        "blocking pager": plain.loyalty_events.list(5),
        "fan-out": session.loyalty_events.list_many(range(1, rows + 2)),
        "fan-out over an iterator": session.loyalty_events.list_many(iter([1])),
        "empty fan-out": ledger,
        "page": Page(records, 1, text, warnings, last=True),
        "empty page": Page((), 1),
        "page of other values": Page(({"name": text}, text, None), 2),
        "outcome": Outcome(text, records, None, warnings, 3),
        "failed outcome": Outcome(5, error=error),
        "export": evolve(result(ExportResult, text), read=(NOW, NOW)),
        "verify": result(VerifyResult, text),
        "reconcile": result(ReconcileResult, text),
        "points report": result(PointsReport, text),
    }
