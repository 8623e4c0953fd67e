"""`ledger`: the details of events of one customer's points ledger, to JSON Lines or CSV.

Invariant: ids that the server refuses are reported, and the ids after them are read all the same. Called by `_app.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

import attrs

from capillary_async import Identifier, LedgerInclude, LedgerRequestError
from capillary_async.cli._commands.read import to_same_terminal
from capillary_async.cli._io.id_input import ids_of
from capillary_async.cli._io.progress import Report
from capillary_async.cli._io.rows import LEDGER
from capillary_async.cli._io.run import UnusableError
from capillary_async.cli._io.session import connected
from capillary_async.cli._io.stall_notice import StallMonitor
from capillary_async.cli._io.writer import Writer

if TYPE_CHECKING:
    from capillary_async import AsyncSession, LedgerEvent, Pager, Position
    from capillary_async.cli._io.options import IdSource, ReadRequest
    from capillary_async.cli._io.record_options import LedgerIncludes, LedgerOf, LedgerWith
    from capillary_async.sandbox import Sandbox

__all__ = ["ledger"]

_IDS_A_PAGE = 10


async def ledger(
    given: tuple[str, ...], asked: ReadRequest, whose: LedgerOf, what: LedgerWith, include: LedgerIncludes
) -> int:
    """Read the ledger's events and write them; return the exit code.

    Raises:
        UnusableError: The command cannot run like this.
        CapillaryError: The identifier was refused, or no answer came.
    """
    stall = StallMonitor()
    async with connected(asked.connection, asked.sandbox, stall) as (session, sandbox):
        owner = _owner(whose, sandbox)
        ids = await _ids(given, asked.ids, sandbox, references=what.event_name is not None)
        pager = _pager(session, owner, ids, what, LedgerInclude(**attrs.asdict(include)))
        output = asked.output
        shared = to_same_terminal(output)
        with Report("ledger", quiet=output.quiet, total=len(ids), shared=shared) as report:
            async with stall.reporting(session, report.stalled), Writer(output, LEDGER) as writer:
                await _pump(pager, len(ids), report, writer)
            return report.close(session.stats)


def _owner(whose: LedgerOf, sandbox: Sandbox | None) -> Identifier:
    given = [(kind, value) for kind, value in attrs.asdict(whose).items() if value is not None]
    if not given and sandbox is not None and sandbox.customer_ids:
        return Identifier.customer_id(sandbox.customer_ids[0])
    if len(given) != 1:
        kinds = ", ".join(f"--{name.replace('_', '-')}" for name in attrs.asdict(whose))
        raise UnusableError(f"whose ledger: give one of {kinds}")
    return Identifier(*given[0])


async def _ids(given: tuple[str, ...], source: IdSource, sandbox: Sandbox | None, *, references: bool) -> list[Any]:
    """Return the event ids or references without duplicates; they are few, of one customer."""
    first = sandbox.customer_ids[0] if sandbox and sandbox.customer_ids else None
    own = sandbox.event_log_ids(first) if sandbox and first is not None else None
    keys = ids_of(given, source, own, rule="references" if references else "ids")
    listed = [key async for key in keys] if isinstance(keys, AsyncIterable) else keys
    return list(dict.fromkeys(listed))


def _pager(
    session: AsyncSession, owner: Identifier, ids: list[Any], what: LedgerWith, include: LedgerInclude
) -> Pager[LedgerEvent]:
    by_name = what.event_name is not None
    return session.points_ledger.explode(
        identifier=owner,
        source=what.source,
        event_ids=None if by_name else ids,
        event_name=what.event_name,
        event_reference_ids=ids if by_name else None,
        account_id=what.account_id,
        include=include,
        type=what.type,
        is_primary_user=what.is_primary_user,
        alternate_currency_names=what.alternate_currency_name or None,
    )


async def _pump(pager: Pager[LedgerEvent], ids: int, report: Report, writer: Writer) -> None:
    """Read page after page; after a page with refused ids, reading continues at its position."""
    start: Position | None = None
    while True:
        pages = (pager if start is None else pager.options(start=start)).pages()
        try:
            async for page in pages:
                report.warned(f"page {page.number}", page.warnings)
                await writer.write(LEDGER.row(record) for record in page.items)
                report.answered(len(page), keys=min(_IDS_A_PAGE, ids - (page.number - 1) * _IDS_A_PAGE))
        except LedgerRequestError as error:
            if not error.refused or error.position in (None, start):
                raise
            report.answered(0, keys=-len(error.refused))
            for one in error.refused:
                report.refused(one, error)
            start = error.position
        else:
            return
        finally:
            await pages.aclose()
