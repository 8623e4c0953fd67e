"""No repr is longer than 500 characters, whatever a value holds; small values show all they have."""

from __future__ import annotations

import importlib
import logging
import time
from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capillary_async import (
    APIError,
    ApiMessage,
    AsyncSession,
    BasicAuth,
    CapillaryError,
    EventQuery,
    History,
    HistoryEntry,
    Identifier,
    InvalidRequestError,
    LedgerEvent,
    LoyaltyEvent,
    OAuthClient,
    Outcome,
    Page,
    PointsAllocation,
    Position,
    Rate,
    Request,
    Response,
    Unjoined,
)
from capillary_async._fanout.outcome import FanOutRun
from capillary_async._repr import brief
from capillary_async.models import BillDetails, EventDetails, LineItem
from capillary_async.sandbox import Answer, Sandbox

LONG = "x" * 5_000
HUGE = 10**5_000  # more digits than Python writes
RECORD = PointsAllocation(id=7, customer_id=600000001, points_exclusive=Decimal("1.500"), status="AVAILABLE")
FULL = PointsAllocation(
    **{one.name: LONG if one.name == "status" else Decimal("9" * 28) for one in attrs.fields(PointsAllocation)}  # type: ignore[arg-type]
)
LEDGER = LedgerEvent(
    event_log_id=1,
    event_details=EventDetails(till_id=1),
    bill_details=BillDetails(note=LONG, line_items=tuple(LineItem(id=number, item_code=LONG) for number in range(500))),
    extra={LONG: [{LONG: LONG}] * 500},
)


OWN = {Page, FanOutRun, History, HistoryEntry, Unjoined}  # reprs of their own, and that of `object`


def classes() -> list[type[Any]]:
    """The attrs classes that users can come to hold."""
    names = (
        "",
        ".auth",
        ".errors",
        ".models",
        ".endpoints",
        ".jobs",
        ".sandbox",
        "._config",
        "._paging.page",
        "._paging.source",
        "._fanout.outcome",
    )
    names = (
        *names,
        "._transport.messages",
        ".jobs._comparing.comparison",
        ".jobs._comparing.rules",
        ".jobs._comparing.result",
    )
    found: dict[str, type[Any]] = {}
    for name in names:
        module = importlib.import_module(f"capillary_async{name}")
        for kind in (getattr(module, one) for one in module.__all__):
            if isinstance(kind, type) and attrs.has(kind) and kind not in OWN:
                found[f"{kind.__module__}.{kind.__name__}"] = kind
    assert len(found) > 50
    return list(found.values())


def filled(kind: type[Any], value: Any) -> Any:
    """An instance with this value in each field, whatever the class would take."""
    made = object.__new__(kind)
    for one in attrs.fields(kind):
        object.__setattr__(made, one.name, value)
    return made


@pytest.mark.parametrize(
    "value", [LONG, HUGE, (FULL,) * 4_000, {LONG: LONG}, [LONG] * 9, LEDGER, CapillaryError(LONG)], ids=range(7)
)
def test_every_class_of_the_public_face(value: Any) -> None:
    """With fields of whatever size; it begins with the name of the class."""
    for kind in classes():
        shown = repr(filled(kind, value))
        assert len(shown) < 500, kind
        assert shown.startswith(f"{kind.__name__}("), kind


@pytest.mark.parametrize(
    "value",
    [
        FULL,
        LEDGER,
        Outcome(key=1, items=(FULL,) * 4_000),
        Outcome(key=LONG, error=APIError(LONG), warnings=(ApiMessage(1, LONG),) * 50),
        Outcome(key=EventQuery(LONG, 1, 2), items=(LEDGER,) * 100),
        Page((FULL,) * 4_000, 1, request_id=LONG),
        Position(HUGE, HUGE, HUGE),
        Request("GET", f"/{LONG}", headers={"X-A": LONG}),  # type: ignore[arg-type]
        Request("GET", "/", headers={f"X-{number}": "1" for number in range(900)}).headers,  # type: ignore[arg-type]
        Response(200, body=LONG.encode()),
        Identifier.external_id(LONG),
        ApiMessage(1, LONG),
        Unjoined(FULL, LONG),
        HistoryEntry(event_name=LONG, unique_id=LONG, event_log_id=HUGE, allocations=(FULL,) * 4_000),
        History(7, (HistoryEntry(event_name=LONG),) * 4_000, (Unjoined(FULL, LONG),) * 4_000),
        InvalidRequestError(LONG),
        BasicAuth(LONG, password=LONG),
        OAuthClient(LONG, LONG),
        AsyncSession(f"https://{'x' * 3000}.com", auth=BasicAuth(LONG, password=LONG)),
        Answer(200, LONG.encode(), {LONG: LONG}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_users_log(value: object) -> None:
    """Of each kind the largest that comes to mind."""
    assert len(repr(value)) < 500
    assert len(f"{value!r}") < 500
    if not isinstance(value, CapillaryError):
        assert len(str(value)) < 500


def test_pagers_and_fan_outs() -> None:
    """Long arguments are in the names of pagers; an input's length is in that of a fan-out."""
    session = AsyncSession("http://127.0.0.1:1", auth=BasicAuth("till", password="x"))
    pager = session.points_allocation.by_event(entity_id=LONG, customer_id=1, event_type_id=15)
    assert len(repr(pager)) < 500
    assert len(repr(pager.options(start=Position(HUGE, HUGE)))) < 500
    assert len(repr(session.points_allocation.by_event_many([EventQuery(LONG, 1, 2)] * 90))) < 500


def test_a_big_outcome_in_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    """In the time of a short one: what is not shown is not looked at."""
    outcome = Outcome(key=7, items=(FULL,) * 400_000)
    began = time.process_time()
    with caplog.at_level(logging.INFO):
        logging.getLogger("app").info("%s", outcome)
    assert time.process_time() - began < 0.1
    (line,) = caplog.messages
    assert len(line) < 500
    assert line.startswith("Outcome(key=7, items=(PointsAllocation(")
    assert "400000 in all" in line


def test_small_values_show_all_they_have() -> None:
    """As attrs would write them."""
    assert repr(Outcome(key=1)) == "Outcome(key=1, items=(), error=None, warnings=(), pages=0)"
    assert repr(Position(3, 7)) == "Position(page=3, index=7, page_size=None)"
    assert repr(Rate(100, per=60)) == "Rate(permits=100, per=60)"
    assert repr(APIError("no")) == "APIError('no')"
    assert repr(EventQuery("x", 1, 2)) == "EventQuery(entity_id='x', customer_id=1, event_type_id=2)"
    assert repr(LoyaltyEvent(id=5)) == (
        "LoyaltyEvent(id=5, customer_id=None, date=None, event_name=None, org_id=None, status=None, unique_id=None)"
    )


def test_a_record_that_does_not_fit_shows_what_it_has() -> None:
    """Without the fields that are None; what is left out is seen to be."""
    assert repr(RECORD) == (
        "PointsAllocation(id=7, customer_id=600000001, points_exclusive=Decimal('1.500'), status='AVAILABLE')"
    )
    assert "None" not in repr(FULL)
    assert repr(FULL).endswith(", ...)")
    assert repr(LEDGER).startswith("LedgerEvent(event_log_id=1, event_details=EventDetails(")
    assert "..." in repr(LEDGER)


def test_half_made_and_ill_behaved_values() -> None:
    """In tracebacks with locals."""

    class Angry:
        def __repr__(self) -> str:
            raise ValueError("no")

    assert repr(object.__new__(Outcome)).startswith("Outcome(key=None")
    assert "Angry object" in repr(Outcome(key=Angry()))
    assert len(repr(Outcome(key=HUGE))) < 500


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=30) | st.binary(max_size=30) | st.decimals(),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.tuples(inner)
        | st.dictionaries(st.text(max_size=5), inner, max_size=5)
        | st.frozensets(st.integers(), max_size=5)
        | st.sets(st.integers(), max_size=5)
    ),
    max_leaves=40,
)


@given(plain, st.integers(20, 480))
def test_brief_is_the_repr_or_its_beginning(value: Any, room: int) -> None:
    """Never longer than its room; whole where it fits with room to spare."""
    shown = brief(value, room)
    assert len(shown) <= room
    if len(repr(value)) <= room - 30:
        assert shown == repr(value)
    elif len(repr(value)) > room:
        assert "..." in shown


async def test_the_sandbox() -> None:
    """The server and what it remembers."""
    async with Sandbox(customers=3) as sandbox:
        assert len(repr(sandbox)) < 500
        assert len(repr(sandbox.totals())) < 500
