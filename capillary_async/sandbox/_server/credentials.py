"""Who may ask, and how often: till credentials, OAuth tokens, and the rate.

Invariant: the password part of Basic is the MD5 hex of the till password; a token goes in X-CAP-API-OAUTH-TOKEN and
needs no Authorization. `Sandbox` asks before every answer.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from capillary_async.sandbox._protocol.answers import Answer, Refused, expired, neo_error, ok, unauthorized, v2_errors

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Access", "RateLimit"]

_BAD_KEY = 320001


class Access:
    """The credentials of the sandbox and the tokens that it issued.

    Args:
        username: The till id.
        password: The till password.
        key: The OAuth client key.
        secret: The OAuth client secret.
        token_ttl: How long a token lives, in seconds.
        expired_status: The HTTP status of an expired token.
    """

    def __init__(
        self, username: str, password: str, key: str, secret: str, *, token_ttl: float, expired_status: int
    ) -> None:
        digest = hashlib.md5(password.encode(), usedforsecurity=False).hexdigest()
        self._login = f"{username}:{digest}"
        self._client = (key, secret)
        self._ttl, self._expired_status = token_ttl, expired_status
        self._ends: dict[str, float] = {}

    def issue(self, body: bytes) -> Answer:
        """Issue a token for `{"key", "secret"}`, or the refusal with code 320001."""
        try:
            asked = msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.DecodeError:
            asked = {}
        if (asked.get("key"), asked.get("secret")) != self._client:
            errors = [{"code": _BAD_KEY, "message": "Invalid client key or secret"}]
            return ok({"data": None, "errors": errors}, 401)
        token = f"sandbox-token-{len(self._ends) + 1}"
        self._ends[token] = time.monotonic() + self._ttl
        ttl = int(self._ttl) if self._ttl == int(self._ttl) else self._ttl
        return ok({"data": {"accessToken": token, "ttlSeconds": ttl}, "errors": None})

    def revoke(self) -> None:
        """Expire every token that was issued."""
        self._ends = dict.fromkeys(self._ends, 0.0)

    def check(self, headers: Mapping[str, str]) -> None:
        """Refuse a request with wrong credentials.

        Raises:
            Refused: 401 without valid credentials, body code 498 for a token past its life.
        """
        token = headers.get("X-CAP-API-OAUTH-TOKEN")
        if token is None:
            self._check_login(headers.get("Authorization", ""))
        elif token not in self._ends:
            raise Refused(unauthorized("Invalid token"))
        elif time.monotonic() >= self._ends[token]:
            raise Refused(expired(self._expired_status))

    def _check_login(self, header: str) -> None:
        scheme, _, text = header.partition(" ")
        try:
            login = base64.b64decode(text.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            login = ""
        if scheme.lower() != "basic" or login != self._login:
            raise Refused(unauthorized("Invalid till id or password"))


class RateLimit:
    """A maximum number of requests in every window of time; refused requests do not count.

    Args:
        permits: How many.
        per: The seconds.
        retry_after: The Retry-After header of a refusal, in seconds; None for none.
    """

    def __init__(self, permits: float, per: float, retry_after: float | None = None) -> None:
        self._permits, self._per, self._retry_after = permits, per, retry_after
        self._passed: deque[float] = deque()

    def check(self, path: str) -> None:
        """Count the request, or refuse it.

        Raises:
            Refused: 429, when the permits are used up.
        """
        now = time.monotonic()
        while self._passed and self._passed[0] <= now - self._per:
            self._passed.popleft()
        if len(self._passed) >= self._permits:
            raise Refused(self._refusal(path))
        self._passed.append(now)

    def _refusal(self, path: str) -> Answer:
        text = "Too many requests"
        answer = neo_error(429, text) if path.startswith("/x/neo/") else v2_errors(429, 429, text)
        if self._retry_after is None:
            return answer
        return attrs.evolve(answer, headers={"Retry-After": str(self._retry_after)})
