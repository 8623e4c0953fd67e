"""`blocking.Session` has all that `AsyncSession` has, with the same arguments, results and errors."""

from __future__ import annotations

import copy
import inspect
import pickle
import traceback
from typing import TYPE_CHECKING, Any, get_type_hints
from unittest.mock import create_autospec

import pytest
from support.environment import name_cluster

import capillary_async
from capillary_async import (
    AsyncSession,
    BasicAuth,
    EventQuery,
    Identifier,
    InvalidRequestError,
    LedgerQuery,
    NotFoundError,
    Paging,
    RetryPolicy,
    Timeouts,
    blocking,
)
from capillary_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXPIRY = ("program_id", "point_category_id", "expiry_date_start", "expiry_date_end")
RENAMED = {"aclose": "close"}


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(customers=12, whales=1, whale_rows=350) as sandbox:
        yield sandbox


@pytest.fixture
def session(box: Sandbox) -> Iterator[blocking.Session]:
    with blocking.Session(box.url, auth=box.auth) as made:
        yield made


def expiry(box: Sandbox) -> dict[str, Any]:
    """The arguments that show every allocation."""
    return {name: getattr(box, name) for name in EXPIRY}


# -- the same names and arguments


def public(kind: type) -> dict[str, Any]:
    """The members of a class by the name that they have without a loop."""
    names = [name for name in dir(kind) if not name.startswith("_")]
    return {RENAMED.get(name, name): inspect.getattr_static(kind, name) for name in names}


def resources() -> list[tuple[type, type]]:
    """The resource classes, beside those of the blocking session."""
    found = [(name, getattr(AsyncSession, name)) for name in dir(AsyncSession) if not name.startswith("_")]
    return [(kind, getattr(blocking.Session, name)) for name, kind in found if isinstance(kind, type)]


PAIRS = [
    (AsyncSession, blocking.Session),
    (capillary_async.Pager, blocking.Pager),
    (capillary_async.FanOut, blocking.FanOut),
    *resources(),
]


def test_the_pairs_are_all_there() -> None:
    """Four resources, each with a class of its own."""
    assert len({one for pair in resources() for one in pair}) == 8


@pytest.mark.parametrize(("awaited", "plain"), PAIRS)
def test_each_member_has_its_counterpart(awaited: type, plain: type) -> None:
    """A new method cannot be forgotten, and there is none that the other class does not have."""
    assert set(public(plain)) == set(public(awaited))
    for name, member in public(awaited).items():
        other = inspect.getattr_static(plain, name)
        if inspect.isfunction(member):
            assert inspect.signature(other).parameters == inspect.signature(member).parameters, name
            assert inspect.getdoc(other), name


def test_attributes_have_the_types_of_the_session() -> None:
    """Each property, by the hint of its getter."""
    for name, member in public(AsyncSession).items():
        if isinstance(member, property):
            (kind,) = inspect.getattr_static(blocking.Session, name).__orig_class__.__args__
            assert kind == get_type_hints(member.fget)["return"], name
            assert inspect.getattr_static(blocking.Session, name).__doc__ == member.__doc__


def test_the_signature_of_the_session() -> None:
    """Keyword by keyword, defaults included; hints resolve at run time."""
    assert inspect.signature(blocking.Session).parameters == inspect.signature(AsyncSession).parameters
    assert get_type_hints(blocking.Session.__init__) == get_type_hints(AsyncSession.__init__)
    assert get_type_hints(blocking.Pager.page)
    assert get_type_hints(blocking.Session.points_allocation.by_expiry)
    assert blocking.Session.__module__ == blocking.Pager.__module__ == "capillary_async.blocking"


def test_a_double_has_the_endpoints(session: blocking.Session) -> None:
    """Of the class and of a session; what is patched on a session's endpoint stays patched."""
    assert create_autospec(session).points_allocation.by_expiry
    assert session.points_allocation is session.points_allocation
    double = create_autospec(blocking.Session, instance=True)
    double.points_allocation.by_expiry.return_value = [1]
    assert double.points_allocation.by_expiry(entity_id=7, **dict.fromkeys(EXPIRY)) == [1]
    with pytest.raises(AttributeError):
        double.points_allocation.nothing()


# -- the same results


def test_lists(session: blocking.Session, box: Sandbox) -> None:
    """A plain `for`, whole pages, one page, the first record, all, and options."""
    (whale,) = box.whale_ids
    wanted = [row["id"] for row in box.allocations(whale)]
    pager = session.points_allocation.by_expiry(entity_id=whale, **expiry(box))
    assert [one.id for one in pager] == [one.id for one in pager] == wanted
    assert [one.id for one in pager.collect()] == [one.id for one in pager.collect(verify=True)] == wanted
    assert [one.id for page in pager.pages() for one in page] == wanted
    assert [len(page) for page in pager.options(page_size=90, prefetch=0).pages()] == [90, 90, 90, 80]
    assert [one.id for one in pager.page(2)] == wanted[100:200]
    assert pager.first().id == wanted[0]
    assert [one.id for one in pager.options(max_items=130)] == wanted[:130]
    first = next(iter(pager.pages()))
    assert [one.id for one in pager.options(start=first.position)] == wanted[100:]
    assert pager.options(max_items=0).first() is None


def test_fan_outs(session: blocking.Session, box: Sandbox) -> None:
    """Outcomes as they come and in order, records, pages, all, and options."""
    ids = list(box.customer_ids)
    wanted = {one: [row["id"] for row in box.allocations(one)] for one in ids}
    fan = session.points_allocation.by_expiry_many(ids, **expiry(box))
    assert {one.key: [record.id for record in one.items] for one in fan} == wanted
    assert [one.key for one in fan.ordered()] == ids
    assert sorted(one.id for one in fan.items()) == sorted(one for ids in wanted.values() for one in ids)
    pages: dict[int, list[int]] = {}
    for key, page in fan.options(concurrency=2).pages():
        pages.setdefault(key, []).extend(one.id for one in page)
    assert pages == wanted
    assert {key: [record.id for record in one.items] for key, one in fan.collect().items()} == wanted
    assert len(fan.options(unique=False, paging=Paging(page_size=50)).collect()) == len(ids)
    assert {one.key for one in session.points_allocation.by_expiry_many(iter(ids), **expiry(box))} == set(ids)


def test_each_endpoint(session: blocking.Session, box: Sandbox) -> None:
    """Every call of every resource gives what the sandbox has."""
    customer = box.customer_ids[1]
    events = session.loyalty_events.list(customer).collect()
    assert {one.id for one in events}
    assert {one.key for one in session.loyalty_events.list_many([customer])} == {customer}
    (allocated, *_) = session.points_allocation.by_expiry(entity_id=customer, **expiry(box))
    query = EventQuery(allocated.points_source_id, customer, allocated.event_type_id)
    assert session.points_allocation.by_event_many([query]).collect()[query].error is None
    assert session.points_allocation.by_event(
        entity_id=query.entity_id, customer_id=customer, event_type_id=query.event_type_id
    ).collect() == list(session.points_allocation.by_event_many([query]).items())
    awarded = session.points_awarded.ids(
        [customer],
        program_id=box.program_id,
        point_category_id=box.point_category_id,
        start_expiry_date=box.expiry_date_start,
        end_expiry_date=box.expiry_date_end,
        status="AVAILABLE",
    )
    assert all(one.customer_id == customer for one in awarded.items())
    given: dict[str, Any] = {"identifier": Identifier.customer_id(customer), "source": "INSTORE"}
    given["event_ids"] = [allocated.event_log_id]
    assert session.points_ledger.explode(**given).first().event_log_id == allocated.event_log_id
    ledger = LedgerQuery(**given)
    assert session.points_ledger.explode_many([ledger]).collect()[ledger].error is None


def test_requests_history_and_stats(session: blocking.Session, box: Sandbox) -> None:
    customer = box.customer_ids[2]
    history = session.history(customer, **expiry(box))
    assert history.entries
    rows = session.request("GET", f"/v2/customers/{customer}/loyaltyEvents", params={"page": 1})
    assert rows
    assert session.stats.requests > 4
    assert (session.closed, session.base_url, session.paging, session.priority) == (False, box.url, Paging(), None)


def test_tables(session: blocking.Session, box: Sandbox, tmp_path: Path) -> None:
    """Arrow, polars, pandas, Parquet and batches, of a list and of a fan-out."""
    pq = pytest.importorskip("pyarrow.parquet")
    (whale,) = box.whale_ids
    pager = session.points_allocation.by_expiry(entity_id=whale, **expiry(box))
    fan = session.points_allocation.by_expiry_many(box.customer_ids, **expiry(box))
    rows = sum(len(box.allocations(one)) for one in box.customer_ids)
    assert pager.to_arrow(["id"])["id"].to_pylist() == [one.id for one in pager]
    assert fan.to_arrow().num_rows == fan.to_polars().height == len(fan.to_pandas()) == rows
    table, failures = fan.to_arrow(partial=True)
    assert (table.num_rows, failures) == (rows, {})
    assert fan.to_parquet(tmp_path / "fan.parquet") == pq.read_metadata(tmp_path / "fan.parquet").num_rows == rows
    assert [batch.num_rows for batch in pager.batches(200)] == [200, 150]
    with pytest.raises(InvalidRequestError, match="columns takes names"):
        pager.batches(columns=["nothing"])


def test_views_share_the_session(session: blocking.Session, box: Sandbox) -> None:
    """A view has the stats, the connections and the thread of its session; closing it closes nothing else."""

    class Brand(blocking.Session):
        """A user's own session."""

    with Brand(box.url, auth=box.auth, headers={"X-Brand": "one"}) as brand:
        brand.region = "eu"
        view = brand.with_options(timeouts=Timeouts(call=50), priority="bulk")
        assert isinstance(view, Brand)
        assert (view.region, view.timeouts.call, brand.timeouts.call, view.priority) == ("eu", 50, 180, "bulk")
        before = brand.stats.requests
        view.loyalty_events.list(box.customer_ids[0]).first()
        assert view.stats.requests == brand.stats.requests == before + 1
        view.close()
        assert (view.closed, brand.closed) == (True, False)
        with pytest.raises(RuntimeError, match="closed"):
            view.loyalty_events.list(box.customer_ids[0]).first()
        assert brand.loyalty_events.list(box.customer_ids[0]).first()


def test_from_env(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    name_cluster(monkeypatch, box.url, box.username, box.password)
    with blocking.Session.from_env(retry=RetryPolicy(attempts=1)) as session:
        assert session.retry.attempts == 1
        assert session.loyalty_events.list(box.customer_ids[0]).first()
    monkeypatch.delenv("CAPILLARY_BASE_URL")
    with pytest.raises(InvalidRequestError, match="CAPILLARY_BASE_URL"):
        blocking.Session.from_env()


# -- the same errors


def test_errors_are_those_of_the_calls(session: blocking.Session, box: Sandbox) -> None:
    """Their class, their members, and a traceback that shows the user's line and where they arose."""
    with pytest.raises(NotFoundError) as caught:
        session.request("GET", "/v2/nothing")
    assert (caught.value.status, caught.value.path) == (404, "/v2/nothing")
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames[0] == "test_errors_are_those_of_the_calls"
    assert {"request", "call"} < set(frames)
    with pytest.raises(capillary_async.CustomerNotFoundError) as failed:
        session.loyalty_events.list(box.unknown_id).collect()
    assert failed.value.position is not None
    fan = session.loyalty_events.list_many([box.unknown_id, box.customer_ids[0]])
    assert isinstance(fan.collect()[box.unknown_id].error, capillary_async.CustomerNotFoundError)
    with pytest.raises(capillary_async.CustomerNotFoundError):
        list(fan.items())


def test_invalid_arguments_are_refused_at_once(session: blocking.Session) -> None:
    """Before the first request, where the call is made."""
    before = session.stats.requests
    for call in (
        lambda: session.loyalty_events.list(-1),
        lambda: session.loyalty_events.list_many("12"),
        lambda: session.loyalty_events.list(1).options(page_size=0),
        lambda: session.with_options(headers={"A b": "c"}),
        lambda: session.request("POST", "/x"),
        lambda: blocking.Session("http://example.com", auth=BasicAuth("till", password="p")),
    ):
        with pytest.raises(InvalidRequestError):
            call()
    with pytest.raises(TypeError, match="unexpected keyword"):
        session.loyalty_events.list(1, customers=2)
    assert session.stats.requests == before


def test_sessions_are_not_pickled(session: blocking.Session) -> None:
    """The error names what to do instead, as that of `AsyncSession` does."""
    for work in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="Session is not pickled: make one in each process"):
            work(session)
    with pytest.raises(TypeError, match="Pager is not pickled"):
        pickle.dumps(session.loyalty_events.list(1))


def test_no_secret_is_shown() -> None:
    """Neither in reprs nor in the locals of the frames that raise."""
    secret = "s3cret-" + "x"
    session = blocking.Session("https://eu.api.capillarytech.com", auth=BasicAuth("till", password=secret))
    assert secret not in repr(session)
    assert secret not in repr(session.loyalty_events.list(1))
    headers, invalid = {"X-Key": secret}, "http://no.tls"
    for call in (
        lambda: session.with_options(headers=headers, priority="no such"),
        lambda: blocking.Session(invalid, auth=session._inner._auth, headers=headers),
        lambda: blocking.Session.from_env(base_url=invalid, auth=session._inner._auth, headers=headers),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            call()
        inner = caught.value.with_traceback(caught.value.__traceback__.tb_next.tb_next)  # without this test's frames
        shown = "".join(traceback.TracebackException.from_exception(inner, capture_locals=True).format())
        assert "blocking/_session.py" in shown
        assert secret not in shown
    session.close()
