"""`sandbox`: serve a sandbox until it is stopped, and print how to use it; or while a command runs.

Invariant: what is printed works when it is pasted. Called by `_app.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sysconfig
from base64 import b64encode
from typing import TYPE_CHECKING

from attrs import frozen

from capillary_async.cli._commands.sandbox_books import today_there, write_books_of
from capillary_async.cli._io.run import UnusableError
from capillary_async.cli._io.words import count
from capillary_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["SandboxOptions", "latency_of", "rate_of", "serve"]

_PORT = 8080
_GRACE = 10.0  # seconds that a command has to end when the sandbox is stopped
_HOW = """\
A sandbox with {customers} customers (seed {seed}) answers on {url} until Ctrl-C.

curl --silent --show-error '{url}/x/neo/pointsAllocation/dateRange?{query}' \\
  --header 'x-cap-neo-dag-scope: global' \\
  --header 'Authorization: Basic {basic}'

For the command line and AsyncSession.from_env(), in a shell:

export CAPILLARY_BASE_URL={url} CAPILLARY_USERNAME={username} CAPILLARY_PASSWORD={password}

In Python:

import asyncio
from capillary_async import AsyncSession, BasicAuth

async def main():
    async with AsyncSession("{url}", auth=BasicAuth("{username}", password="{password}")) as capillary:
        async for allocation in capillary.points_allocation.by_expiry(
            entity_id={customer}, program_id={program}, point_category_id={category},
            expiry_date_start="{start}", expiry_date_end="{end}",
        ):
            print(allocation.id, allocation.status, allocation.remaining, allocation.expires_at)

asyncio.run(main())

Customers: {people}. OAuth: key {key}, secret {secret}.
"""


@frozen(kw_only=True)
class SandboxOptions:
    """The options of `sandbox`.

    Attributes:
        host, port: Where to listen; port 0 is any free one.
        customers, seed: Of the sandbox.
        latency: Seconds before each answer, the least and the most.
        rate: Maximum requests, and the seconds they count for; None for no limit.
        books: A file for books of its allocations, with a file of ids beside it; None for neither.
        command: Runs with the sandbox in its environment, which ends with it; empty for none.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    customers: int = 500
    seed: int = 7
    latency: tuple[float, float] = (0.0, 0.0)
    rate: tuple[float, float] | None = None
    books: Path | None = None
    command: tuple[str, ...] = ()


def latency_of(text: str) -> tuple[float, float]:
    """Return the bounds of `0.02` or `0.02-0.2`, in seconds.

    Raises:
        UnusableError: The text is neither.
    """
    low, _, high = text.partition("-")
    try:
        return float(low), float(high or low)
    except ValueError:
        raise UnusableError(f"--latency takes seconds or least-most, e.g. 0.02-0.2, got {text!r}") from None


def rate_of(text: str | None) -> tuple[float, float] | None:
    """Return the requests and seconds of `100/60`.

    Raises:
        UnusableError: The text has another form.
    """
    if text is None:
        return None
    permits, _, per = text.partition("/")
    try:
        return float(permits), float(per)
    except ValueError:
        raise UnusableError(f"--rate takes requests/seconds, e.g. 100/60, got {text!r}") from None


async def serve(options: SandboxOptions, show: Callable[[str], object]) -> int:
    """Serve until SIGINT or SIGTERM, or until the command ends, and return the exit code.

    Raises:
        UnusableError: An option is invalid, the port is taken, or the command cannot be started.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        sandbox = await _started(options)
    except OSError as error:
        raise UnusableError(error.strerror or str(error)) from error
    except ValueError as error:
        raise UnusableError(str(error)) from error
    try:
        if options.books is not None:
            written = write_books_of(sandbox, options.books)
            if not options.command:  # whose stdout it would be in
                show(written)
        if options.command:
            return await _run_beside(sandbox, options.command, stop)
        show(how_to_use(sandbox, options))
        await stop.wait()
    finally:
        await sandbox.aclose()
    show(f"stopped after {count(sandbox.requests, 'request')}")
    return 0


async def _run_beside(sandbox: Sandbox, command: tuple[str, ...], stop: asyncio.Event) -> int:
    """Run a command with the sandbox as its cluster, and return its exit code; a signal ends both."""
    own = {name: text for name, text in os.environ.items() if not name.startswith("CAPILLARY_")}
    cluster = {"BASE_URL": sandbox.url, "USERNAME": sandbox.username, "PASSWORD": sandbox.password}
    path = os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)))
    environment = own | {f"CAPILLARY_{name}": text for name, text in cluster.items()} | {"PATH": path}
    try:
        process = await asyncio.create_subprocess_exec(*command, env=environment)
    except OSError as error:
        raise UnusableError(f"{command[0]} cannot be started: {error.strerror or error}") from error
    ended, stopped = asyncio.ensure_future(process.wait()), asyncio.ensure_future(stop.wait())
    await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not ended.done():
        process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(ended), _GRACE)
    if not ended.done():
        process.kill()
    code = await ended
    return code if code >= 0 else 128 - code  # as a shell has it


async def _started(options: SandboxOptions) -> Sandbox:
    sandbox = Sandbox(
        customers=options.customers,
        seed=options.seed,
        latency=options.latency,
        rate=options.rate,
        host=options.host,
        port=options.port if options.port is not None else 0 if options.command else _PORT,
        journal_limit=1_000,
        today=None if options.books is None else today_there(),  # a run of today finds no points that have lapsed
    )
    return await sandbox.start()


def how_to_use(sandbox: Sandbox, options: SandboxOptions) -> str:
    """Return a curl command and a Python snippet, ready to be pasted."""
    ids = sandbox.customer_ids or [sandbox.unknown_id]
    start, end = sandbox.expiry_date_start, sandbox.expiry_date_end
    query = (
        f"expiry_date_start={start}&expiry_date_end={end}&point_category_id={sandbox.point_category_id}"
        f"&program_id={sandbox.program_id}&entity_id={ids[0]}"
    )
    basic = b64encode(f"{sandbox.username}:{sandbox.auth._wire_password()}".encode()).decode()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    names = {"username": sandbox.username, "password": sandbox.password, "key": sandbox.key, "secret": sandbox.secret}
    points = {"program": sandbox.program_id, "category": sandbox.point_category_id, "start": start, "end": end}
    shown = ", ".join(map(str, ids[:3])) + (f", ... {ids[-1]}" if ids[3:] else "")
    people = {"customer": ids[0], "people": shown, "customers": options.customers}
    return _HOW.format(url=sandbox.url, query=query, basic=basic, seed=options.seed, **names, **points, **people)
