"""The rules of trying again, as values: no clock, no sleep, no network."""

import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from capillary_async import RetryPolicy
from capillary_async._transport.retry_decision import (
    RETRIED_STATUSES,
    RetryDecision,
    asked_wait,
    decide_retry,
    decisive_status,
    kind_of,
    parse_http_date,
    parse_retry_after,
    status_of,
    throttled,
)
from capillary_async.errors import (
    APIError,
    AttemptRecord,
    AuthenticationError,
    BadRequestError,
    CapillaryError,
    ConnectError,
    CustomerNotFoundError,
    DeadlineExceededError,
    DecodeError,
    InvalidRequestError,
    LedgerRequestError,
    MergedCustomerError,
    RateLimitedError,
    RequestTimeoutError,
    ResponseTooLargeError,
    ServerError,
    TLSError,
    TransportError,
)

FIXED = settings(derandomize=True, database=None, deadline=None)
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
POLICY = RetryPolicy()


def highest(_: float, high: float) -> float:
    return high


def lowest(low: float, _: float) -> float:
    return low


def after(error: CapillaryError, attempts: int = 1, remaining: float = 180.0, **options: Any) -> RetryDecision:
    """The verdict after so many attempts that all ended so."""
    history = [AttemptRecord(number + 1, kind_of(error), status_of(error)) for number in range(attempts)]
    policy, uniform = options.get("policy", POLICY), options.get("uniform", highest)
    return decide_retry(error, history, policy, remaining, uniform)


def malformed(body: str) -> DecodeError:
    return DecodeError("no JSON", body=body, malformed=True)


RETRIED = {
    **{f"status {status}": APIError(status=status) for status in sorted(RETRIED_STATUSES)},
    "no connection": ConnectError(kind="connect"),
    "reset": TransportError(),
    "cut": TransportError(kind="cut-body"),
    "timeout": RequestTimeoutError(kind="timeout"),
    "half JSON": malformed('[{"id"'),
    "HTML": malformed("<html>"),
    "a body code that may heal": APIError(status=200, code=503),
    "a body code over a status that never heals": APIError(status=400, code=500),
    "a status beside a code of the API": ServerError(status=503, code=4001),
}
FINAL = {
    **{f"status {status}": APIError(status=status) for status in (*range(300, 600),) if status not in RETRIED_STATUSES},
    "TLS": TLSError(kind="tls"),
    "never sent": InvalidRequestError("no"),
    "no time left": DeadlineExceededError(kind="deadline"),
    "another shape": DecodeError("shape", faults=("$: no",)),
    "too large": ResponseTooLargeError("large"),
    "an unknown customer, whatever the status": CustomerNotFoundError(status=500, code=8015),
    "a wrong OAuth key": AuthenticationError(status=500, code=320001),
    "a merged customer": MergedCustomerError(status=503, code=8069),
    "a code of the ledger": LedgerRequestError(status=500, code=9021),
    "a body code over a status that might heal": BadRequestError(status=500, code=400),
    "anything else": CapillaryError("?"),
}


def test_the_statuses_tried_again_are_those_of_the_design():
    assert sorted(RETRIED_STATUSES) == [408, 425, 429, 461, 500, 502, 503, 504, 520, 521, 522, 523, 524]


@pytest.mark.parametrize("name", RETRIED)
def test_what_may_heal_is_tried_again(name: str):
    assert after(RETRIED[name]).delay is not None


def test_what_stays_is_final():
    wrong = [name for name, error in FINAL.items() if after(error) != RetryDecision(None, reason="final")]
    assert wrong == []


def test_what_a_retry_loop_gave_up_is_not_tried_again():
    """The error of the token request comes out of a loop of its own."""
    error = ServerError(status=503)
    error.attempts = 5
    assert after(error).reason == "final"


def test_attempts_are_counted_with_the_first():
    """Five attempts: the verdict after the fifth is the end."""
    assert [after(TransportError(), attempts).delay is None for attempts in range(1, 6)] == [False] * 4 + [True]
    assert after(TransportError(), 5).reason == "attempts"
    assert after(TransportError(), 1, policy=RetryPolicy(attempts=1)).reason == "attempts"


def test_what_holds_no_json_gets_two_attempts():
    """Half a JSON gets all of them; and an HTML page after other faults is the first of its kind."""
    page = malformed("<html>")
    assert after(page, 1).delay is not None
    assert after(page, 2).reason == "attempts"
    assert after(malformed("[1,"), 4).delay is not None
    other = [AttemptRecord(1, "status", 503), AttemptRecord(2, "cut-body", None), AttemptRecord(3, "not-json", 200)]
    assert decide_retry(page, other, POLICY, 180, highest).delay is not None


def test_the_backoff_doubles_up_to_its_cap_and_is_jittered_in_full():
    """uniform(0, min(20, 0.2 * 2**n)), from the first retry on."""
    policy = RetryPolicy(attempts=200)
    tops = [after(TransportError(), attempts, policy=policy, remaining=1e9).delay for attempts in range(1, 12)]
    assert tops == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 20, 20, 20, 20])
    assert after(TransportError(), uniform=lowest).delay == 0
    assert after(TransportError(), 150, policy=policy).delay == 20


def test_a_throttled_answer_has_a_longer_base_and_a_lower_price():
    """1 s after 429 and 503, for 5 tokens; 0.2 s after the rest, for 14."""
    assert after(RateLimitedError(status=429)) == RetryDecision(1.0, 5)
    assert after(ServerError(status=503), 2) == RetryDecision(2.0, 5)
    assert after(ServerError(status=500)) == RetryDecision(0.2, 14)
    assert throttled(APIError(status=200, code=429))
    assert not throttled(APIError(status=503, code=500))
    assert not throttled(TransportError())


def test_retry_after_is_obeyed_never_earlier_and_at_most_a_tenth_later():
    error = RateLimitedError(status=429, retry_after=10.0)
    assert after(error, uniform=lowest).delay == 10
    assert after(error).delay == pytest.approx(11)
    assert after(APIError(status=408, retry_after=3.0)).delay == pytest.approx(3.3)


def test_the_jitter_of_retry_after_never_makes_a_wait_too_long_that_fits():
    """100 s of 105 fit, 110 would not: half of what is left behind the wait is for the attempt."""
    assert after(RateLimitedError(status=429, retry_after=100.0), remaining=105).delay == pytest.approx(102.5)
    assert after(RateLimitedError(status=429, retry_after=100.0), remaining=100).reason == "deadline"


@FIXED
@given(st.floats(0.001, 120), st.floats(0, 0.1), st.floats(-5, 200))
def test_retry_after_holds_at_any_time_left(asked: float, jitter: float, remaining: float):
    """Where the wait fits it is waited in full and leaves time for the attempt; where not, it is not begun."""
    verdict = after(RateLimitedError(status=429, retry_after=asked), remaining=remaining, uniform=lambda *_: jitter)
    assume(asked + 1e-9 < remaining or asked >= remaining)
    if verdict.delay is None:
        assert verdict.reason == "deadline"
        assert asked >= remaining
    else:
        assert asked <= verdict.delay <= asked * 1.1 + 1e-12
        assert verdict.delay < remaining


def test_a_longer_retry_after_than_allowed_is_an_error_at_once():
    """Also on the last attempt, and of a 503 too."""
    assert after(RateLimitedError(status=429, retry_after=120.1)).reason == "retry-after"
    assert after(ServerError(status=503, retry_after=1e20)).reason == "retry-after"
    assert after(RateLimitedError(status=429, retry_after=120.0)).delay == pytest.approx(132)
    policy = RetryPolicy(retry_after_max=0)
    assert after(RateLimitedError(status=429, retry_after=0.1), policy=policy).reason == "retry-after"


def test_retry_after_of_what_is_final_changes_nothing():
    assert after(BadRequestError(status=400, retry_after=5.0)).reason == "final"


def test_a_wait_that_would_pass_the_deadline_is_not_begun():
    assert after(TransportError(), remaining=0.2).reason == "deadline"
    assert after(TransportError(), remaining=0.201).delay == pytest.approx(0.2)
    assert after(TransportError(), remaining=-1.0).reason == "deadline"
    assert after(TransportError(), remaining=0.0, uniform=lowest).reason == "deadline"


def test_a_body_code_of_the_form_of_a_status_decides():
    assert decisive_status(200, 498) == 498
    assert decisive_status(503, 4001) == 503
    assert decisive_status(200, None) == 200
    assert decisive_status(404, 200) == 404
    assert decisive_status(404, 600) == 404


KINDS = [
    (TLSError(kind="tls"), "tls", None),
    (TransportError(kind="cut-body"), "cut-body", None),
    (ServerError(status=500), "status", 500),
    (APIError(status=302), "status", 302),
    (APIError(status=200, code=500), "code", 200),
    (AuthenticationError(status=401), "status", 401),
    (malformed(" [1"), "bad-json", None),
    (malformed("<"), "not-json", None),
    (malformed(""), "not-json", None),
    (DecodeError("shape"), "shape", None),
    (ResponseTooLargeError("large"), "too-large", None),
]


@pytest.mark.parametrize(("error", "kind", "status"), KINDS, ids=str)
def test_the_history_has_a_word_for_each_error(error: CapillaryError, kind: str, status: int | None):
    assert (kind_of(error), status_of(error)) == (kind, status)


# --- Retry-After ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1", 1.0), ("120", 120.0), ("0.5", 0.5), (" 7\t", 7.0), ("007", 7.0), ("99999999999999999999", 1e20),
        ("1.000000000000000000001", 1.0), ("Wed, 04 Mar 2026 05:06:37 GMT", 30.0),
        ("Wednesday, 04-Mar-26 05:06:37 GMT", 30.0), ("Wed Mar  4 05:06:37 2026", 30.0),
        ("Wed, 04 Mar 2026 05:06:37 +0000", 30.0), ("Wed, 04 Mar 2026 06:06:37 +0100", 30.0),
    ],
)  # fmt: skip
def test_seconds_and_dates_are_read(text: str, seconds: float):
    """Digits, decimals, and the three forms of an HTTP date."""
    assert parse_retry_after(text, NOW) == seconds


@pytest.mark.parametrize(
    "text",
    [
        None, "", " ", "0", "0.0", "-1", "+1", "nan", "NaN", "inf", "-inf", "Infinity", "1e3", "1,5", ".5", "5.", "1_0",
        "0x10", "soon", "\u0663", "\uff11\uff10", "1²", "10 s", "10; q=1", "9" * 400, "\x00", "1\n",
        "Wed, 04 Mar 2026 05:06:07 GMT",
        "Wed, 04 Mar 2026 05:06:06 GMT", "Wed, 99 Mar 2026 05:06:37 GMT", "Wed, 04 Mar 99999 05:06:37 GMT", ":", "::::",
        "Wed, 04 Mar 2026 25:06:37 GMT", "Wed, 04 Mar 2026", "x" * 10_000 + ":",
    ],
)  # fmt: skip
def test_what_cannot_be_obeyed_is_nothing(text: str | None):
    """Zero, negative, past, endless and garbage: our own backoff then."""
    assert parse_retry_after(text, NOW) is None


def near_misses() -> st.SearchStrategy[str]:
    return st.text(st.sampled_from("0123456789+-.eE:,; \tGMTadefhintuWMr\u0663\uff12\x00")) | st.from_regex(
        r"(Mon|Tue), \d{1,3} (Jan|Mar|Foo) \d{1,6} \d{1,3}:\d{1,3}(:\d{1,3})?( [+-]\d{1,6}| GMT| EST)?", fullmatch=True
    )


@FIXED
@given(st.text() | near_misses() | st.floats().map(str) | st.integers().map(str) | st.datetimes().map(format_datetime))
def test_the_parser_never_raises_and_gives_only_what_can_be_slept(text: str):
    """Whatever a server or what stands before it writes; with and without a `Date` beside it."""
    for now in (None, NOW, parse_http_date(text)):
        seconds = parse_retry_after(text, now)
        assert seconds is None or (seconds > 0 and math.isfinite(seconds))


@FIXED
@given(st.decimals(min_value="0.000001", max_value=10**9, places=6))
def test_every_decimal_is_read_as_it_is(seconds: Any):
    assert parse_retry_after(f"{seconds:f}") == float(seconds)


@FIXED
@given(st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1)).map(lambda at: at.replace(microsecond=0, tzinfo=UTC)))  # noqa: DTZ001
def test_every_date_is_measured_from_the_servers_own(at: datetime):
    """The `Date` header of the same answer, so that a wrong clock here does no harm."""
    text = format_datetime(at, usegmt=True)
    assert parse_http_date(text) == at
    assert parse_retry_after(text, at - timedelta(seconds=90)) == 90
    assert parse_retry_after(text, at) is None


def test_without_a_date_header_the_local_clock_counts():
    seconds = parse_retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=50), usegmt=True))
    assert seconds is not None
    assert 45 < seconds <= 50


def test_a_date_of_an_unknown_zone_is_taken_for_utc():
    """`-0000` says that the zone is not known."""
    assert parse_http_date("Wed, 04 Mar 2026 05:06:07 -0000") == NOW
    assert parse_http_date(None) is None


# --- when a rate limit is reset ---------------------------------------------------------------------------------------

EPOCH = int(NOW.timestamp())
DATE = format_datetime(NOW, usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"X-RateLimit-Reset": "7"}, 7), ({"RateLimit-Reset": " 7.5 "}, 7.5), ({"X-Rate-Limit-Reset": "7"}, 7),
        ({"X-RateLimit-Reset": str(EPOCH + 30)}, 30), ({"X-RateLimit-Reset": f"{EPOCH + 30}.5"}, 30.5),
        ({"X-RateLimit-Reset": f"{EPOCH + 30}250"}, 30.25),
        ({"RateLimit-Reset": format_datetime(NOW + timedelta(seconds=30), usegmt=True)}, 30),
        ({"RateLimit-Reset": "soon", "X-RateLimit-Reset": "9"}, 9),
        ({"RateLimit": "limit=100, remaining=0, reset=30"}, 30), ({"RateLimit": '"default";r=0;t=30'}, 30),
        ({"RateLimit": '"burst";r=5;t=2, "day;t=1,r=0";r=0;t=30;pk=:QQ==:, "hour" ; r=0 ; t=9'}, 30),
        ({"RateLimit": '"default";t=30', "RateLimit-Reset": "7"}, 30),
        ({"RateLimit": "odd", "RateLimit-Reset": "7"}, 7),
        ({"Retry-After": "3", "X-RateLimit-Reset": "7"}, 3), ({"Retry-After": "0", "X-RateLimit-Reset": "7"}, None),
        ({"Retry-After": "", "X-RateLimit-Reset": "7"}, 7), ({"X-RateLimit-Reset": "7200"}, 7200),
        ({}, None),
    ],
)  # fmt: skip
def test_a_reset_is_honoured_where_there_is_no_retry_after(headers: dict[str, str], seconds: float | None):
    for status in (429, 503):
        assert asked_wait({"Date": DATE, **headers}, status) == seconds
    assert asked_wait({"Date": DATE, **headers}, 500) == (seconds if headers.get("Retry-After") else None)


@pytest.mark.parametrize(
    "reset",
    ["", "0", "-7", "1e3", "inf", "nan", "soon", "\u0667", str(EPOCH), str(EPOCH - 9), f"{EPOCH}000", "1" * 15,
     "9" * 400, "7, 9", "7;w=60", "7s", format_datetime(NOW, usegmt=True)],
)  # fmt: skip
def test_a_reset_that_cannot_be_obeyed_is_ignored(reset: str):
    for name in ("X-RateLimit-Reset", "RateLimit-Reset"):
        assert asked_wait({"Date": DATE, name: reset}, 429) is None


@pytest.mark.parametrize(
    "value", ["", "r=0", '"a";r=5;t=30', "limit=9, remaining=1, reset=3", "t=0", "t=-3", f"t={'9' * 400}"]
)
def test_a_limit_that_is_not_passed_asks_for_no_wait(value: str):
    assert asked_wait({"Date": DATE, "RateLimit": value}, 429) is None


def test_requests_that_remain_make_a_reset_under_503_mean_nothing():
    """The window of the rate limit ends then: the service may be well before."""
    headers = {"Date": DATE, "X-RateLimit-Reset": "7", "X-RateLimit-Remaining": "12"}
    assert (asked_wait(headers, 503), asked_wait(headers, 429)) == (None, 7)
    assert asked_wait({**headers, "X-RateLimit-Remaining": "0"}, 503) == 7


@FIXED
@given(st.text() | near_misses() | st.floats().map(str) | st.integers().map(str), st.text() | near_misses())
def test_resets_never_raise_and_give_only_what_can_be_slept(text: str, limit: str):
    for now in ("", DATE):
        seconds = asked_wait({"Date": now, "X-RateLimit-Reset": text, "RateLimit": limit}, 429)
        assert seconds is None or (seconds > 0 and math.isfinite(seconds))
