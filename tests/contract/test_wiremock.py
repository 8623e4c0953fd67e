"""Connection faults, delays and scenarios of WireMock, a fault server that we did not write, through the public face.

Invariant: what WireMock counted is checked beside what the caller got: no request hidden, none too many.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest

from capillary_async import (
    APIError,
    AsyncSession,
    AuthenticationError,
    BasicAuth,
    OAuthClient,
    Paging,
    RateLimitedError,
    RequestTimeoutError,
    RetryPolicy,
    Timeouts,
    TransportError,
)

pytestmark = pytest.mark.long
pytest_plugins = ["contract_fixtures"]

FAULTS = ("CONNECTION_RESET_BY_PEER", "EMPTY_RESPONSE", "MALFORMED_RESPONSE_CHUNK", "RANDOM_DATA_THEN_CLOSE")
EVENTS = "/v2/customers/5/loyaltyEvents"
DATE_RANGE = "/x/neo/pointsAllocation/dateRange"
TOKEN = "/v3/oauth/token/generate"
EXPIRY: dict[str, Any] = {
    "entity_id": 5,
    "program_id": 1,
    "point_category_id": 2,
    "expiry_date_start": "2025-01-01",
    "expiry_date_end": "2026-01-01",
}
ROW = {"id": 1, "customerId": 5}
GOOD: dict[str, Any] = {"status": 200, "jsonBody": {"data": [ROW], "warnings": [], "errors": []}}
AT_ONCE = RetryPolicy(attempts=4, backoff=0, throttle_backoff=0)
# aiohttp waits for ever behind a malformed chunk that comes after the headers: there the limit of an attempt decides.
LIMITS = {"MALFORMED_RESPONSE_CHUNK": Timeouts(attempt=1.5)}


class WireMock:
    """The admin API."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=f"{url}/__admin", trust_env=False)

    def reset(self) -> None:
        """No stubs, no journal, no scenarios."""
        self._client.post("/reset").raise_for_status()

    def close(self) -> None:
        self._client.close()

    def stub(self, path: str, *answers: dict[str, Any], method: str = "GET", **match: Any) -> None:
        """The nth request gets the nth answer, the last one serves all that follow."""
        name = f"{path} {json.dumps(match, sort_keys=True)}"
        for number, answer in enumerate(answers):
            states = {"requiredScenarioState": f"{number}" if number else "Started"}
            if number + 1 < len(answers):
                states["newScenarioState"] = f"{number + 1}"
            request = {"method": method, "urlPath": path, **match}
            stub = {"request": request, "response": answer, "scenarioName": name, **states}
            self._client.post("/mappings", json=stub).raise_for_status()

    def hits(self, path: str, **match: Any) -> int:
        """How many requests it counted."""
        asked = {"urlPath": path, **match}
        return int(self._client.post("/requests/count", json=asked).raise_for_status().json()["count"])

    def times(self, path: str) -> list[int]:
        """When they came, in milliseconds of its own clock."""
        found = self._client.post("/requests/find", json={"urlPath": path}).raise_for_status().json()["requests"]
        return sorted(int(one["loggedDate"]) for one in found)


@pytest.fixture
def mock(wiremock: str) -> Iterator[WireMock]:
    server = WireMock(wiremock)
    server.reset()
    yield server
    server.close()


@pytest.fixture
async def at() -> AsyncIterator[Callable[..., AsyncSession]]:
    made: list[AsyncSession] = []

    def make(mock: WireMock, **options: Any) -> AsyncSession:
        given = {"auth": BasicAuth("till", password="p4ss"), "retry": AT_ONCE, **options}
        made.append(AsyncSession(mock.url, **given))
        return made[-1]

    yield make
    for session in made:
        await session.aclose()


async def ids(session: AsyncSession) -> list[int | None]:
    """The events of customer 5."""
    return [event.id async for event in session.loyalty_events.list(5)]


# --- connection faults ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_twice_and_then_an_answer(mock: WireMock, at: Any, fault: str) -> None:
    """Three requests, each of them seen by both sides."""
    mock.stub(EVENTS, {"fault": fault}, {"fault": fault}, GOOD)
    session = at(mock, timeouts=LIMITS.get(fault, Timeouts()))
    assert await ids(session) == [1]
    assert mock.hits(EVENTS) == 3
    assert (session.stats.requests, session.stats.retries) == (3, 2)


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_for_good_is_a_transport_error_with_its_history(mock: WireMock, at: Any, fault: str) -> None:
    """One request for each attempt, never a hidden one; nothing is given."""
    mock.stub(EVENTS, {"fault": fault})
    iterator = aiter(at(mock, timeouts=LIMITS.get(fault, Timeouts())).loyalty_events.list(5))
    with pytest.raises(TransportError) as caught:
        await anext(iterator)
    assert caught.value.attempts == mock.hits(EVENTS) == 4
    assert [attempt.number for attempt in caught.value.history] == [1, 2, 3, 4]
    assert caught.value.path == EVENTS


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_on_a_kept_connection(mock: WireMock, at: Any, fault: str) -> None:
    """The connection served a request before: aiohttp's hidden resend would make one attempt two requests."""
    mock.stub(EVENTS, GOOD, {"fault": fault}, GOOD)
    session = at(mock, timeouts=LIMITS.get(fault, Timeouts()))
    assert [await ids(session), await ids(session)] == [[1], [1]]
    assert mock.hits(EVENTS) == session.stats.requests == 3


@pytest.mark.parametrize("prefetch", [1, 4])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_between_pages_loses_and_doubles_nothing(
    mock: WireMock, at: Any, fault: str, prefetch: int
) -> None:
    """Page 2 of 3 fails twice; every record comes once, in order."""
    pages = {1: range(100), 2: range(100, 200), 3: range(200, 205)}
    for number, rows in pages.items():
        whole = {"status": 200, "jsonBody": [{"id": row, "points_exclusive": 1} for row in rows]}
        answers = [{"fault": fault}, {"fault": fault}, whole] if number == 2 else [whole]
        mock.stub(DATE_RANGE, *answers, queryParameters={"page": {"equalTo": str(number)}})
    mock.stub(DATE_RANGE, {"status": 200, "jsonBody": []}, queryParameters={"page": {"matches": "[4-9]"}})
    session = at(mock, paging=Paging(prefetch=prefetch), timeouts=LIMITS.get(fault, Timeouts()))
    rows = [row.id async for row in session.points_allocation.by_expiry(**EXPIRY)]
    assert rows == list(range(205))
    assert mock.hits(DATE_RANGE, queryParameters={"page": {"equalTo": "2"}}) == 3
    assert mock.hits(DATE_RANGE, queryParameters={"page": {"equalTo": "1"}}) == 1


async def test_a_fault_of_one_customer_stays_that_customers(mock: WireMock, at: Any) -> None:
    """A fan-out goes on; each key has one outcome."""
    for customer in range(1, 9):
        theirs = {"status": 200, "jsonBody": {"data": [{**ROW, "customerId": customer}]}}
        answer = {"fault": FAULTS[customer % 3]} if customer in (3, 4) else theirs
        mock.stub(f"/v2/customers/{customer}/loyaltyEvents", answer)
    found = await at(mock).loyalty_events.list_many(range(1, 9)).collect()
    assert sorted(found) == list(range(1, 9))
    assert {key for key, outcome in found.items() if not outcome.ok} == {3, 4}
    assert mock.hits("/v2/customers/3/loyaltyEvents") == mock.hits("/v2/customers/4/loyaltyEvents") == 4


# --- delays -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "delay",
    [
        {"fixedDelayMilliseconds": 150},
        {"delayDistribution": {"type": "lognormal", "median": 60, "sigma": 0.4, "maxValue": 400}},
        {"delayDistribution": {"type": "uniform", "lower": 10, "upper": 150}},
        {"chunkedDribbleDelay": {"numberOfChunks": 6, "totalDuration": 300}},
    ],
    ids=["fixed", "lognormal", "uniform", "dribble"],
)
async def test_a_slow_answer_within_the_limits_is_whole(mock: WireMock, at: Any, delay: dict[str, Any]) -> None:
    """One request, no retry."""
    mock.stub(EVENTS, {**GOOD, **delay})
    session = at(mock)
    assert await ids(session) == [1]
    assert (mock.hits(EVENTS), session.stats.retries) == (1, 0)


@pytest.mark.parametrize(
    ("delay", "timeouts"),
    [
        ({"fixedDelayMilliseconds": 20_000}, Timeouts(read=1)),
        ({"fixedDelayMilliseconds": 20_000}, Timeouts(attempt=1)),
        ({"chunkedDribbleDelay": {"numberOfChunks": 20, "totalDuration": 20_000}}, Timeouts(read=5, attempt=1)),
    ],
    ids=["read", "attempt", "dribble"],
)
async def test_an_answer_beyond_the_limits_is_tried_again(
    mock: WireMock, at: Any, delay: dict[str, Any], timeouts: Timeouts
) -> None:
    """A drip that never pauses for long ends with the attempt, not with the read timeout."""
    mock.stub(EVENTS, {**GOOD, **delay}, GOOD)
    session = at(mock, timeouts=timeouts)
    assert await ids(session) == [1]
    assert mock.hits(EVENTS) == 2


async def test_an_answer_beyond_the_limits_for_good_is_a_timeout(mock: WireMock, at: Any) -> None:
    """As many requests as attempts."""
    mock.stub(EVENTS, {**GOOD, "fixedDelayMilliseconds": 20_000})
    retry = RetryPolicy(attempts=2, backoff=0)
    with pytest.raises(RequestTimeoutError) as caught:
        await ids(at(mock, timeouts=Timeouts(attempt=0.2), retry=retry))
    assert caught.value.attempts == mock.hits(EVENTS) == 2


# --- scenarios --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 425, 429, 461, 500, 502, 503, 504, 520, 521, 522, 523, 524])
async def test_two_failures_and_then_an_answer(mock: WireMock, at: Any, status: int) -> None:
    """Every status that is worth another try."""
    failing = {"status": status, "body": "<html>later</html>", "headers": {"Content-Type": "text/html"}}
    mock.stub(EVENTS, failing, failing, GOOD)
    assert await ids(at(mock)) == [1]
    assert mock.hits(EVENTS) == 3


async def test_retry_after_is_obeyed(mock: WireMock, at: Any) -> None:
    """Never earlier than it says, by WireMock's own clock."""
    mock.stub(EVENTS, {"status": 429, "headers": {"Retry-After": "1"}}, GOOD)
    assert await ids(at(mock)) == [1]
    first, second = mock.times(EVENTS)
    assert second - first >= 1_000


async def test_a_retry_after_of_hours_is_an_error_at_once(mock: WireMock, at: Any) -> None:
    """With the seconds on it, for whoever plans the next run."""
    mock.stub(EVENTS, {"status": 429, "headers": {"Retry-After": "7200"}})
    with pytest.raises(RateLimitedError) as caught:
        await ids(at(mock))
    assert (caught.value.retry_after, mock.hits(EVENTS)) == (7200, 1)


def expired(status: int) -> dict[str, Any]:
    """The refusal of a token past its life."""
    said = {"success": "false", "code": "498", "message": "Token expired"}
    return {"status": status, "jsonBody": {"response": {"status": said}}}


def token(text: str) -> dict[str, Any]:
    """A token."""
    return {"status": 200, "jsonBody": {"data": {"accessToken": text, "ttlSeconds": 300}, "errors": None}}


@pytest.mark.parametrize("status", [401, 498, 200])
async def test_an_expired_token_is_renewed_once(mock: WireMock, at: Any, status: int) -> None:
    """The second token goes with the second request; 20 callers share one renewal."""
    mock.stub(TOKEN, token("first"), token("second"), method="POST")
    mock.stub(EVENTS, expired(status), headers={"X-CAP-API-OAUTH-TOKEN": {"equalTo": "first"}})
    mock.stub(EVENTS, GOOD, headers={"X-CAP-API-OAUTH-TOKEN": {"equalTo": "second"}})
    session = at(mock, auth=OAuthClient("key", "s3cret"))
    assert await ids(session) == [1]
    assert await ids(session) == [1]
    assert mock.hits(TOKEN) == 2
    assert mock.hits(EVENTS, headers={"X-CAP-API-OAUTH-TOKEN": {"equalTo": "first"}}) == 1
    assert mock.hits(EVENTS, headers={"X-CAP-API-OAUTH-TOKEN": {"equalTo": "second"}}) == 2


async def test_a_token_that_no_renewal_helps_is_an_error(mock: WireMock, at: Any) -> None:
    """One renewal, one resend."""
    mock.stub(TOKEN, token("first"), token("second"), method="POST")
    mock.stub(EVENTS, expired(401))
    with pytest.raises(AuthenticationError):
        await ids(at(mock, auth=OAuthClient("key", "s3cret")))
    assert (mock.hits(TOKEN), mock.hits(EVENTS)) == (2, 2)


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_of_the_token_request_is_tried_again(mock: WireMock, at: Any, fault: str) -> None:
    """By the same rules."""
    mock.stub(TOKEN, {"fault": fault}, token("first"), method="POST")
    mock.stub(EVENTS, GOOD)
    session = at(mock, auth=OAuthClient("key", "s3cret"), timeouts=LIMITS.get(fault, Timeouts()))
    assert await ids(session) == [1]
    assert (mock.hits(TOKEN), mock.hits(EVENTS)) == (2, 1)


async def test_a_redirect_to_another_host_is_an_error_and_nobody_is_asked(mock: WireMock, at: Any) -> None:
    """The other origin is the same WireMock under another name."""
    elsewhere = mock.url.replace("127.0.0.1", "localhost") + "/elsewhere"
    mock.stub(EVENTS, {"status": 307, "headers": {"Location": elsewhere}})
    with pytest.raises(APIError, match="redirects are not followed"):
        await ids(at(mock))
    assert (mock.hits(EVENTS), mock.hits("/elsewhere")) == (1, 0)
