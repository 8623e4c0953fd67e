"""The step that adds the header of the credentials to each request.

Invariant: every error that passes here leaves without a secret in it. Called by `chain.py`, between `Retry` and
`RequestLimiter`.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from capillary_async._transport.oauth import OAuthCredentials
from capillary_async._transport.redaction import Redactor, SecretStr
from capillary_async.auth import BasicAuth, OAuthClient
from capillary_async.errors import CapillaryError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from capillary_async._transport.messages import Handler, Middleware, Request, Response

__all__ = ["BasicCredentials", "OAuthCredentials", "credentials_step"]


def credentials_step(
    auth: BasicAuth | OAuthClient, retry: Middleware, *, secrets: Iterable[str] = ()
) -> BasicCredentials | OAuthCredentials:
    """Make the step for the credentials of a user; `secrets` are other texts that no error may show."""
    return BasicCredentials(auth, secrets) if isinstance(auth, BasicAuth) else OAuthCredentials(auth, retry, secrets)


class BasicCredentials:
    """HTTP Basic with till id and MD5 hex of the till password. It has nothing to refresh, so a 401 is final."""

    def __init__(self, auth: BasicAuth, secrets: Iterable[str] = ()) -> None:
        pair = f"{auth.username}:{auth._wire_password()}"  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        self._header = SecretStr("Basic " + base64.b64encode(pair.encode()).decode())
        self._scrub = Redactor(*auth._secrets(), self._header, self._header.removeprefix("Basic "), *secrets)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]

    async def __call__(self, request: Request, handler: Handler) -> Response:
        """Send with the header."""
        try:
            return await handler(request.with_header("Authorization", self._header))
        except CapillaryError as error:
            fault = error
        raise self._scrub(fault)

    def scrub(self, fault: CapillaryError) -> CapillaryError:
        """Take the secrets out of an error that did not pass this step."""
        return self._scrub(fault)

    def redact(self, text: str) -> str:
        """Take the secrets out of a text that a server sent."""
        return self._scrub.text(text)

    async def aclose(self) -> None:
        """Do nothing: this step has no task."""
