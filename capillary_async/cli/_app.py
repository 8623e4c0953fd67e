"""The commands: names, options and help. What a command does is in its file in `_commands` or `_demo`.

Invariant: the function of a command only collects its options. Called by `main`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError

from capillary_async._files.addresses import without_secrets
from capillary_async._version import __version__
from capillary_async.cli._commands import export as _export
from capillary_async.cli._commands import ledger as _ledger
from capillary_async.cli._commands import point_reports as _reports
from capillary_async.cli._commands import read as _read
from capillary_async.cli._commands.point_reports import ReportOf
from capillary_async.cli._commands.reconcile import WithBooks
from capillary_async.cli._commands.reconcile import reconcile as run_reconcile
from capillary_async.cli._commands.sandbox import SandboxOptions, latency_of, rate_of, serve
from capillary_async.cli._commands.verify import Checked
from capillary_async.cli._commands.verify import verify as run_verify
from capillary_async.cli._demo.demo import DemoOptions
from capillary_async.cli._demo.demo import demo as run_demo
from capillary_async.cli._help import CompactHelp, epilogue
from capillary_async.cli._io.id_input import STREAM
from capillary_async.cli._io.options import (
    FLAG,
    Awarded,
    Connection,
    EventOf,
    Events,
    Expiry,
    ExportRequest,
    GivenIds,
    LedgerIncludes,
    LedgerOf,
    LedgerPairs,
    LedgerWith,
    NotFound,
    ReadRequest,
    SandboxOf,
)
from capillary_async.cli._io.run import UnusableError, ending
from capillary_async.cli._io.run import run as run_coroutine

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["run"]

# The defaults of the groups of options.
_READ, _CONNECTION, _SANDBOX, _BOOKS = ReadRequest(), Connection(), SandboxOf(), WithBooks()
_EXPIRY, _EVENT, _NOT_FOUND, _AWARDED, _EVENTS = Expiry(), EventOf(), NotFound(), Awarded(), Events()
_WHOSE, _WHAT, _PAIRS, _INCLUDES = LedgerOf(), LedgerWith(), LedgerPairs(), LedgerIncludes()

_STOPPED = "130 SIGINT, 143 SIGTERM"
_SOME = "0 all answered, 1 could not run, 2 some failed"
_READING = f"{_SOME}, {_STOPPED}, 141 SIGPIPE"
_EXPORTING = f"{_SOME}, {_STOPPED}"
_REPORTED = f"0 all customers are in it, 1 could not run, 2 some failed, {_STOPPED}"
_COMPARED = f"1 could not run, 3 differences found, {_STOPPED}"


def _app(name: str, text: str, end: str) -> App:
    return App(name=name, help=text, help_epilogue=end, help_format="plaintext", help_formatter=CompactHelp())


app = _app(
    "capillary-async",
    "Read loyalty points from Capillary's API, or try every command on a local sandbox.",
    epilogue(f"{_SOME}, 3 differences found, {_STOPPED}; each command's --help has its own", "demo"),
)
app.version = __version__
app.suppress_keyboard_interrupt = False
exports = _app(
    "export",
    "Export records of many customers into a folder, durably; the same command again continues. Ids are read from "
    "--ids: one per line, a column of a CSV or Parquet file, or - for stdin.",
    epilogue(_EXPORTING, "export allocations --sandbox --customers 20 --out points/"),
)
reports = _app(
    "report",
    "Write a CSV from exports of allocations: who loses what by when, or what is owed.",
    epilogue(_REPORTED, "report liability points/ --out owed.csv"),
)
app.command(exports)
app.command(reports)


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code."""
    tokens = [STREAM if argument == "-" else argument for argument in arguments]
    return ending(lambda: _dispatched(tokens))


def _dispatched(tokens: list[str]) -> int:
    try:
        code: Any = app(tokens, result_action="return_value", exit_on_error=False, print_error=False)
    except CycloptsError as error:
        text = without_secrets(str(error).replace(STREAM, "-"))  # it repeats what was given, addresses too
        raise UnusableError(f"{text} (--help says more)") from None
    return code if isinstance(code, int) else 0  # help and version give nothing


# --- sandboxes --------------------------------------------------------------------------------------------------------


@app.command(
    help_epilogue=epilogue(f"0 all answered and agreed, 1 not so, or could not run, {_STOPPED}", "demo --customers 500")
)
def demo(
    *,
    customers: int = 100,
    seed: int = 7,
    latency: float = 0.01,
    faults: bool = True,
    disturb: Annotated[bool, FLAG] = False,
    out: Path | None = None,
    quiet: Annotated[bool, FLAG] = False,
) -> int:
    """Start a sandbox, read all its customers from four endpoints at once, and check that the four agree.

    Then export them, kill the export, start it again, verify it, and reconcile it with books that have planted
    differences. The exit code is 0 only if all answers agree and exactly the planted differences are found.

    Args:
        customers: Number of customers of the sandbox.
        seed: The same seed gives the same customers and points.
        latency: Seconds before each answer of the sandbox.
        faults: Let some requests fail, so that retries are seen.
        disturb: Let rows vanish while they are read: the check must find it; exit code 1, without the jobs.
        out: A new or empty folder for export, books and report; it is kept. Default: a new temporary folder.
        quiet: No progress bar.
    """
    options = DemoOptions(
        customers=customers, seed=seed, latency=latency, faults=faults, disturb=disturb, out=out, quiet=quiet
    )
    return run_coroutine(run_demo(options))


@app.command(
    help_epilogue=epilogue("0 stopped by Ctrl-C or SIGTERM, 1 could not run", "sandbox --port 0 --rate 100/60")
)
def sandbox(
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    customers: int = 500,
    seed: int = 7,
    latency: str = "0",
    rate: str | None = None,
) -> int:
    """Serve a sandbox until Ctrl-C, and print how to use it from curl, a shell and Python.

    Args:
        host: The address to listen on.
        port: The port; 0 for any free one.
        customers: Number of customers.
        seed: The same seed gives the same customers and points.
        latency: Seconds before each answer, or a range: 0.02-0.2.
        rate: Maximum requests per seconds, e.g. 100/60; more are answered 429. Default: no limit.
    """
    options = SandboxOptions(
        host=host, port=port, customers=customers, seed=seed, latency=latency_of(latency), rate=rate_of(rate)
    )
    return run_coroutine(serve(options, lambda text: print(text, flush=True)))  # noqa: T201


# --- reading ----------------------------------------------------------------------------------------------------------


@app.command(help_epilogue=epilogue(_READING, "allocations --sandbox --customers 20 --format csv --out points.csv"))
def allocations(  # noqa: D417 - the groups of options describe themselves
    *given: GivenIds,
    expiry: Expiry = _EXPIRY,
    event: EventOf = _EVENT,
    missing: NotFound = _NOT_FOUND,
    asked: ReadRequest = _READ,
) -> int:
    """Read the points allocations of customers that expire within two dates, or those of one event.

    Rows are of one of five award tables, so sums are no balances. Usable: remaining of AVAILABLE rows.

    Args:
        given: Customer ids; - reads them from stdin.
    """
    return run_coroutine(_read.read(given, asked, _read.allocations(expiry, event, missing)))


@app.command(help_epilogue=epilogue(_READING, "awarded --sandbox --customers 20 --status REDEEMED"))
def awarded(  # noqa: D417 - the groups of options describe themselves
    *given: GivenIds,
    expiry: Expiry = _EXPIRY,
    of: Awarded = _AWARDED,
    asked: ReadRequest = _READ,
) -> int:
    """Read the ids of the points awarded to customers or user groups.

    Args:
        given: Customer or user group ids; - reads them from stdin.
    """
    return run_coroutine(_read.read(given, asked, _read.awarded(expiry, of)))


@app.command(help_epilogue=epilogue(_READING, "events 98662653 --from-date 2026-01-01 --event-type EARN"))
def events(  # noqa: D417 - the groups of options describe themselves
    *given: GivenIds, of: Events = _EVENTS, asked: ReadRequest = _READ
) -> int:
    """Read the loyalty events of customers.

    Args:
        given: Customer ids; - reads them from stdin.
    """
    return run_coroutine(_read.read(given, asked, _read.events(of)))


@app.command(help_epilogue=epilogue(_READING, "ledger --mobile 919886100000 5001 5002 --bill-details"))
def ledger(  # noqa: D417 - the groups of options describe themselves
    *given: GivenIds,
    whose: LedgerOf = _WHOSE,
    what: LedgerWith = _WHAT,
    include: LedgerIncludes = _INCLUDES,
    asked: ReadRequest = _READ,
) -> int:
    """Read the details of events of one customer's points ledger.

    In CSV, nested values are JSON text in their cell.

    Args:
        given: Event log ids, or references with --event-name; - reads them from stdin.
    """
    return run_coroutine(_ledger.ledger(given, asked, whose, what, include))


# --- exports, and what is done with them ------------------------------------------------------------------------------


@exports.command(
    name="allocations",
    help_epilogue=epilogue(_EXPORTING, "export allocations --sandbox --customers 20 --out points/"),
)
def export_allocations(*, expiry: Expiry = _EXPIRY, missing: NotFound = _NOT_FOUND, asked: ExportRequest) -> int:
    """Export the points allocations of customers that expire within two dates."""
    return run_coroutine(_export.export(asked, _export.allocations(expiry, missing)))


@exports.command(
    name="awarded",
    help_epilogue=epilogue(_EXPORTING, "export awarded --sandbox --customers 20 --status REDEEMED --out redeemed/"),
)
def export_awarded(*, expiry: Expiry = _EXPIRY, of: Awarded = _AWARDED, asked: ExportRequest) -> int:
    """Export the ids of the points awarded to customers or user groups, of one status."""
    return run_coroutine(_export.export(asked, _export.awarded(expiry, of)))


@exports.command(
    name="events",
    help_epilogue=epilogue(_EXPORTING, "export events --ids customers.txt --from-date 2026-01-01 --out events/"),
)
def export_events(*, of: Events = _EVENTS, asked: ExportRequest) -> int:
    """Export the loyalty events of customers."""
    return run_coroutine(_export.export(asked, _export.events(of)))


@exports.command(
    name="ledger",
    help_epilogue=epilogue(_EXPORTING, "export ledger --ids points/shards --bill-details --out ledger/"),
)
def export_ledger(*, pairs: LedgerPairs = _PAIRS, include: LedgerIncludes = _INCLUDES, asked: ExportRequest) -> int:
    """Export the details of events of customers' ledgers.

    The shards of an export of allocations or awarded ids can be given as --ids: they have the event log ids of their
    customers. The ids of loyalty events are different.
    """
    return run_coroutine(_export.export(asked, _export.ledger(pairs, include)))


@app.command(
    help_epilogue=epilogue(
        "0 all is as the manifest says, 1 could not run or the service did not answer the sample, 2 as 0, and some "
        f"customers of the export failed, 3 differences found, {_STOPPED}",
        "verify points/ --against-api --sample 200",
    )
)
def verify(  # noqa: D417 - the groups of options describe themselves
    out: Path,
    /,
    *,
    against_api: Annotated[bool, FLAG] = False,
    sample: int = 100,
    seed: int | None = None,
    quiet: Annotated[bool, FLAG] = False,
    connection: Connection = _CONNECTION,
    sandbox_of: SandboxOf = _SANDBOX,
) -> int:
    """Recompute counts, totals and hashes of an export and check them against its manifest.

    Args:
        out: The folder of the export.
        against_api: Also read a sample of customers again, over the connection, and compare each record.
        sample: Number of customers in the sample.
        seed: The same seed selects the same sample. Default: random.
        quiet: Print only what differs.
    """
    return run_coroutine(run_verify(Checked(out, against_api, sample, seed, quiet), connection, sandbox_of))


@app.command(
    help_epilogue=epilogue(
        f"0 equal and no rule broken, {_COMPARED}",
        "reconcile points/ --books books.csv --key id --compare remaining=points",
    )
)
def reconcile(folder: str, *, with_books: WithBooks = _BOOKS) -> int:  # noqa: D417 - the group describes itself
    """Compare an export with your own books, record by record, and check it by its own rules.

    Args:
        folder: The folder of a finished export.
    """
    return run_coroutine(run_reconcile(folder, with_books))


@reports.command(
    name="expiry",
    help_epilogue=epilogue(_REPORTED, "report expiry points/ --out campaign.csv --by 2026-12-31"),
)
def report_expiry(  # noqa: D417 - the group describes itself
    *folders: str,
    report: ReportOf,
    by: str | None = None,
    as_of: str | None = None,
) -> int:
    """Write who loses how many points by when: one row per customer and last day.

    Args:
        folders: Finished exports of allocations.
        by: Leave out what can be used after this day, YYYY-MM-DD.
        as_of: Leave out what expired before, a day or a time. Default: when the exports were read.
    """
    return run_coroutine(_reports.expiry(folders, report, by, as_of))


@reports.command(
    name="liability",
    help_epilogue=epilogue(_REPORTED, "report liability points/ --out owed.csv --currency-rate 0.25"),
)
def report_liability(  # noqa: D417 - the group describes itself
    *folders: str, report: ReportOf, currency_rate: str | None = None
) -> int:
    """Write what is owed: one row per month of expiry, status, program and category.

    Args:
        folders: Finished exports of allocations.
        currency_rate: Money for one point, e.g. 0.25; exact.
    """
    return run_coroutine(_reports.liability(folders, report, currency_rate))
