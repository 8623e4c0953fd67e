"""What tools see of the public face: hints that resolve, doubles with the endpoints, no name beyond the list."""

from __future__ import annotations

import importlib
import inspect
import re
import typing
from enum import Enum
from typing import TYPE_CHECKING, Any, get_type_hints
from unittest.mock import Mock, create_autospec

import attrs
import pytest

import capillary_async
from capillary_async import AsyncSession, BasicAuth, CapillaryError, FanOut, Pager, Paging, Timeouts
from capillary_async._fanout.iterator import FanOutIterator
from capillary_async._paging.iterators import ItemIterator, PageIterator
from capillary_async.endpoints import PointsAllocationResource, PointsAwardedResource, PointsLedgerResource
from capillary_async.models._record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

FACES = ("capillary_async", "auth", "endpoints", "errors", "jobs", "models", "sandbox")
GIVEN_OUT = (PageIterator, ItemIterator, FanOutIterator)
CALLS = {
    "points_awarded": {"ids"},
    "points_allocation": {"by_event", "by_event_many", "by_expiry", "by_expiry_many"},
    "loyalty_events": {"list", "list_many"},
    "points_ledger": {"explode", "explode_many"},
}
# What has no underscore, users may use. Fields of data need no entry here, and their class has to document them.
TABLES = {"batches", "to_arrow", "to_pandas", "to_parquet", "to_polars"}
USERS = {
    "AsyncSession": {
        "aclose", "base_url", "closed", "from_env", "history", "limits", "paging", "ping", "priority", "request",
        "retry", "server_timezone", "stats",
        "timeouts", "with_options", *CALLS,
    },
    "EventDetails": {"redemptions"},
    "ExportPlan": {"lines"},
    "ExportProgress": {"left", "rate"},
    "FanOut": {"collect", "items", "options", "ordered", "pages", *TABLES},
    "FanOutIterator": {"aclose"},
    "Identifier": {"customer_id", "email", "external_id", "id", "mobile", "primary_user_id"},
    "LoyaltyEventsResource": CALLS["loyalty_events"],
    "Outcome": {"error", "items", "key", "ok", "pages", "unwrap", "warnings"},
    "Page": {
        "elapsed", "items", "last", "number", "position", "position_behind", "request_id", "status", "warnings",
    },
    "PageIterator": {"aclose", "position"},
    "Pager": {"collect", "first", "options", "page", "pages", *TABLES},
    "PointsDeduction": {"award_key"},
    "PointsReport": {"lines"},
    "PublishResult": {"lines"},
    "ReconcileResult": {"broken", "kept", "lines", "verdict"},
    "Request": {"with_header"},
    "Response": {"request_id"},
    "VerifyResult": {"ok"},
    "PointsAllocationResource": CALLS["points_allocation"],
    "PointsAwardedResource": CALLS["points_awarded"],
    "PointsLedgerResource": CALLS["points_ledger"],
    "Position": {"index", "page", "page_size"},
    "ItemIterator": {"aclose", "position"},
    "Stats": {
        *("bytes", "duplicates", "gate", "in_flight", "limit", "queued", "records", "requests", "retries"),
        *("snapshot", "throttles"),
    },
}  # fmt: skip


def public_values() -> Iterator[tuple[str, Any]]:
    """Every name that users may import, and what they are given."""
    for face in FACES:
        module = importlib.import_module(face if face == "capillary_async" else f"capillary_async.{face}")
        yield from ((f"{face}.{name}", getattr(module, name)) for name in module.__all__)
    yield from ((kind.__name__, kind) for kind in GIVEN_OUT)


def functions_of(value: Any) -> Iterator[tuple[str, Any]]:
    """What of it has hints: itself, and of a class its methods and properties, ours among those of its bases too."""
    if isinstance(value, type):
        yield value.__name__, value
        ours = [base for base in value.__mro__ if base.__module__.startswith("capillary_async")]
        for name, member in ((name, member) for base in ours for name, member in vars(base).items()):
            function = getattr(member, "fget", None) or getattr(member, "__func__", member)
            if inspect.isfunction(function):
                yield f"{value.__name__}.{name}", function
    elif callable(value):
        yield value.__name__, value


def test_hints_resolve_at_run_time() -> None:
    """As typer, pydantic, FastAPI, attrs.resolve_types and documentation tools resolve them."""
    for name, where, function in ((name, *found) for name, value in public_values() for found in functions_of(value)):
        try:
            hints = get_type_hints(function)
        except (NameError, TypeError) as error:
            pytest.fail(f"{name}: {where}: {error}")
        assert not [hint for hint in hints.values() if isinstance(hint, str)], (name, where)


def test_hints_name_what_checkers_see() -> None:
    """Not `Any` in place of what would be hard to import."""
    hints = get_type_hints(AsyncSession.with_options)
    assert hints["return"] is typing.Self
    assert hints["timeouts"] == Timeouts | None
    assert get_type_hints(PointsLedgerResource.explode)["return"] == Pager[capillary_async.LedgerEvent]
    assert get_type_hints(PointsAwardedResource.ids)["return"] == FanOut[int, capillary_async.PointsAwarded]


@pytest.mark.parametrize("instance", [False, True])
def test_a_double_has_the_endpoints(*, instance: bool) -> None:
    """Of the class, of an instance, and of what calling the class gives: with the signatures of their calls."""
    double = create_autospec(AsyncSession, instance=instance)
    session = double if instance else double("https://eu.api.capillarytech.com", auth=Mock())
    for endpoint, calls in CALLS.items():
        for call in calls:
            assert callable(getattr(getattr(session, endpoint), call))
            assert callable(getattr(getattr(double, endpoint), call))
    session.loyalty_events.list.return_value.first.return_value = 7
    assert session.loyalty_events.list(565039505, event_type="EARN").first() == 7
    with pytest.raises(TypeError):
        session.loyalty_events.list()
    with pytest.raises(TypeError):
        session.points_allocation.by_expiry(customer_id=1)
    with pytest.raises(AttributeError):
        session.points_allocation.by_expiri  # noqa: B018


async def test_a_double_of_a_session_that_is_there() -> None:
    """The same of an object, as `patch(..., autospec=True)` makes it."""
    async with AsyncSession("http://127.0.0.1:1", auth=BasicAuth("till", password="x")) as session:
        double = create_autospec(session)
        assert {call for call in dir(double.points_allocation) if call[0].isalpha()} >= CALLS["points_allocation"]
        double.request.return_value = {"id": 1}
        assert await double.request("GET", "/v2/customers/1") == {"id": 1}
        with pytest.raises(TypeError):
            await double.request()
        assert session.points_allocation is session.points_allocation, "a method patched on it stays patched"
    assert AsyncSession.points_allocation is PointsAllocationResource


KINDS = {
    kind.__name__: kind
    for name, kind in public_values()
    if isinstance(kind, type) and not issubclass(kind, Enum) and not name.startswith("sandbox.")
}


def face(kind: type) -> tuple[set[str], set[str], str]:
    """The public fields of a class, its other public members, and its docstring, with those of its bases of ours."""
    ours = [base for base in kind.__mro__ if base.__module__.startswith("capillary_async")]
    members = {name for base in ours for name in vars(base)}
    fields = {name for base in ours for name in vars(base).get("__annotations__", ())}
    if attrs.has(kind):
        fields |= set(attrs.fields_dict(kind))
    public = {name for name in members | fields if not name.startswith("_")}
    return public & fields, public - fields, " ".join(base.__doc__ or "" for base in ours)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_no_name_is_public_by_accident(name: str) -> None:
    """A new method or property is added to `USERS` deliberately; a new field is in the docstring of its class."""
    kind = KINDS[name]
    fields, others, documented = face(kind)
    expected = USERS.get(name, set())
    if issubclass(kind, CapillaryError):
        expected = expected | {"concerns_all_keys", "is_definitive", "lacks_answer", "message"}
    if issubclass(kind, Record):
        expected = expected | {"to_dict", "to_json", *kind._derived}
    assert others == expected - fields
    assert expected & fields == USERS.get(name, set()) - others
    assert not [field for field in fields - expected if not re.search(rf"\b{field}\b", documented)]


def test_users_names_public_classes() -> None:
    """Nothing in the list is there for a class that is gone."""
    assert set(USERS) <= set(KINDS)


class Brand(AsyncSession):
    """A user's own session."""

    def __init__(self, name: str) -> None:
        super().__init__("http://127.0.0.1:1", auth=BasicAuth("till", password="x"))
        self.name = name


async def test_a_view_of_a_subclass_is_one() -> None:
    """With what the subclass keeps in its instances; the endpoints are those of the view."""
    async with Brand("acme") as session:
        view = session.with_options(paging=Paging(page_size=7))
        again = view.with_options(timeouts=Timeouts(call=5))
        assert (type(view), view.name, type(again), again.name) == (Brand, "acme", Brand, "acme")
        assert (view.paging.page_size, again.paging.page_size, session.paging.page_size) == (7, 7, 100)
        assert view.points_allocation is not session.points_allocation
        assert view.points_allocation._caller.paging.page_size == 7
        assert session.points_allocation._caller.paging.page_size == 100


def test_from_env_makes_the_subclass(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a classmethod does."""
    monkeypatch.setenv("CAPILLARY_BASE_URL", "https://eu.api.capillarytech.com")
    monkeypatch.setenv("CAPILLARY_USERNAME", "till")
    monkeypatch.setenv("CAPILLARY_PASSWORD", "x")

    class Mine(AsyncSession):
        pass

    assert type(Mine.from_env()) is Mine
