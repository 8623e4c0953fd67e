"""The sandbox keeps the contract: schemathesis makes requests of `openapi.yaml` and judges what the sandbox answers.

Invariant: the requests are the same every time. A status that the contract does not name, an answer that does not fit
its schema or has a member that the contract does not know, a 5xx, and wrong input that is accepted all fail.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    missing_required_header,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from servers import DOCUMENT

from capillary_async.sandbox import ErrorEnvelope, HtmlAnswer, Sandbox, ServerFailure, Throttle

pytestmark = pytest.mark.long
pytest_plugins = ["schemathesis.pytest.plugin"]

CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    ignored_auth,
    missing_required_header,
]


def strict(value: Any) -> Any:
    """The same document, whose objects have the members it names and no other."""
    if isinstance(value, list):
        return [strict(item) for item in value]
    if not isinstance(value, dict):
        return value
    closed = {"additionalProperties": False} if isinstance(value.get("properties"), dict) and "type" in value else {}
    return {**closed, **{name: strict(item) for name, item in value.items()}}


STRICT = {**DOCUMENT, "components": {**DOCUMENT["components"], "schemas": strict(DOCUMENT["components"]["schemas"])}}
schema = schemathesis.openapi.from_dict(STRICT)
schema.config.generation.modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(customers=20, seed=7) as server:
        yield server


def call(sandbox: Sandbox, case: schemathesis.Case) -> Any:
    """What the sandbox answers, judged."""
    auth = (sandbox.username, sandbox.auth._wire_password())
    return case.call_and_validate(base_url=sandbox.url, auth=auth, checks=CHECKS)


SEEN: defaultdict[str, list[Any]] = defaultdict(list)


@pytest.fixture(scope="module", autouse=True)
def control() -> Iterator[None]:
    """Right and wrong requests are made to each operation that is tested here; the others may be another worker's."""
    yield
    both = {GenerationMode.POSITIVE, GenerationMode.NEGATIVE}
    assert [path for path, modes in SEEN.items() if not both <= set(modes)] == []


def test_every_operation_of_the_contract_is_tested() -> None:
    """The control of the next test: schemathesis reads them all."""
    assert {operation.ok().path for operation in schema.get_all_operations()} == set(DOCUMENT["paths"])


@schema.parametrize()
@settings(
    max_examples=12, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)  # fmt: skip
def test_the_sandbox_keeps_the_contract(case: schemathesis.Case, sandbox: Sandbox) -> None:
    """Right and wrong requests to every operation."""
    call(sandbox, case)
    SEEN[case.operation.path].append(case.meta.generation.mode if case.meta else None)


NEO = {"x-cap-neo-dag-scope": "global"}
# The curl lines of the pages, and every flag of the ledger's.
AWARDED = {"start_expiry_date": "2025-06-30", "end_expiry_date": "2026-08-31", "point_category_id": 40022}
AWARDED |= {"program_id": 3379, "entity_id": "388034468,387993857", "status": "AVAILABLE", "org_id": 52011}
SPAN = {"expiry_date_start": "2025-06-01", "expiry_date_end": "2027-06-01"}
LEDGER = {"identifierName": "mobile", "identifierValue": "918088369835", "source": "INSTORE"}
FLAGS = dict.fromkeys(
    (
        *("getBillDetails", "getPointsEarnedBreakup", "getCustomFields", "getExtendedFields"),
        *("getMaxConversionDetails", "getPaymentModes", "includeAlternateCurrencies"),
    ),
    True,
)
PAGES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "awarded": ("/x/neo/pointsAwarded/paIds", {}, AWARDED),
    "by event": (
        "/x/neo/pointsAllocation/event", {}, {"entity_id": "hfjWDK0dek", "customer_id": 374819205, "event_type_id": 15},
    ),
    "by expiry": (
        "/x/neo/pointsAllocation/dateRange", {},
        {**SPAN, "point_category_id": 17383, "program_id": 2282, "entity_id": 383474113},
    ),
    "events": ("/v2/customers/{customerId}/loyaltyEvents", {"customerId": 565039505}, {"limit": 100}),
    "ledger by id": ("/v2/pointsLedger/getLedgerExplodeInfo", {}, {**LEDGER, "eventIds": "634510612"}),
    "ledger by reference": (
        "/v2/pointsLedger/getLedgerExplodeInfo", {},
        {**LEDGER, "eventName": "TransactionAdd", "eventReferenceIds": "888812880"},
    ),
}  # fmt: skip


def ask(sandbox: Sandbox, path: str, parts: dict[str, Any], query: dict[str, Any]) -> Any:
    """A request of our own choice, judged; the rows of its answer."""
    case = schema[path]["GET"].Case(path_parameters=parts, query=query, headers=NEO)
    said = call(sandbox, case).json()
    return said if isinstance(said, list) else said.get("data", said.get("events"))


@pytest.mark.parametrize("name", PAGES)
def test_the_pages_own_calls_are_answered_by_the_contract(sandbox: Sandbox, name: str) -> None:
    """With rows."""
    assert ask(sandbox, *PAGES[name])


def test_everything_the_sandbox_grows_fits_the_contract(sandbox: Sandbox) -> None:
    """Every customer of it: allocations, events of every kind, and the whole ledger with all that hangs on it."""
    names: set[str] = set()
    for customer in sandbox.customer_ids:
        events = ask(sandbox, "/v2/customers/{customerId}/loyaltyEvents", {"customerId": customer}, {"limit": 50})
        names |= {event["eventName"] for event in events}
        ids = ",".join(map(str, sandbox.event_log_ids(customer)[:10]))
        whose = {"identifierName": "CustomerID", "identifierValue": str(customer), "source": "ALL", **FLAGS}
        if ids:
            assert ask(sandbox, "/v2/pointsLedger/getLedgerExplodeInfo", {}, {**whose, "eventIds": ids})
    assert {"TransactionAdd", "PointsRedemption"} <= names


FAULTY: dict[str, dict[str, Any]] = {
    "a status that no page names": {"faults": [ServerFailure(status=501)]},
    "a server error": {"faults": [ServerFailure(status=500)]},
    "HTML under 200": {"faults": [HtmlAnswer(status=200)]},
    "another status for a code": {"v2_error_status": 418},
}


@pytest.mark.parametrize("name", FAULTY)
def test_a_sandbox_that_breaks_the_contract_is_found_out(name: str) -> None:
    """The control: the checks can fail."""
    path = "/v2/customers/{customerId}/loyaltyEvents"
    with Sandbox(customers=1, **FAULTY[name]) as sandbox, pytest.raises(BaseExceptionGroup, match="failure"):
        ask(sandbox, path, {"customerId": 1 if "v2_error_status" in FAULTY[name] else sandbox.customer_ids[0]}, {})


@pytest.mark.parametrize("fault", [Throttle(retry_after=1), ErrorEnvelope(code=500)], ids=["429", "under 200"])
def test_scripted_refusals_are_the_contracts(fault: Any) -> None:
    """Those of the sandbox's faults that the contract names."""
    for path, parts, query in PAGES.values():
        with Sandbox(customers=1, faults=[fault]) as sandbox:
            ask(sandbox, path, parts, query)
