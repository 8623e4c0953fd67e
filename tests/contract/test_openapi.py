"""`openapi.yaml` itself: it is valid, and it says what the models, enums and the benchmarks' description say."""

import re
from pathlib import Path
from typing import Any

import attrs
import pytest
import yaml
from openapi_spec_validator import validate
from servers import DOCUMENT

from capillary_async import EventName, EventType, PointsStatus, models
from capillary_async.models import points_ledger

SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
BENCHMARKS: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "benchmarks" / "openapi.yaml").read_text())
RECORDS = {name: getattr(models, name) for name in ("PointsAwarded", "PointsAllocation", "LoyaltyEvent")}
RECORDS |= {name: getattr(points_ledger, name) for name in points_ledger.__all__}


def camel(name: str) -> str:
    """A field's name on the wire of the v2 APIs."""
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), name).replace("Iso", "ISO")


def wire_names(model: type) -> set[str]:
    """The members that a model reads."""
    plain = model.__name__ in ("PointsAwarded", "PointsAllocation")
    fields = [field for field in attrs.fields(model) if field.name != "extra"]
    return {field.metadata.get("wire") or (field.name if plain else camel(field.name)) for field in fields}


def parameters(document: dict[str, Any], path: str) -> dict[str, bool]:
    """The names of a GET's parameters, and whether they must be sent; headers left out."""
    known = document.get("components", {}).get("parameters", {})
    listed = document["paths"][path]["get"]["parameters"]
    found = [known[one["$ref"].rsplit("/", 1)[-1]] if "$ref" in one else one for one in listed]
    return {one["name"]: one.get("required", False) for one in found if one["in"] != "header"}


def test_it_is_valid() -> None:
    """As OpenAPI 3.1, every default and reference included."""
    validate(DOCUMENT)


@pytest.mark.parametrize("name", RECORDS)
def test_every_model_has_the_members_of_its_schema(name: str) -> None:
    """No more and no fewer."""
    assert wire_names(RECORDS[name]) == set(SCHEMAS[name]["properties"])


@pytest.mark.parametrize("name", RECORDS)
def test_any_member_of_a_record_may_be_null_or_absent(name: str) -> None:
    """The pages do not publish nullability."""
    assert "required" not in SCHEMAS[name]
    assert [member for member, schema in SCHEMAS[name]["properties"].items() if not nullable(schema)] == []


def nullable(schema: dict[str, Any]) -> bool:
    """Whether null fits."""
    if "$ref" in schema:
        return nullable(SCHEMAS[schema["$ref"].rsplit("/", 1)[-1]])
    branches = schema.get("oneOf", []) + schema.get("anyOf", [])
    return "null" in schema.get("type", ()) or any(map(nullable, branches))


def test_enums_are_those_of_the_package() -> None:
    """The pages' lists stand in both."""
    awarded = DOCUMENT["paths"]["/x/neo/pointsAwarded/paIds"]["get"]["parameters"]
    status = next(one for one in awarded if one.get("name") == "status")["schema"]
    assert status["enum"] == [str(value) for value in PointsStatus]
    assert SCHEMAS["LedgerEventName"]["enum"] == [str(value) for value in EventName]
    by_event = DOCUMENT["paths"]["/x/neo/pointsAllocation/event"]["get"]["parameters"]
    kind = next(one for one in by_event if one.get("name") == "event_type_id")["schema"]
    assert (kind["minimum"], kind["maximum"]) == (min(EventType), max(EventType))


def test_the_benchmarks_describe_the_same_endpoints() -> None:
    """Their description is cut down for one generator; it may say less, and nothing else."""
    for path in BENCHMARKS["paths"]:
        assert parameters(BENCHMARKS, path) == parameters(DOCUMENT, path)
    for name, schema in BENCHMARKS["components"]["schemas"].items():
        if name in RECORDS:
            assert set(schema["properties"]) <= set(SCHEMAS[name]["properties"])
    assert set(BENCHMARKS["paths"]) == {path for path, item in DOCUMENT["paths"].items() if "get" in item}
