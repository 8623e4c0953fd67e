"""All rules that an export is checked by: those of its own, and those against other exports of the same customers.

Invariant: every export that is given is used, and its kind is checked. Called by `_reconcile.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._comparing.alike import unlike
from capillary_async.jobs._comparing.export_reader import ExportReader, open_folders
from capillary_async.jobs._comparing.rule_catalog import row_rules, set_rules
from capillary_async.jobs._comparing.rule_joins import awarded_rules, event_rules, ledger_rules, without_ledger
from capillary_async.jobs._comparing.rules import Example, Finding, Rule, check_manifest, check_rows, check_set
from capillary_async.jobs._comparing.summary import subject_of
from capillary_async.jobs._dataset.drift import lines_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from capillary_async.jobs._books.duckdb_engine import Engine
    from capillary_async.jobs._comparing.arguments import Arguments
    from capillary_async.jobs._comparing.result import Subject
    from capillary_async.jobs._comparing.rules import SetRule

__all__ = ["OtherExports", "check_export"]

_JOINED: Mapping[str, tuple[str, tuple[str, ...]]] = {  # kind: its role in the report, the kinds it is joined with
    "awarded": ("Awarded ids", ("allocations",)),
    "events": ("Loyalty events", ("allocations", "awarded")),
    "ledger": ("Ledger", ("allocations", "awarded")),
}
_IDS_DIFFER = Rule(
    "exports-of-same-customers",
    "note",
    "All exports asked for the same customers. Where they did not, records of customers that only one of them asked "
    "for look as if they were missing.",
)
_NEW = Rule(
    "documented-values-only",
    "note",
    "All members, statuses, event names and source tables are ones that the API's documentation knows. Others are no "
    "fault: something was added to the API. Unknown members are not in the columns of the export.",
)


class OtherExports:
    """The other exports of the same customers, by kind.

    Raises:
        JobError: One cannot be read, is of another kind, or is not joined with this kind of export.
    """

    def __init__(self, engine: Engine, export: ExportReader, arguments: Arguments) -> None:
        self._export = export
        given = {
            "awarded": arguments.with_awarded,
            "events": arguments.with_events,
            "ledger": arguments.with_ledger,
        }
        self._by_kind = {kind: self._open(engine, path, kind) for kind, path in given.items() if path is not None}

    def _open(self, engine: Engine, path: Path, kind: str) -> ExportReader:
        export, (_, joined) = self._export, _JOINED[kind]
        if export.source_name not in joined:
            raise JobError(
                f"with_{kind} goes with an export of {' or '.join(joined)}, and {export.path} is one of "
                f"{export.source_name}",
                path=str(export.path),
            )
        other = open_folders(engine, [path], kind)
        if other.source_name != kind:
            raise JobError(f"{path} is an export of {other.source_name}, not of {kind}", path=str(path))
        return other

    @property
    def subjects(self) -> list[Subject]:
        """What they are, for the report."""
        return [subject_of(_JOINED[kind][0], other) for kind, other in self._by_kind.items()]

    @property
    def warnings(self) -> list[str]:
        """What they asked for otherwise than the export."""
        found = (
            each for other in self._by_kind.values() for part in self._export.exports for each in unlike(part, other)
        )
        return list(dict.fromkeys(found))

    def rules(self) -> Iterator[SetRule]:
        """The rules of every pair that is joined."""
        awarded, events, ledger = map(self._by_kind.get, ("awarded", "events", "ledger"))
        if awarded:
            yield from awarded_rules(self._export, awarded)
        for rows in (self._export, awarded):
            if rows and ledger:
                yield from ledger_rules(rows, ledger)
                yield from event_rules(rows, events, ledger) if events else ()

    def findings(self) -> Iterator[Finding]:
        """What is found without reading rows."""
        if "events" in self._by_kind and "ledger" not in self._by_kind:
            yield without_ledger(self._by_kind["events"])
        for other in self._by_kind.values():
            yield from _new_in(other)
        if self._by_kind and not self._export.parts:
            # The ids of a ledger are identifiers with their events, so that their digest is another one.
            yield _same_ids(self._export, [other for kind, other in self._by_kind.items() if kind != "ledger"])


def check_export(engine: Engine, export: ExportReader, others: OtherExports, as_of: datetime) -> list[Finding]:
    """Check an export by all rules; gives the findings of those that hold, too."""
    findings = [*check_manifest(engine, export), *(new for each in export.exports for new in _new_in(each))]
    findings += check_rows(engine, export, row_rules(export, as_of))
    for rule in (*set_rules(export), *others.rules()):
        engine.go_on()
        findings.append(check_set(engine, rule, about=str(export.path)))
    return [*findings, *others.findings()]


def _new_in(export: ExportReader) -> list[Finding]:
    """What is new in an export; no finding if nothing is."""
    examples = tuple(Example(str(export.path), None, line) for line in lines_of(export.manifest.drift))
    return [Finding(_NEW, len(examples), examples)] if examples else []


def _same_ids(export: ExportReader, others: Sequence[ExportReader]) -> Finding:
    said = "customers asked for in the export, {:,}, are not those asked for here, {:,}"
    examples = tuple(
        Example(str(other.path), None, said.format(export.manifest.ids.asked, other.manifest.ids.asked))
        for other in others
        if other.manifest.ids.digest != export.manifest.ids.digest
    )
    return Finding(_IDS_DIFFER, len(examples), examples)
