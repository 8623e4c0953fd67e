"""What the SDK sends and how it reads what comes, judged by Prism, which serves `openapi.yaml` and knows nothing of us.

Prism checks every request and every answer against the contract, and names each violation in a header of its answer.
"""

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import yaml
from servers import DOCUMENT, prism_command, serving

from capillary_async import (
    APIError,
    AsyncSession,
    AuthenticationError,
    BadRequestError,
    BasicAuth,
    CustomerNotFoundError,
    EventName,
    EventQuery,
    EventType,
    Identifier,
    LedgerInclude,
    LedgerRequestError,
    MergedCustomerError,
    NotFoundError,
    OAuthClient,
    PermissionDeniedError,
    PointsStatus,
    RateLimitedError,
    RetryPolicy,
    ServerError,
)

pytestmark = pytest.mark.long
pytest_plugins = ["contract_fixtures"]

SAMPLES = Path(__file__).parents[1] / "samples"
TOKEN_PATH = "/v3/oauth/token/generate"
READS = [path for path in DOCUMENT["paths"] if path != TOKEN_PATH]
# Each makes up other answers: arrays of all lengths, nulls everywhere, rows and refusals.
SEEDS = ("4", "12", "2")
# The members of rows that say whose they are.
OWNERS = [
    ("PointsAwarded", "customer_id"),
    ("PointsAllocation", "customer_id"),
    ("PointsAllocation", "original_customer_id"),
    ("LoyaltyEvent", "customerId"),
]

Ask = Callable[[AsyncSession], Awaitable[Any]]


class Judged:
    """What Prism said of the requests of one test."""

    def __init__(self) -> None:
        self.violations: list[Any] = []
        self.sent: list[tuple[str, str, frozenset[str]]] = []

    def client(self) -> aiohttp.ClientSession:
        """A client whose answers are looked at, whatever the SDK makes of them."""
        trace = aiohttp.TraceConfig()

        async def ended(_: object, __: object, end: aiohttp.TraceRequestEndParams) -> None:
            self.sent.append((end.method, end.url.path, frozenset([*end.url.query, *map(str.lower, end.headers)])))
            self.violations += json.loads(end.response.headers.get("sl-violations", "[]"))

        trace.on_request_end.append(ended)
        return aiohttp.ClientSession(trace_configs=[trace], auto_decompress=False, trust_env=False)


@pytest.fixture
async def judged() -> Judged:
    return Judged()


@pytest.fixture
async def at(judged: Judged) -> AsyncIterator[Callable[..., AsyncSession]]:
    """Sessions whose requests are judged; nothing is tried again."""
    async with judged.client() as client:

        def make(url: str, prefer: str = "", accept: str = "", **options: Any) -> AsyncSession:
            headers = {**({"Prefer": prefer} if prefer else {}), **({"Accept": accept} if accept else {})}
            given: dict[str, Any] = {"auth": BasicAuth("till", password="p4ss"), "retry": RetryPolicy(attempts=1)}
            given |= {"client_session": client, **options}
            given["headers"] = {**headers, **options.get("headers", {})} or None
            return AsyncSession(url, **given)

        yield make


# --- what is sent -----------------------------------------------------------------------------------------------------

SPAN: dict[str, Any] = {"program_id": 2282, "point_category_id": 17383}
AWARDED: dict[str, Any] = {**SPAN, "start_expiry_date": date(2025, 6, 30), "end_expiry_date": "2026-08-31"}
EXPIRY: dict[str, Any] = {**SPAN, "expiry_date_start": "2025-06-01", "expiry_date_end": date(2027, 6, 1)}
EVERYTHING = LedgerInclude(
    bill_details=True,
    points_earned_breakup=True,
    custom_fields=True,
    extended_fields=True,
    max_conversion_details=True,
    payment_modes=True,
    alternate_currencies=True,
)
IDENTIFIERS = (
    Identifier.mobile("918088369835"),
    Identifier.mobile("+91 80883 69835"),
    Identifier.email("jo+points@example.com"),
    Identifier.external_id("a/b?c=d&e#f"),
    Identifier.customer_id(37195406289),
    Identifier.id(1),
    Identifier.primary_user_id("7"),
)


def awarded(ids: Any = (388034468, 387993857), **more: Any) -> Ask:
    return lambda session: session.points_awarded.ids(
        ids, **{**AWARDED, "status": PointsStatus.AVAILABLE, **more}
    ).collect()


def by_event(**more: Any) -> Ask:
    given: dict[str, Any] = {"entity_id": "hfjWDK0dek", "customer_id": 374819205, "event_type_id": 15, **more}
    return lambda session: session.points_allocation.by_event(**given).collect()


def events(**more: Any) -> Ask:
    return lambda session: session.loyalty_events.list(565039505, **more).collect()


def explode(identifier: Identifier = IDENTIFIERS[0], **more: Any) -> Ask:
    given: dict[str, Any] = {"event_ids": [634510612], **more}
    return lambda session: session.points_ledger.explode(identifier=identifier, source="INSTORE", **given).collect()


def referred(**more: Any) -> Ask:
    given = {"event_name": EventName.TRANSACTION_ADD, "event_reference_ids": ["888812880"], **more}
    return explode(event_ids=None, **given)


CALLS: dict[str, Ask] = {
    "awarded": awarded(),
    "awarded: one": awarded([1]),
    "awarded: big ids": awarded([37195406289, 2**53 - 1]),
    "awarded: organisation": awarded(org_id=52011),
    "awarded: in batches": awarded(range(1, 120), batch_size=50),
    "awarded: a day": awarded(start_expiry_date="2025-06-30", end_expiry_date="2025-06-30"),
    **{f"awarded: {status}": awarded(status=status) for status in PointsStatus},
    "by_event: text": by_event(),
    "by_event: number": by_event(entity_id=890697432),
    "by_event: request id": by_event(entity_id="fb98ae16-668d-4c48-826b-1c13fa5344e7"),
    "by_event: odd text": by_event(entity_id="a/b?c=d&e#f%2e + ü"),
    "by_event: first type": by_event(event_type_id=EventType.NEW_BILL),
    "by_event: last type": by_event(event_type_id=EventType.TIER_RENEW_EVENT),
    "by_event_many": lambda session: session.points_allocation.by_event_many(
        [EventQuery("a", 1, 15), EventQuery(2, 2, 16)]
    ).collect(),
    "by_expiry": lambda session: session.points_allocation.by_expiry(entity_id=383474113, **EXPIRY).collect(),
    "by_expiry: small pages": lambda session: (
        session.points_allocation.by_expiry(entity_id=383474113, **EXPIRY).options(page_size=1, max_items=1).collect()
    ),
    "by_expiry: a later page": lambda session: (
        session.points_allocation.by_expiry(entity_id=383474113, **EXPIRY).options(page_size=7).page(3)
    ),
    "by_expiry_many": lambda session: session.points_allocation.by_expiry_many(["5", 6, 7], **EXPIRY).collect(),
    "events": events(),
    "events: all filters": events(event_type="EARN", from_date="2025-01-01", to_date=date(2025, 12, 31)),
    "events: a later page": lambda session: session.loyalty_events.list(565039505).options(page_size=33).page(4),
    "events: odd filter": events(event_type="PointsRedemption & more, ü"),
    "events: many": lambda session: session.loyalty_events.list_many([1, 37195406289]).collect(),
    **{f"explode: {who.kind} {who.value}": explode(who) for who in IDENTIFIERS},
    "explode: 23 ids": explode(event_ids=range(1, 24)),
    "explode: references": referred(),
    "explode: ten references": referred(event_name="GenericEvent", event_reference_ids=[f"r-{n}" for n in range(10)]),
    **{f"explode: {name}": referred(event_name=name) for name in EventName},
    "explode: everything": explode(include=EVERYTHING),
    "explode: a group": explode(type="USERGROUP2", is_primary_user=True, account_id="acc-1"),
    "explode: a customer": explode(type="CUSTOMER", is_primary_user=False, account_id=7),
    "explode: currencies": explode(alternate_currency_names=["acName", "other one"]),
    "scope": lambda session: session.request(
        "GET", "/x/neo/pointsAwarded/paIds", params={**AWARDED, "entity_id": [1, 2], "status": "AVAILABLE"}
    ),
}


@pytest.mark.parametrize("name", CALLS)
async def test_no_request_violates_the_contract(prism: str, at: Any, judged: Judged, name: str) -> None:
    """Every endpoint with every parameter and variant; and Prism's answer is read."""
    await CALLS[name](at(prism))
    assert judged.sent
    assert judged.violations == []


async def test_a_session_with_its_own_pool_violates_nothing(prism: str, caplog: pytest.LogCaptureFixture) -> None:
    """As users have it: without a client of theirs."""
    seen: list[Any] = []

    async def watch(request: Any, handler: Any) -> Any:
        response = await handler(request)
        seen.append(response.headers.get("sl-violations"))
        return response

    async with AsyncSession(prism, auth=BasicAuth("till", password="p4ss"), middlewares=[watch]) as session:
        with caplog.at_level("INFO", logger="capillary_async"):
            for ask in CALLS.values():
                await ask(session)
        again = [record.getMessage() for record in caplog.records if "again in" in record.getMessage()]
    assert set(seen) == {None}
    # Prism gives every customer the same sample: such an answer is asked for once more, and nothing else is.
    assert [line for line in again if "misdirected" not in line] == []


def documented(path: str, place: str) -> set[str]:
    """The names of an operation's parameters."""
    listed = DOCUMENT["paths"][path]["get"]["parameters"]
    known = DOCUMENT["components"]["parameters"]
    found = [known[one["$ref"].rsplit("/", 1)[-1]] if "$ref" in one else one for one in listed]
    return {one["name"] for one in found if one["in"] == place}


async def test_every_documented_parameter_is_sent_and_no_other(prism: str, at: Any, judged: Judged) -> None:
    """Prism lets unknown parameters pass, so they are compared here."""
    session = at(prism, headers={"x-cap-neo-test-variant-id": "7a67e565-ad2a-498a-937b-fac8a63e828c"})
    for ask in CALLS.values():
        await ask(session)
    ours = {"accept", "accept-encoding", "user-agent", "authorization", "host"}
    for path in READS:
        start, _, end = path.partition("{customerId}")
        mine = [names for _, sent, names in judged.sent if sent.startswith(start) and sent.endswith(end)]
        headers = documented(path, "header")
        sent = frozenset[str]().union(*mine) - ours - {"x-cap-neo-test-variant-id", "x-cap-neo-dag-scope"} | headers
        assert sent == documented(path, "query") | headers
        assert headers <= mine[0]


WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "a word for an id": ("/x/neo/pointsAwarded/paIds", {**AWARDED, "status": "AVAILABLE", "entity_id": [1, "x"]}),
    "another status": ("/x/neo/pointsAwarded/paIds", {**AWARDED, "status": "GONE", "entity_id": [1]}),
    "no status": ("/x/neo/pointsAwarded/paIds", {**AWARDED, "entity_id": [1]}),
    "no day": (
        "/x/neo/pointsAwarded/paIds",
        {**AWARDED, "start_expiry_date": "2025-02-30", "status": "AVAILABLE", "entity_id": [1]},
    ),
    "count": ("/x/neo/pointsAllocation/dateRange", {**EXPIRY, "entity_id": 1, "count": 101}),
    "page": ("/x/neo/pointsAllocation/dateRange", {**EXPIRY, "entity_id": 1, "page": 0}),
    "event type": ("/x/neo/pointsAllocation/event", {"entity_id": "a", "customer_id": 1, "event_type_id": 90}),
    "limit": ("/v2/customers/5/loyaltyEvents", {"limit": 0}),
    "customer": ("/v2/customers/jo/loyaltyEvents", {}),
    "kind of identifier": (
        "/v2/pointsLedger/getLedgerExplodeInfo",
        {"identifierName": "phone", "identifierValue": "1", "source": "ALL"},
    ),
    "eleven ids": (
        "/v2/pointsLedger/getLedgerExplodeInfo",
        {"identifierName": "id", "identifierValue": "1", "source": "ALL", "eventIds": list(range(1, 12))},
    ),
}


@pytest.mark.parametrize("name", WRONG)
async def test_prism_sees_a_violation(prism: str, at: Any, judged: Judged, name: str) -> None:
    """The control: a request that is wrong is not let through."""
    path, params = WRONG[name]
    with pytest.raises(APIError):
        await at(prism).request("GET", path, params=params)
    assert judged.violations


async def test_prism_wants_the_scope_and_credentials(prism: str, at: Any, judged: Judged) -> None:
    """The two headers that every Neo call needs."""
    with pytest.raises(BadRequestError):
        await by_event()(at(prism, dag_scope=None))
    assert [one["location"] for one in judged.violations] == [["request", "header"]]
    async with judged.client() as bare, bare.get(f"{prism}/v2/customers/5/loyaltyEvents") as answer:
        assert answer.status == 401


async def test_a_token_is_fetched_and_sent(prism: str, at: Any, judged: Judged) -> None:
    """As OAuth has it: the pair as JSON without credentials, then the token in its own header."""
    assert len(await events()(at(prism, auth=OAuthClient("key", "s3cret")))) == 2
    assert [(method, path) for method, path, _ in judged.sent] == [
        ("POST", TOKEN_PATH), ("GET", "/v2/customers/565039505/loyaltyEvents"),
    ]  # fmt: skip
    assert "authorization" not in judged.sent[0][2] | judged.sent[1][2]
    assert "x-cap-api-oauth-token" in judged.sent[1][2]
    assert judged.violations == []


# --- what comes back --------------------------------------------------------------------------------------------------


async def unwrapped(session: AsyncSession) -> Any:
    """One customer, whose error is raised as itself."""
    fan = session.points_awarded.ids([388034468], **AWARDED, status="AVAILABLE")
    return (await fan.collect())[388034468].unwrap()


ASK: dict[str, Ask] = {
    "/x/neo/pointsAwarded/paIds": unwrapped,
    "/x/neo/pointsAllocation/event": by_event(),
    "/x/neo/pointsAllocation/dateRange": CALLS["by_expiry"],
    "/v2/customers/{customerId}/loyaltyEvents": events(),
    "/v2/pointsLedger/getLedgerExplodeInfo": explode(),
}

EXAMPLES = [
    (path, name, example["value"])
    for path in READS
    for name, example in DOCUMENT["paths"][path]["get"]["responses"]["200"]["content"]["application/json"][
        "examples"
    ].items()
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"{example[0]} {example[1]}")
async def test_every_example_is_read(prism: str, at: Any, judged: Judged, example: tuple[str, str, Any]) -> None:
    """Each row of it becomes a record, or its refusal the right error; and Prism finds it to fit its schema."""
    path, name, value = example
    session = at(prism, prefer=f"example={name}")
    rows = rows_in(value)
    if rows is None:
        with pytest.raises(APIError) as caught:
            await ASK[path](session)
        assert caught.value.status == 200
        assert type(caught.value) is kind_of(200, value["errors"][0]["code"] if "errors" in value else value["code"])
    else:
        assert len(await ASK[path](session)) == len(rows)
    assert judged.violations == []


def rows_in(body: Any) -> list[Any] | None:
    """The rows of an answer, without the null entries that a ledger may have; None where it is a refusal."""
    rows = body if isinstance(body, list) else body.get("data", body.get("events"))
    return None if rows is None else [row for row in rows if row is not None]


def kind_of(status: int, code: int) -> type[APIError]:
    """The class that DESIGN and the pages call for."""
    by_code: dict[int, type[APIError]] = {
        8015: CustomerNotFoundError,
        8069: MergedCustomerError,
        9021: LedgerRequestError,
        11023: LedgerRequestError,
        320001: AuthenticationError,
    }
    by_status: dict[int, type[APIError]] = {
        400: BadRequestError, 401: AuthenticationError, 403: PermissionDeniedError, 404: NotFoundError,
        429: RateLimitedError, 498: AuthenticationError,
    }  # fmt: skip
    decisive = code if 400 <= code < 600 else 503 if code == 4001 else status
    return by_code.get(code) or by_status.get(decisive) or (ServerError if decisive >= 500 else APIError)


def refusals() -> Iterator[tuple[str, int, str, str, Any]]:
    """Every documented refusal: path, status, media type, name of the example ('' for a lone one), its value."""
    known = DOCUMENT["components"]["responses"]
    for path in READS:
        for status, reference in DOCUMENT["paths"][path]["get"]["responses"].items():
            if status == "200":
                continue
            content = known[reference["$ref"].rsplit("/", 1)[-1]]["content"]
            for media, said in content.items():
                for name, example in said.get("examples", {"": {"value": said.get("example")}}).items():
                    yield path, int(status), media, name, example["value"]


@pytest.mark.parametrize("refusal", list(refusals()), ids=lambda refusal: " ".join(map(str, refusal[:4])))
async def test_every_documented_refusal_has_its_class(
    prism: str, at: Any, judged: Judged, refusal: tuple[str, int, str, str, Any]
) -> None:
    """JSON in each of its shapes, HTML and text."""
    path, status, media, name, value = refusal
    prefer = f"code={status}" + (f", example={name}" if name else "")
    with pytest.raises(APIError) as caught:
        await ASK[path](at(prism, prefer=prefer, accept=media))
    error = caught.value
    assert error.status == status
    codes = [int(text["code"]) for text in stated(value)]
    assert type(error) is kind_of(status, codes[0] if codes else 0)
    assert error.code == (codes[0] if codes else None)
    if status == 429:
        assert error.retry_after == 1
    assert judged.violations == []


def stated(value: Any) -> list[dict[str, Any]]:
    """The errors that a body states, in any of the shapes."""
    if not isinstance(value, dict):
        return []
    if "response" in value:
        return [value["response"]["status"]]
    return value.get("errors") or [value]


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Prisms that make up answers after the schemas, the same ones every time; started at once.

    Their rows name no customer: one made up would not be the one asked for, and the answer refused for that alone.
    """
    unowned = copy.deepcopy(DOCUMENT)
    for schema, member in OWNERS:
        del unowned["components"]["schemas"][schema]["properties"][member]
    document = tmp_path_factory.mktemp("contract") / "openapi.yaml"
    document.write_text(yaml.safe_dump(unowned))
    with ExitStack() as stack, ThreadPoolExecutor() as pool:

        def start(seed: str) -> str:
            options = ("--dynamic", "--seed", seed)
            return stack.enter_context(serving(lambda port: prism_command(port, *options, document=document), "/"))

        yield dict(zip(SEEDS, pool.map(start, SEEDS), strict=True))


@pytest.mark.parametrize("path", READS)
@pytest.mark.parametrize("seed", SEEDS)
async def test_made_up_answers_are_read(dynamic: dict[str, str], at: Any, judged: Judged, seed: str, path: str) -> None:
    """Whatever fits the schemas: nulls everywhere, texts for numbers, big ids, odd times. All rows come, exact."""
    body = answered(dynamic[seed], path)
    outcome = (await asyncio.gather(ASK[path](at(dynamic[seed])), return_exceptions=True))[0]
    rows = rows_in(body)
    if rows is None:
        assert isinstance(outcome, APIError), (outcome, body)
    else:
        assert not isinstance(outcome, BaseException), (outcome, body)
        for record, row in zip(outcome, rows, strict=True):
            assert_same_quantities(record, row)
    assert judged.violations == []


def assert_same_quantities(record: Any, row: dict[str, Any]) -> None:
    """The members whose names are the fields' own."""
    for name, value in row.items():
        if value is not None and hasattr(record, name) and isinstance(getattr(record, name), Decimal):
            assert getattr(record, name) == Decimal(value)


ASKED: dict[str, dict[str, Any]] = {
    READS[0]: {**AWARDED, "entity_id": 388034468, "status": "AVAILABLE"},
    READS[1]: {"entity_id": "a", "customer_id": 1, "event_type_id": 1},
    READS[2]: {**EXPIRY, "entity_id": 1},
    READS[3]: {},
    READS[4]: {"identifierName": "id", "identifierValue": "1", "source": "ALL", "eventIds": "1"},
}


def answered(url: str, path: str) -> Any:
    """What another client reads there, numbers exact; the same seed gives everyone the same."""
    headers, params = {"x-cap-neo-dag-scope": "global"}, {name: str(value) for name, value in ASKED[path].items()}
    address = url + path.replace("{customerId}", "5")
    answer = httpx.get(address, params=params, headers=headers, auth=("a", "b"), trust_env=False)
    return json.loads(answer.text, parse_float=Decimal)


@pytest.mark.parametrize("path", READS)
def test_the_seeds_show_both_kinds_of_answers(dynamic: dict[str, str], path: str) -> None:
    """The control of the test above: some seed gives rows, some refuses."""
    bodies = [answered(url, path) for url in dynamic.values()]
    assert any(map(rows_in, bodies))
    assert None in map(rows_in, bodies)


def test_the_examples_are_the_pages_own() -> None:
    """Not a second truth beside the samples that the models are tested with."""
    kept = [json.loads(file.read_text()) for file in SAMPLES.glob("*.json") if "registration" not in file.name]
    given = [value for _, _, value in EXAMPLES]
    assert [one for one in kept if one not in given] == []
