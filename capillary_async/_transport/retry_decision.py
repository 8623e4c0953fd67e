"""Whether to try again, and when: pure functions of an error and a policy.

Invariant: nothing sleeps, nothing is sent, no clock is read but the one handed in. `retry.py` acts on what is decided
here. The numbers and their reasons are in `RetryPolicy`.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from attrs import frozen

from capillary_async.errors import (
    APIError,
    AuthenticationError,
    CapillaryError,
    CustomerNotFoundError,
    DeadlineExceededError,
    DecodeError,
    LedgerRequestError,
    MergedCustomerError,
    TLSError,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from capillary_async._config import RetryPolicy
    from capillary_async.errors import AttemptRecord

__all__ = [
    "NotSentError",
    "RetryDecision",
    "asked_wait",
    "decide_retry",
    "decisive_status",
    "is_answer",
    "kind_of",
    "parse_reset",
    "parse_retry_after",
    "repeats",
    "status_of",
]

# 461 'search busy' and 521 'another action of this customer is running' are Capillary's; 520-524 Cloudflare's.
RETRIED_STATUSES = frozenset({408, 425, 429, 461, 500, 502, 503, 504, 520, 521, 522, 523, 524})
THROTTLED_STATUSES = frozenset({429, 503})
TRANSIENT_COST = 14
THROTTLED_COST = 5
REPEATING_ATTEMPTS = 2
WHOLE = frozenset({200, 203})  # the statuses of a whole answer
RETRY_AFTER_JITTER = 0.1
# Their body code is the answer, whatever status line it came under.
_DEFINITIVE = (AuthenticationError, CustomerNotFoundError, LedgerRequestError, MergedCustomerError)
_HTTP_CODES = range(400, 600)
_REPEATING = frozenset({"beyond", "misdirected", "not-json"})
_REPEATED = frozenset({"misdirected", "not-json", "shape"})  # the same, in an attempt history
_REDIRECTS = 300
_LONGEST_DATE = 64
_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]+)?", re.ASCII)
_RESETS = ("RateLimit-Reset", "X-RateLimit-Reset", "X-Rate-Limit-Reset")
_REMAINING = ("RateLimit-Remaining", "X-RateLimit-Remaining", "X-Rate-Limit-Remaining")
_TOO_MANY = 429
_SERVER_ERROR = 500
# What resets are written in is not said: 100,000,000 is 1973 as epoch seconds, three years as a wait; and so on.
_EPOCH_SECONDS, _EPOCH_MILLISECONDS, _NO_TIME = 1e8, 1e11, 1e14
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_PARAMETER = re.compile(
    r"(?:^|[;,])\s*(r|remaining|t|reset)\s*=\s*([0-9]+(?:\.[0-9]+)?)\s*(?=$|[;,])", re.ASCII | re.IGNORECASE
)


class NotSentError(CapillaryError):
    """Nothing was sent and no attempt made: the gate of the session is shut for too long.

    Raised by `RequestLimiter`; it never leaves the retry step, which raises its `error`.

    Attributes:
        error: What to raise: the refusal that shut the gate, in words for a call that did not come to it.
        final: Whether it is raised whatever came before: else a call that made attempts raises the error of its last.
    """

    def __init__(self, error: CapillaryError, *, final: bool = False) -> None:
        super().__init__(error.message)
        self.error = error
        self.final = final


@frozen
class RetryDecision:
    """What to do after a failed attempt.

    Attributes:
        delay: Seconds to sleep before the next attempt; None to give up.
        cost: Quota tokens the next attempt takes.
        reason: Why it is given up: `final`, `attempts`, `retry-after`, `deadline`, `quota`, `outage`; else empty.
    """

    delay: float | None
    cost: int = 0
    reason: str = ""


def decisive_status(status: int, code: int | None) -> int:
    """The status that counts: a body code of the form of an HTTP status decides before the status line does."""
    return code if code is not None and code in _HTTP_CODES else status


def kind_of(error: CapillaryError) -> str:
    """The word for an error in an attempt history."""
    if isinstance(error, TransportError):
        return "shape" if error.kind == "beyond" else error.kind
    if isinstance(error, DecodeError):
        return "shape" if error.kind == "beyond" else error.kind
    return "status" if isinstance(error, APIError) and (error.status >= _REDIRECTS or _odd(error.status)) else "code"


def status_of(error: CapillaryError) -> int | None:
    """The HTTP status of the answer that an error was made of, None where none came."""
    return error.status if isinstance(error, APIError | DecodeError) else None


def retryable(error: CapillaryError) -> bool:
    """Whether the same request may do better next time."""
    if error.attempts:  # it comes out of a retry loop of its own: the token's
        return False
    if isinstance(error, APIError):
        return not isinstance(error, _DEFINITIVE) and _retried(error.status, error.code)
    if isinstance(error, DecodeError):
        return error.kind == "bad-json" or error.kind in _REPEATING
    if isinstance(error, TLSError | DeadlineExceededError):
        return False
    return isinstance(error, TransportError) and error.kind != "proxy"


def _retried(status: int, code: int | None) -> bool:
    decisive = decisive_status(status, code)
    return decisive in RETRIED_STATUSES or _odd(decisive)


def _odd(status: int) -> bool:
    """Whether a status is neither a whole answer nor a refusal, e.g. 206; 0 is an error that had no status line."""
    return 0 < status < _REDIRECTS and status not in WHOLE


def repeats(error: CapillaryError) -> bool:
    """Whether the same answer would come again, nearly always, though it says nothing of the service's health.

    That is a body that no record can hold, records of another customer, no JSON, or a status that is no whole answer.
    """
    if isinstance(error, DecodeError):
        return not error.cut
    return isinstance(error, APIError) and _odd(error.status)


def is_answer(error: CapillaryError) -> bool:
    """Whether the service answered: it refused this request, or spoke in another shape than documented.

    Not where it asks to try again later; half of a body and HTML may come of what is before it.
    """
    if isinstance(error, DecodeError):
        return not error.cut and error.kind != "not-json"
    if not isinstance(error, APIError):
        return False
    status = decisive_status(error.status, error.code)
    return status < _SERVER_ERROR and status not in RETRIED_STATUSES


def throttled(error: CapillaryError) -> bool:
    """Whether the server said that it has too much to do."""
    return isinstance(error, APIError) and decisive_status(error.status, error.code) in THROTTLED_STATUSES


def decide_retry(
    error: CapillaryError,
    history: Sequence[AttemptRecord],
    policy: RetryPolicy,
    remaining: float,
    uniform: Callable[[float, float], float],
) -> RetryDecision:
    """Decide after the attempt that raised `error`.

    Args:
        error: What the attempt came to.
        history: The attempts of this call, this one included.
        policy: The policy in force.
        remaining: Seconds left of the call.
        uniform: Where jitter comes from, e.g. `random.uniform`.
    """
    if not retryable(error):
        return RetryDecision(None, reason="final")
    asked = error.retry_after if isinstance(error, APIError) else None
    if asked is not None and asked > policy.retry_after_max:
        return RetryDecision(None, reason="retry-after")
    if len(history) >= policy.attempts or _not_worth_retrying(error, history):
        return RetryDecision(None, reason="attempts")
    cost = THROTTLED_COST if throttled(error) else TRANSIENT_COST
    if asked is None:
        delay = _backoff(error, len(history), policy, uniform)
    else:
        # Never earlier than asked, and the jitter takes at most half of the time that is left after it.
        delay = asked + max(0.0, min(asked * uniform(0, RETRY_AFTER_JITTER), (remaining - asked) / 2))
    if delay >= remaining:
        return RetryDecision(None, reason="deadline")
    return RetryDecision(delay, cost)


def _not_worth_retrying(error: CapillaryError, history: Sequence[AttemptRecord]) -> bool:
    """What repeats gets two of the attempts: a page of HTML, say, comes from something that stays."""
    bounded = repeats(error) and kind_of(error) != "bad-json"
    return bounded and sum(map(_was_repeating, history)) >= REPEATING_ATTEMPTS


def _was_repeating(attempt: AttemptRecord) -> bool:
    odd = attempt.kind == "status" and attempt.status is not None and _odd(attempt.status)
    return odd or attempt.kind in _REPEATED


def _backoff(
    error: CapillaryError, attempts: int, policy: RetryPolicy, uniform: Callable[[float, float], float]
) -> float:
    base = policy.throttle_backoff if throttled(error) else policy.backoff
    # 2**60 seconds is beyond every cap, and a larger exponent would overflow a float.
    return uniform(0, min(policy.backoff_max, base * 2 ** min(attempts - 1, 60)))


def parse_retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a `Retry-After` header asks for; None for anything that is no time. Never raises.

    Args:
        value: The header: ASCII digits, decimals or an HTTP date.
        now: The server's time, from its `Date` header; the local clock where it is None.
    """
    if value is None:
        return None
    text = value.strip(" \t")
    seconds = float(text) if _SECONDS.fullmatch(text) else _until(text, now)
    return seconds if seconds is not None and math.isfinite(seconds) and seconds > 0 else None


def asked_wait(headers: Mapping[str, str], status: int) -> float | None:
    """Seconds that an answer asks to wait: its `Retry-After`, or where it has none, when its rate limit is reset.

    A reset is in most answers, and says something only where the limit was passed: under 429, and under 503 unless
    requests remain.

    Args:
        headers: Of the answer; resets count from its `Date`.
        status: The status that decides.
    """
    now = parse_http_date(headers.get("Date"))
    retry_after = headers.get("Retry-After")
    if retry_after is not None and retry_after.strip():
        return parse_retry_after(retry_after, now)
    if status not in THROTTLED_STATUSES or (status != _TOO_MANY and _some_remain(headers)):
        return None
    resets = (parse_reset(text, now) for name in _RESETS if (text := headers.get(name)) is not None)
    found = _parse_rate_limit(headers.get("RateLimit"))
    return found if found is not None else next((seconds for seconds in resets if seconds is not None), None)


def _some_remain(headers: Mapping[str, str]) -> bool:
    left = next((text for name in _REMAINING if (text := headers.get(name)) is not None), "0").strip(" \t")
    return _SECONDS.fullmatch(left) is not None and float(left) > 0


def parse_reset(value: str, now: datetime | None = None) -> float | None:
    """Seconds until a rate limit is reset: a wait, epoch seconds or milliseconds by size, or an HTTP date.

    None for anything that is no time. Never raises.
    """
    text = value.strip(" \t")
    if not _SECONDS.fullmatch(text) or float(text) < _EPOCH_SECONDS:
        return parse_retry_after(text, now)
    number = float(text)
    if number >= _NO_TIME:
        return None
    epoch = number / 1000 if number >= _EPOCH_MILLISECONDS else number
    seconds = epoch - (now or datetime.now(UTC)).timestamp()
    return seconds if seconds > 0 else None


def _parse_rate_limit(value: str | None) -> float | None:
    """The longest wait of the exhausted limits of a `RateLimit` header: `"day";r=0;t=30`, `limit=9, reset=30`."""
    if value is None:
        return None
    text = _QUOTED.sub("", value)
    limits = text.split(",") if re.search(r";\s*[rt]\s*=", text) else [text]
    waits: list[float] = []
    for limit in limits:
        said = {name[0].lower() + name[-1].lower(): float(number) for name, number in _PARAMETER.findall(limit)}
        remaining, seconds = said.get("rr", said.get("rg", 0.0)), said.get("tt", said.get("rt"))
        if remaining == 0 and seconds is not None and 0 < seconds < _EPOCH_SECONDS:
            waits.append(seconds)
    return max(waits, default=None)


def _until(text: str, now: datetime | None) -> float | None:
    then = parse_http_date(text)
    if then is None:
        return None
    return (then - (now or datetime.now(UTC))).total_seconds()


def parse_http_date(text: str | None) -> datetime | None:
    """The time an HTTP date names, aware; None for anything else. Never raises."""
    if not text or not text.isascii() or len(text) > _LONGEST_DATE or ":" not in text:
        return None
    try:
        then = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return then if then.tzinfo else then.replace(tzinfo=UTC)
