"""From options to an open session, on the real API or on a sandbox in this process.

Invariant: a secret is read from the environment or a file, and no message shows it. Used by `_commands/read.py` and
`_commands/ledger.py`.
"""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from os import environ
from typing import TYPE_CHECKING, Any, TypeVar

from capillary_async import AsyncSession, InvalidRequestError, Limits, Paging, Rate, RetryPolicy
from capillary_async.auth import from_env
from capillary_async.cli._io.run import UnusableError
from capillary_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from capillary_async import BasicAuth, OAuthClient
    from capillary_async.cli._io.options import Connection, SandboxOf
    from capillary_async.cli._io.stall_notice import StallMonitor

__all__ = ["connected", "needed"]

T = TypeVar("T")

_OPTIONS = {  # the option that can be given instead of a variable
    "CAPILLARY_USERNAME": "--username",
    "CAPILLARY_PASSWORD": "--password-file",
    "CAPILLARY_CLIENT_KEY": "--client-key",
    "CAPILLARY_CLIENT_SECRET": "--client-secret-file",
}


@asynccontextmanager
async def connected(
    connection: Connection, sandbox_of: SandboxOf, stall: StallMonitor
) -> AsyncGenerator[tuple[AsyncSession, Sandbox | None]]:
    """A session, and the sandbox it talks to if that was asked for.

    Raises:
        UnusableError: An option is invalid, or a credential is missing.
    """
    if not sandbox_of.sandbox:
        async with _session(connection, _outside(connection), stall) as session:
            yield session, None
        return
    try:
        sandbox = Sandbox(customers=sandbox_of.customers, seed=sandbox_of.seed)
    except ValueError as error:
        raise UnusableError(str(error)) from error
    async with sandbox, _session(connection, _of(sandbox), stall) as session:
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


def _session(connection: Connection, where: dict[str, Any], stall: StallMonitor) -> AsyncSession:
    try:
        make: Callable[..., AsyncSession] = where.pop("make", AsyncSession.from_env)
        rate = _rate(connection.rate, connection.shared_rate, where.pop("shared_rate", None))
        return make(
            **where,
            limits=Limits(concurrency=connection.concurrency, rate=rate),
            retry=RetryPolicy(attempts=connection.attempts),
            paging=Paging(page_size=connection.page_size, verify=connection.verify),
            dag_scope=connection.dag_scope,
            server_timezone=connection.server_timezone,
            middlewares=[stall],
        )
    except ValueError as error:
        raise UnusableError(str(error)) from error


def _rate(text: str | None, address: str | None, otherwise: str | None) -> Rate | None:
    """The rate of the options; shared where they or the environment, `otherwise`, name a Redis."""
    if "@" in (address or ""):
        raise UnusableError(
            "--shared-rate takes a URL without user name and password: set CAPILLARY_SHARED_RATE, which may have them"
        )
    if text is None:
        if address is not None:
            raise UnusableError("--shared-rate goes with --rate, e.g. --rate 200/1")
        return None
    permits, _, per = text.partition("/")
    try:
        rate = Rate(int(permits), float(per))
    except ValueError as error:
        raise UnusableError(f"--rate takes requests/seconds, e.g. 100/60, got {text!r}") from error
    source = "--shared-rate" if address is not None else "CAPILLARY_SHARED_RATE"
    try:
        return Rate(rate.permits, rate.per, otherwise if address is None else address)
    except ValueError as error:
        raise UnusableError(str(error).replace("Rate.shared", source, 1)) from None


def _of(sandbox: Sandbox) -> dict[str, Any]:
    """A sandbox in this process, which no proxy of the environment reaches."""
    return {"make": AsyncSession, "base_url": sandbox.url, "auth": sandbox.auth}


def _outside(connection: Connection) -> dict[str, Any]:
    """What the options say of server, way and credentials; the environment says the rest."""
    if connection.base_url is not None and not connection.base_url.strip():
        raise UnusableError(f"--base-url takes a URL, got {connection.base_url!r}")
    if "@" in (connection.proxy or ""):
        raise UnusableError(
            "--proxy takes a URL without user name and password: set CAPILLARY_PROXY, which may have them"
        )
    where: dict[str, Any] = {
        "base_url": connection.base_url,
        "proxy": connection.proxy,
        "ssl_context": _tls(connection.ca_file, connection.client_cert),
        "shared_rate": environ.get("CAPILLARY_SHARED_RATE") or None,
    }
    if connection.username or connection.password_file or connection.client_key or connection.client_secret_file:
        where["auth"] = _auth(connection)
    return where


def _tls(ca_file: Path | None, client_cert: Path | None) -> ssl.SSLContext | None:
    """The TLS settings of the options; None for the system's own."""
    if ca_file is None and client_cert is None:
        return None
    context = _loaded("--ca-file", ca_file, lambda: ssl.create_default_context(cafile=ca_file))
    if client_cert is not None:
        # With a password of its own, openssl would ask for it on the terminal.
        _loaded("--client-cert", client_cert, lambda: context.load_cert_chain(client_cert, password=""))
    return context


def _loaded(option: str, path: Path | None, load: Callable[[], T]) -> T:
    try:
        return load()
    except ssl.SSLError as error:
        what = "certificates in PEM" if option == "--ca-file" else "a certificate and its key in PEM, not encrypted"
        raise UnusableError(f"{option}: {path} does not hold {what}: {error.reason}") from None
    except OSError as error:
        raise UnusableError(f"{option}: cannot read {path}: {type(error).__name__}") from None


def _auth(connection: Connection) -> BasicAuth | OAuthClient:
    try:
        return from_env(
            {
                "CAPILLARY_USERNAME": connection.username,
                "CAPILLARY_PASSWORD": _secret("--password-file", connection.password_file),
                "CAPILLARY_CLIENT_KEY": connection.client_key,
                "CAPILLARY_CLIENT_SECRET": _secret("--client-secret-file", connection.client_secret_file),
            }
        )
    except InvalidRequestError as error:
        option = _OPTIONS.get(error.argument or "")
        raise UnusableError(f"{option} or {error}" if option else str(error)) from error
    except ValueError as error:
        raise UnusableError(str(error)) from error


def _secret(option: str, path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        text = path.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableError(f"{option}: cannot read {path}: {type(error).__name__}") from None
    if not text:
        raise UnusableError(f"{option}: {path} is empty")
    return text
