"""`RedisRate`: turns of a shared rate from Redis, leased by a script of the server's, in a thread.

Invariant: a turn is leased once, by Redis' clock; nothing of the loops waits for Redis, and no password is in a key, an
error or a log line. A thread, since turns belong to all loops of a session; it ends when it has nothing to do. Made
by `RequestLimiter`.
"""

from __future__ import annotations

import hashlib
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from capillary_async._redis_address import RedisAddress
from capillary_async._transport.lease import AHEAD, cost_of
from capillary_async._transport.redaction import Redactor
from capillary_async.telemetry._log import logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from capillary_async._config import Rate
    from capillary_async._transport.lease import Lease

__all__ = ["RedisRate", "rate_key"]

# GCRA, a "reservation": the key has the time at which the next turn is free. TIME, and writing after it, needs Redis 5.
# `tostring` would keep 14 digits of the 16 of a time in microseconds. A time beyond the last lease that can have been
# given was written before the clock of the server went back, e.g. in a failover: turns begin `ahead` later then.
SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local cost, ahead, rate = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local free, before = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) (.+)$')
local wait = math.max(0, (tonumber(free) or 0) - now)
local permits, per = string.match(before or rate, '^(%d+)/(.+)$')
local lease = math.max(1000000, cost, (tonumber(per) or 1) / (tonumber(permits) or 1) * 1000000)
if wait > ahead + lease then
  wait = ahead
end
if wait > ahead then
  return {0, string.format('%.0f', wait - ahead), before}
end
redis.call('SET', KEYS[1], string.format('%.0f', now + wait + cost) .. ' ' .. rate,
  'PX', string.format('%.0f', (wait + cost) / 1000 + 60000))
return {1, string.format('%.0f', wait), before or rate}
"""
IDLE = 1.0  # seconds without work after which the thread ends
TIMEOUT = 5.0  # seconds for a connection, and for an answer
BACKOFF = (0.1, 0.2, 0.5, 1.0, 2.0)  # seconds between two tries, while none succeeds
# Of a server that refuses for now: it starts, fails over, is full or busy.
_PASSING = ("LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "OOM", "MISCONF", "NOREPLICAS")
_LONGEST = 200  # characters of what Redis says


def rate_key(base_url: str, identity: str) -> str:
    """The key of a shared rate: one for each cluster and user name, or client key, which are in it as a digest."""
    parts = urlsplit(base_url)
    host, port = (parts.hostname or "").rstrip("."), parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    cluster = f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}"
    digest = hashlib.sha256(f"{cluster}\n{identity}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"capillary-async:rate:{host}:{digest}"


class RedisRate:
    """Leases turns when asked to, and reports what came of it.

    Args:
        rate: The rate, which names its Redis.
        key: As `rate_key` makes it.
        lease: The turns of the process; changed under `lock`.
        lock: The limiter's.
        changed: Called in the thread, without the lock, when there are turns or a failure.
        clock: The limiter's.

    Raises:
        ModuleNotFoundError: The extra is missing; the message names it.
    """

    def __init__(
        self,
        rate: Rate,
        key: str,
        lease: Lease,
        *,
        lock: threading.RLock,
        changed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        address = rate.shared
        if not isinstance(address, RedisAddress):
            raise TypeError("Rate.shared")
        self._rate, self._key, self._lease = rate, key, lease
        self._lock, self._changed, self._clock = lock, changed, clock
        self._address = address
        self._redactor = Redactor(*(text for text in (address.options()["password"],) if text))
        self._client = _client(address)
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._turns = 0  # to lease
        self._failures = 0
        self._warned = False
        self._closed = False

    def ask(self, turns: int) -> None:
        """Lease so many turns soon."""
        with self._wake:
            if self._closed:
                return
            self._turns = turns
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="capillary-shared-rate", daemon=True)
                self._thread.start()
            self._wake.notify()

    def close(self) -> None:
        """End the thread and its connection."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._client.close()

    def _run(self) -> None:
        while turns := self._next():
            try:
                found = self._reserve(turns)
            except Exception as error:  # noqa: BLE001 - whatever it is, no turns came
                self._failed(error)
            else:
                self._granted(turns, *found)
            self._changed()

    def _next(self) -> int:
        """Wait for work, and after a failure; gives the number of turns, 0 if the thread ends."""
        with self._wake:
            if self._failures and not self._closed:
                self._wake.wait_for(lambda: self._closed, BACKOFF[min(self._failures, len(BACKOFF)) - 1])
            self._wake.wait_for(lambda: self._turns or self._closed, IDLE)
            turns, self._turns = self._turns, 0
            if not turns or self._closed:
                self._thread = None
                return 0
            return turns

    def _reserve(self, turns: int) -> tuple[bool, float, str]:
        """Whether turns were given, the seconds until the first of them or the next try, and the rate before."""
        sent = (cost_of(self._rate, turns), int(AHEAD * 1_000_000), self._pace)
        given, wait, before = self._client.eval(SCRIPT, 1, self._key, *sent)
        return bool(given), int(wait) / 1_000_000, str(before)

    @property
    def _pace(self) -> str:
        return f"{self._rate.permits}/{self._rate.per:g}"

    def _granted(self, turns: int, given: bool, wait: float, before: str) -> None:  # noqa: FBT001
        """Turns are due by the time at which the answer came: never before Redis' own."""
        due = self._clock() + wait
        with self._lock:
            if given:
                self._lease.granted(due, turns)
            else:
                self._lease.full(due)
        if self._failures:
            self._failures = 0
            logger.info("Redis at %s gives turns of the shared rate again", self._address)
        if before != self._pace and not self._warned:
            self._warned = True
            logger.warning(
                "another session has Rate %s on the shared rate of %s, this one has %s: together they are as fast as "
                "the faster one; give both the same",
                before, self._key, self._pace,
            )  # fmt: skip

    def _failed(self, error: Exception) -> None:
        if self._closed:
            return
        reason = self._reason(error)
        if not self._failures:
            logger.warning("no request is sent: Redis at %s: %s", self._address, reason)
        self._failures += 1
        with self._lock:
            self._lease.failed(reason, final=_is_final(error))

    def _reason(self, error: Exception) -> str:
        text = self._without_password(str(error).partition("\n")[0])
        lower = text.lower()
        if "unknown command" in lower or "non deterministic" in lower or "unknown redis command" in lower:
            return f"it refuses the script, which needs Redis 5 or newer, or Valkey: {text[:_LONGEST]}"
        if lower.startswith(("moved ", "ask ")) or type(error).__name__ in ("MovedError", "AskError"):
            return "it is a node of a Redis Cluster; give a Redis, or a proxy, that has all keys"
        return f"{type(error).__name__}: {text[:_LONGEST]}" if text else type(error).__name__

    def _without_password(self, text: str) -> str:
        password = self._address.options()["password"]
        text = self._redactor.text(text)
        return text.replace(password, "***") if password else text


def _is_final(error: Exception) -> bool:
    """Whether Redis answered, and would refuse again."""
    from redis import exceptions  # noqa: PLC0415 - an extra

    if isinstance(error, exceptions.AuthenticationError | exceptions.AuthorizationError | exceptions.InvalidResponse):
        return True
    return isinstance(error, exceptions.ResponseError) and not str(error).startswith(_PASSING) and not isinstance(
        error, exceptions.ReadOnlyError | exceptions.ClusterDownError | exceptions.OutOfMemoryError
    )  # fmt: skip


def _client(address: RedisAddress) -> Any:
    """A client that connects when it is used, and once more where a connection turns out to be lost."""
    try:
        import redis  # noqa: PLC0415 - an extra
        from redis.backoff import NoBackoff  # noqa: PLC0415
        from redis.retry import Retry  # noqa: PLC0415
    except ModuleNotFoundError as error:
        text = f'Rate(shared=...) needs the extra redis ({error.name} is missing): pip install "capillary-async[redis]"'
        raise ModuleNotFoundError(text, name=error.name) from None
    return redis.Redis(
        **address.options(),
        socket_timeout=TIMEOUT,
        socket_connect_timeout=TIMEOUT,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        protocol=2,  # known to every version
        decode_responses=True,
    )
