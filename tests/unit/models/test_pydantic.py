"""Records, pages and outcomes in pydantic models and FastAPI routes: exact, described, and both ways."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Annotated, Any

import cattrs
import msgspec
import pytest

pytest.importorskip("pydantic")
pytest.importorskip("fastapi")

from fastapi import Body, FastAPI
from httpx import ASGITransport, AsyncClient
from pydantic import BaseModel, TypeAdapter, ValidationError

from capillary_async import (
    ApiMessage,
    LedgerEvent,
    LoyaltyEvent,
    NotFoundError,
    Outcome,
    Page,
    PointsAllocation,
    PointsAwarded,
)
from capillary_async.models import BillDetails, LineItem

EXACT = Decimal("12345678901234.567")
RECORD = PointsAllocation(
    id=1, customer_id=5, points_exclusive=EXACT, redeemed_exclusive_value=Decimal("0.500"),
    returned_exclusive_value=Decimal(0), expired_exclusive_value=Decimal(0), awarded_date=1748716199000,
)  # fmt: skip
JSON = {"content-type": "application/json"}
EVENT = LoyaltyEvent(id=3, customer_id=5)


class Answer(BaseModel):
    """What a service answers."""

    page: Page[LoyaltyEvent]
    best: PointsAllocation | None = None


app = FastAPI()


@app.get("/allocations")
def allocations() -> list[PointsAllocation]:
    """A list of records."""
    return [RECORD]


@app.get("/answer")
def answer() -> Answer:
    """A model with a page."""
    return Answer(page=Page((EVENT,), 1, "r-1", (ApiMessage(None, "dropped"),)), best=RECORD)


@app.get("/outcomes")
def outcomes() -> list[Outcome[int, PointsAllocation]]:
    """A failed key beside another."""
    return [Outcome(5, (RECORD,), pages=1), Outcome(6, error=NotFoundError("no such customer"))]


@app.post("/echo")
def echo(record: Annotated[PointsAllocation, Body()]) -> PointsAllocation:
    """A record that came."""
    return record


async def asked(method: str, path: str, **options: Any) -> Any:
    """An answer of the application."""
    async with AsyncClient(transport=ASGITransport(app), base_url="http://app") as client:
        return await client.request(method, path, **options)


async def test_a_route_answers_with_records() -> None:
    """Amounts exact as text, times as ISO 8601, derived values too: the row of the command line."""
    got = await asked("GET", "/allocations")
    assert got.status_code == 200
    assert got.json() == [json.loads(RECORD.to_json())]
    assert got.json()[0]["points_exclusive"] == "12345678901234.567"
    assert got.json()[0]["remaining"] == "12345678901234.067"
    assert got.json()[0]["awarded_at"] == "2025-05-31T18:29:59Z"


async def test_a_model_with_a_page() -> None:
    """What users see of a page; nothing private."""
    got = (await asked("GET", "/answer")).json()
    assert got["page"] == {
        "items": [json.loads(EVENT.to_json())],
        "number": 1,
        "request_id": "r-1",
        "warnings": [{"code": None, "message": "dropped"}],
        "status": 200,
        "elapsed": 0.0,
        "last": False,
    }
    assert got["best"]["points_exclusive"] == "12345678901234.567"


async def test_an_outcome_with_an_error() -> None:
    """Its type and its text."""
    first, second = (await asked("GET", "/outcomes")).json()
    assert (first["key"], first["error"], len(first["items"])) == (5, None, 1)
    assert second["error"] == {"type": "NotFoundError", "message": "no such customer"}


async def test_a_record_comes_as_it_left() -> None:
    """Text, exactly; a float is refused, since it may be rounded already."""
    got = await asked("POST", "/echo", content=RECORD.to_json(), headers=JSON)
    assert got.json() == json.loads(RECORD.to_json())
    refused = await asked("POST", "/echo", content=b'{"points_exclusive": 0.1}', headers=JSON)
    assert refused.status_code == 422
    assert "a float may have been rounded" in refused.text


def test_the_schema_is_described() -> None:
    """OpenAPI has every field, with its type."""
    schemas = app.openapi()["components"]["schemas"]
    left = schemas["PointsAllocation-Output"]["properties"]
    assert {"id", "points_exclusive", "remaining", "expires_at"} <= set(left)
    assert left["points_exclusive"]["anyOf"][0]["type"] == "string" or "anyOf" in left["points_exclusive"]["anyOf"][0]
    assert "remaining" not in schemas["PointsAllocation-Input"]["properties"]
    assert schemas["Answer"]["properties"]["page"]["title"] == "Page"


def test_python_values_stay_as_they_are() -> None:
    """`model_dump` gives what `to_dict` gives."""
    dumped = Answer(page=Page((EVENT,), 1), best=RECORD).model_dump()
    assert dumped["best"] == RECORD.to_dict()
    assert dumped["best"]["points_exclusive"] == EXACT
    assert dumped["page"]["items"] == (EVENT.to_dict(),)


@pytest.mark.parametrize(
    "record",
    [RECORD, EVENT, PointsAwarded(id=1), LedgerEvent(bill_details=BillDetails(line_items=(LineItem(rate=EXACT),)))],
)
def test_each_model_is_accepted(record: Any) -> None:
    """An instance stays itself; its JSON, and its object, give one that is equal."""
    adapter = TypeAdapter(type(record))
    assert adapter.validate_python(record) is record
    assert adapter.validate_json(adapter.dump_json(record)) == record
    assert adapter.validate_json(record.to_json()) == record
    assert adapter.json_schema(mode="serialization")["title" if "title" in adapter.json_schema() else "$ref"]


@pytest.mark.parametrize("value", [5, "text", [], {"points_exclusive": 0.5}, {"points_exclusive": "x"}, {"id": "x"}])
def test_other_values_are_refused(value: Any) -> None:
    """In pydantic's own way."""
    with pytest.raises(ValidationError):
        TypeAdapter(PointsAllocation).validate_python(value)


def test_other_libraries_take_records_too() -> None:
    """Msgspec and cattrs, exactly."""
    assert json.loads(msgspec.json.encode(RECORD))["points_exclusive"] == "12345678901234.567"
    assert msgspec.convert(msgspec.to_builtins(RECORD), PointsAllocation) == RECORD
    assert cattrs.Converter().unstructure(RECORD)["points_exclusive"] == EXACT
