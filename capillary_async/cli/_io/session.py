"""From options to an open session, on the real API or on a sandbox in this process.

Invariant: a secret is read from the environment or a file, and no message shows it. Used by `_commands/read.py` and
`_commands/ledger.py`.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from capillary_async import AsyncSession, BasicAuth, Limits, OAuthClient, Paging, Rate, RetryPolicy
from capillary_async.cli._io.run import UnusableError
from capillary_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from capillary_async.cli._io.options import Connection, SandboxOf
    from capillary_async.cli._io.stall_notice import StallMonitor

__all__ = ["connected", "needed"]

T = TypeVar("T")


@asynccontextmanager
async def connected(
    connection: Connection, sandbox_of: SandboxOf, silence: StallMonitor
) -> AsyncGenerator[tuple[AsyncSession, Sandbox | None]]:
    """A session, and the sandbox it talks to if that was asked for.

    Raises:
        UnusableError: An option is invalid, or a credential is missing.
    """
    if not sandbox_of.sandbox:
        async with _session(connection, _credentials(connection), silence) as session:
            yield session, None
        return
    try:
        sandbox = Sandbox(customers=sandbox_of.customers, seed=sandbox_of.seed)
    except ValueError as error:
        raise UnusableError(str(error)) from error
    async with sandbox, _session(connection, {"base_url": sandbox.url, "auth": sandbox.auth}, silence) as session:
        yield session, sandbox


def needed(option: str, value: T | None, otherwise: T | None) -> T:
    """The option's value; on a sandbox the sandbox's own.

    Raises:
        UnusableError: There is neither.
    """
    if value is not None:
        return value
    if otherwise is None:
        raise UnusableError(f"{option} is missing")
    return otherwise


def _session(connection: Connection, where: dict[str, Any], silence: StallMonitor) -> AsyncSession:
    try:
        return AsyncSession.from_env(
            **where,
            limits=Limits(concurrency=connection.concurrency, rate=_rate(connection.rate)),
            retry=RetryPolicy(attempts=connection.attempts),
            paging=Paging(page_size=connection.page_size, verify=connection.verify),
            dag_scope=connection.dag_scope,
            server_timezone=connection.server_timezone,
            middlewares=[silence],
        )
    except ValueError as error:
        raise UnusableError(str(error)) from error


def _rate(text: str | None) -> Rate | None:
    if text is None:
        return None
    permits, _, per = text.partition("/")
    try:
        return Rate(int(permits), float(per))
    except ValueError as error:
        raise UnusableError(f"--rate takes requests/seconds, e.g. 100/60, got {text!r}") from error


def _credentials(connection: Connection) -> dict[str, Any]:
    """What the options say of server and credentials; the environment says the rest."""
    if connection.base_url is not None and not connection.base_url.strip():
        raise UnusableError(f"--base-url takes a URL, got {connection.base_url!r}")
    where: dict[str, Any] = {"base_url": connection.base_url}
    basic = connection.username or connection.password_file
    oauth = connection.client_key or connection.client_secret_file
    if basic and oauth:
        raise UnusableError("give till credentials or an OAuth client, not both")
    try:
        if basic:
            where["auth"] = _basic(connection)
        elif oauth:
            where["auth"] = _oauth(connection)
    except ValueError as error:
        raise UnusableError(str(error)) from error
    return where


def _basic(connection: Connection) -> BasicAuth:
    username = _or_environment("--username", connection.username, "CAPILLARY_USERNAME")
    if connection.password_file is None and not os.environ.get("CAPILLARY_PASSWORD"):
        digest = os.environ.get("CAPILLARY_PASSWORD_MD5")
        if digest:
            return BasicAuth(username, password_md5=digest)
    return BasicAuth(username, password=_secret("--password-file", connection.password_file, "CAPILLARY_PASSWORD"))


def _oauth(connection: Connection) -> OAuthClient:
    key = _or_environment("--client-key", connection.client_key, "CAPILLARY_CLIENT_KEY")
    return OAuthClient(key, _secret("--client-secret-file", connection.client_secret_file, "CAPILLARY_CLIENT_SECRET"))


def _secret(option: str, path: Path | None, variable: str) -> str:
    if path is None:
        return _or_environment(option, None, variable)
    try:
        return path.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableError(f"{option}: cannot read {path}: {type(error).__name__}") from None


def _or_environment(option: str, value: str | None, variable: str) -> str:
    found = value or os.environ.get(variable)
    if not found:
        raise UnusableError(f"{option} or the environment variable {variable} is missing")
    return found
