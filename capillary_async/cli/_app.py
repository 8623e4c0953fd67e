"""The commands: names, options and help. What a command does is in its file in `_commands` or `_demo`.

Invariant: the function of a command only collects its options. Called by `main`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from capillary_async._files.addresses import without_secrets
from capillary_async._version import __version__
from capillary_async.cli._commands.export import Exported
from capillary_async.cli._commands.export import allocations as allocations_query
from capillary_async.cli._commands.export import awarded as awarded_query
from capillary_async.cli._commands.export import events as events_query
from capillary_async.cli._commands.export import export as run_export
from capillary_async.cli._commands.export import ledger as ledger_query
from capillary_async.cli._commands.ledger import ledger as read_ledger
from capillary_async.cli._commands.point_reports import ReportOf
from capillary_async.cli._commands.point_reports import expiry as run_expiry
from capillary_async.cli._commands.point_reports import liability as run_liability
from capillary_async.cli._commands.read import ReadRequest, read
from capillary_async.cli._commands.read import allocations as allocations_job
from capillary_async.cli._commands.read import awarded as awarded_job
from capillary_async.cli._commands.read import events as events_job
from capillary_async.cli._commands.reconcile import WithBooks
from capillary_async.cli._commands.reconcile import reconcile as run_reconcile
from capillary_async.cli._commands.sandbox import SandboxOptions, latency_of, rate_of, serve
from capillary_async.cli._commands.verify import Checked
from capillary_async.cli._commands.verify import verify as run_verify
from capillary_async.cli._demo.demo import DemoOptions
from capillary_async.cli._demo.demo import demo as run_demo
from capillary_async.cli._io.id_input import STREAM
from capillary_async.cli._io.options import (
    Connection,
    EventOf,
    Expiry,
    ExportOf,
    IdSource,
    LedgerIncludes,
    LedgerOf,
    LedgerPairs,
    LedgerWith,
    NotFound,
    Output,
    SandboxOf,
)
from capillary_async.cli._io.run import UnusableError, ending
from capillary_async.cli._io.run import run as run_coroutine

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["run"]

_IDS, _OUTPUT, _CONNECTION, _SANDBOX = IdSource(), Output(), Connection(), SandboxOf()
_EXPIRY, _EVENT, _WHOSE, _WHAT, _NOT_FOUND = Expiry(), EventOf(), LedgerOf(), LedgerWith(), NotFound()
_PAIRS, _INCLUDES, _BOOKS = LedgerPairs(), LedgerIncludes(), WithBooks()
_FLAG = Parameter(negative="", show_default=False)

_STOPPED = "130 interrupted (SIGINT), 143 terminated (SIGTERM)"
_SOME = "Exit codes: 0 all answered, 1 could not run, 2 some customers failed"
_CODES = f"{_SOME}, 3 differences found, {_STOPPED}; each command's --help has its own."
_READING = f"{_SOME}, {_STOPPED}, 141 the reader of stdout is gone."
_EXPORTING = f"{_SOME}, {_STOPPED}."
_VERIFYING = (
    "Exit codes: 0 all is as the manifest says, 1 could not run or the service did not answer the sample, 2 as 0, and "
    f"some customers of the export failed, 3 differences found, {_STOPPED}."
)
_RECONCILING = f"Exit codes: 0 equal and no rule broken, 1 could not run, 3 differences found, {_STOPPED}."
_DEMO = f"Exit codes: 0 all answered and agreed, 1 something did not, or it could not run, {_STOPPED}."
_SERVING = "Exit codes: 0 stopped by Ctrl-C or SIGTERM, 1 could not run."

app = App(
    name="capillary-async",
    help="Read loyalty points from Capillary's API, or try every command on a local sandbox.",
    help_epilogue=_CODES,
    help_format="plaintext",
    version=__version__,
    suppress_keyboard_interrupt=False,
)


def run(arguments: Sequence[str]) -> int:
    """Run a command line and give its exit code."""
    tokens = [STREAM if argument == "-" else argument for argument in arguments]
    return ending(lambda: _dispatched(tokens))


def _dispatched(tokens: list[str]) -> int:
    try:
        code: Any = app(tokens, result_action="return_value", exit_on_error=False, print_error=False)
    except CycloptsError as error:
        text = without_secrets(str(error).replace(STREAM, "-"))  # it repeats what was given, addresses too
        raise UnusableError(f"{text} (--help says more)") from None
    return code if isinstance(code, int) else 0  # help and version give nothing


@app.command(help_epilogue=_DEMO)
def demo(
    *,
    customers: int = 100,
    seed: int = 7,
    latency: float = 0.01,
    faults: bool = True,
    disturb: Annotated[bool, _FLAG] = False,
    out: Path | None = None,
    quiet: Annotated[bool, _FLAG] = False,
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


@app.command(help_epilogue=_SERVING)
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


@app.command(help_epilogue=_READING)
def allocations(  # noqa: D417 - the groups of options describe themselves
    *given: Annotated[str, Parameter(name="ids")],
    expiry: Expiry = _EXPIRY,
    event: EventOf = _EVENT,
    missing: NotFound = _NOT_FOUND,
    ids: IdSource = _IDS,
    output: Output = _OUTPUT,
    connection: Connection = _CONNECTION,
    sandbox_of: SandboxOf = _SANDBOX,
) -> int:
    """Read the points allocations of customers that expire within two dates, or those of one event.

    The rows are from one of five award tables, so sums are no balances. Usable points: remaining of AVAILABLE rows.

    Args:
        given: Customer ids; - reads them from stdin.
    """
    job = allocations_job(expiry, event, missing)
    return run_coroutine(read(ReadRequest(given, ids, output, connection, sandbox_of), job))


@app.command(help_epilogue=_READING)
def awarded(  # noqa: D417 - the groups of options describe themselves
    *given: Annotated[str, Parameter(name="ids")],
    status: str | None = None,
    org_id: int | None = None,
    batch_size: int = 50,
    expiry: Expiry = _EXPIRY,
    ids: IdSource = _IDS,
    output: Output = _OUTPUT,
    connection: Connection = _CONNECTION,
    sandbox_of: SandboxOf = _SANDBOX,
) -> int:
    """Read the ids of the points awarded to customers or user groups.

    Args:
        given: Customer or user group ids; - reads them from stdin. User groups need --batch-size 1.
        status: AVAILABLE, REDEEMED, EXPIRED, CONSUMED, RETURNED, CONSUMED_BY_CONVERSION, INACTIVE, ...
        org_id: The organisation.
        batch_size: Maximum ids per request.
    """
    return run_coroutine(
        read(ReadRequest(given, ids, output, connection, sandbox_of), awarded_job(expiry, status, org_id, batch_size))
    )


@app.command(help_epilogue=_READING)
def events(  # noqa: D417 - the groups of options describe themselves
    *given: Annotated[str, Parameter(name="ids")],
    event_type: str | None = None,
    from_date: str | None = None,
    to_date: str | None = None,
    ids: IdSource = _IDS,
    output: Output = _OUTPUT,
    connection: Connection = _CONNECTION,
    sandbox_of: SandboxOf = _SANDBOX,
) -> int:
    """Read the loyalty events of customers.

    Args:
        given: Customer ids; - reads them from stdin.
        event_type: Only events of this type, e.g. EARN, REDEEM, EXPIRE, TRANSFER.
        from_date: First day, YYYY-MM-DD, in the server's time zone.
        to_date: Last day.
    """
    return run_coroutine(
        read(ReadRequest(given, ids, output, connection, sandbox_of), events_job(event_type, from_date, to_date))
    )


@app.command(help_epilogue=_READING)
def ledger(  # noqa: D417 - the groups of options describe themselves
    *given: Annotated[str, Parameter(name="ids")],
    whose: LedgerOf = _WHOSE,
    what: LedgerWith = _WHAT,
    ids: IdSource = _IDS,
    output: Output = _OUTPUT,
    connection: Connection = _CONNECTION,
    sandbox_of: SandboxOf = _SANDBOX,
) -> int:
    """Read the details of events of one customer's points ledger.

    In CSV, nested values are JSON text in their cell.

    Args:
        given: Event log ids, or references with --event-name; - reads them from stdin.
    """
    asked = ReadRequest(given, ids, output, connection, sandbox_of)
    return run_coroutine(read_ledger(asked, whose, what))


exports = App(
    name="export",
    help=(
        "Export records of many customers into a folder, durably; the same command again continues. Ids are read "
        "from --ids: one per line, a column of a CSV or Parquet file, or - for stdin."
    ),
    help_epilogue=_EXPORTING,
    help_format="plaintext",
)
app.command(exports)


@exports.command(name="allocations")
def export_allocations(
    *,
    export: ExportOf,
    expiry: Expiry = _EXPIRY,
    missing: NotFound = _NOT_FOUND,
    ids: IdSource = _IDS,
    connection: Connection = _CONNECTION,
    sandbox_of: SandboxOf = _SANDBOX,
) -> int:
    """Export the points allocations of customers that expire within two dates."""
    return run_coroutine(run_export(Exported(ids, export, connection, sandbox_of), allocations_query(expiry, missing)))


@exports.command(name="awarded")
def export_awarded(  # noqa: D417 - the groups of options describe themselves
    *,
    export: ExportOf,
    status: str | None = None,
    org_id: int | None = None,
    batch_size: int = 50,
    expiry: Expiry = _EXPIRY,
    ids: IdSource = _IDS,
    connection: Connection = _CONNECTION,
    sandbox_of: SandboxOf = _SANDBOX,
) -> int:
    """Export the ids of the points awarded to customers or user groups, of one status.

    Args:
        status: AVAILABLE, REDEEMED, EXPIRED, CONSUMED, RETURNED, CONSUMED_BY_CONVERSION, INACTIVE, ...
        org_id: The organisation.
        batch_size: Maximum ids per request. User groups need 1.
    """
    query = awarded_query(expiry, status, org_id, batch_size)
    return run_coroutine(run_export(Exported(ids, export, connection, sandbox_of), query))


@exports.command(name="events")
def export_events(  # noqa: D417 - the groups of options describe themselves
    *,
    export: ExportOf,
    event_type: str | None = None,
    from_date: str | None = None,
    to_date: str | None = None,
    ids: IdSource = _IDS,
    connection: Connection = _CONNECTION,
    sandbox_of: SandboxOf = _SANDBOX,
) -> int:
    """Export the loyalty events of customers.

    Args:
        event_type: Only events of this type, e.g. EARN, REDEEM, EXPIRE, TRANSFER.
        from_date: First day, YYYY-MM-DD, in the server's time zone.
        to_date: Last day.
    """
    query = events_query(event_type, from_date, to_date)
    return run_coroutine(run_export(Exported(ids, export, connection, sandbox_of), query))


@exports.command(name="ledger")
def export_ledger(
    *,
    export: ExportOf,
    pairs: LedgerPairs = _PAIRS,
    include: LedgerIncludes = _INCLUDES,
    ids: IdSource = _IDS,
    connection: Connection = _CONNECTION,
    sandbox_of: SandboxOf = _SANDBOX,
) -> int:
    """Export the details of events of customers' ledgers.

    The shards of an export of allocations or awarded ids can be given as --ids: they have the event log ids of their
    customers. The ids of loyalty events are different.
    """
    return run_coroutine(run_export(Exported(ids, export, connection, sandbox_of), ledger_query(pairs, include)))


@app.command(help_epilogue=_VERIFYING)
def verify(  # noqa: D417 - the groups of options describe themselves
    out: Path,
    /,
    *,
    against_api: Annotated[bool, _FLAG] = False,
    sample: int = 100,
    seed: int | None = None,
    quiet: Annotated[bool, _FLAG] = False,
    connection: Connection = _CONNECTION,
    sandbox_of: SandboxOf = _SANDBOX,
) -> int:
    """Recompute counts, totals and hashes of an export and check them against its manifest.

    Args:
        out: The folder of the export.
        against_api: Also read a sample of customers again and compare each record.
        sample: Number of customers in the sample.
        seed: The same seed selects the same sample. Default: random.
        quiet: Print only what differs.
    """
    return run_coroutine(run_verify(Checked(out, against_api, sample, seed, quiet), connection, sandbox_of))


@app.command(help_epilogue=_RECONCILING)
def reconcile(folder: str, *, with_books: WithBooks = _BOOKS) -> int:  # noqa: D417 - the group describes itself
    """Compare an export with your own books, record by record, and check it by its own rules.

    Args:
        folder: The folder of a finished export.
    """
    return run_coroutine(run_reconcile(folder, with_books))


reports = App(name="report", help="Write a CSV from exports of allocations: who loses what by when, or what is owed.")
app.command(reports)


@reports.command(name="expiry")
def report_expiry(  # noqa: D417 - the group describes itself
    *folders: str,
    report: ReportOf,
    by: str | None = None,
    as_of: str | None = None,
) -> int:
    """Write who loses how many points by when: one row per customer and last day.

    Example: capillary-async report expiry points/ --out campaign.csv --timezone Asia/Kolkata --by 2026-12-31

    Args:
        folders: Finished exports of allocations.
        by: Leave out what can be used after this day, YYYY-MM-DD.
        as_of: Leave out what expired before, a day or a time; default: when the exports were read.
    """
    return run_coroutine(run_expiry(folders, report, by, as_of))


@reports.command(name="liability")
def report_liability(  # noqa: D417 - the group describes itself
    *folders: str, report: ReportOf, currency_rate: str | None = None
) -> int:
    """Write what is owed: one row per month of expiry, status, program and category.

    Example: capillary-async report liability points/ --out owed.csv --timezone Asia/Kolkata --currency-rate 0.25

    Args:
        folders: Finished exports of allocations.
        currency_rate: Money for one point, e.g. 0.25; exact.
    """
    return run_coroutine(run_liability(folders, report, currency_rate))
