"""`ReconcileResult`: the values of the verdict, the summary and the report.

Invariant: data only, nothing of DuckDB. Made by `_reconcile.py`, shown by `_report/html.py` and the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from attrs import field, frozen

from capillary_async._html import lines_card
from capillary_async._repr import brief_repr
from capillary_async.jobs._comparing.comparison import (
    CHANGED,
    EQUAL,
    MISSING_IN_BOOKS,
    MISSING_IN_CAPILLARY,
    BothSides,
    Comparison,
)
from capillary_async.jobs._comparing.rules import Finding

__all__ = ["Group", "ReconcileResult", "Subject", "title_of"]


@frozen
class Subject:
    """One side of a comparison, or an export of a cross check, described for a person.

    Attributes:
        role: `Capillary`, `Books`, `Awarded ids`, `Loyalty events` or `Ledger`.
        label: The folder, file or table; a password is left out.
        facts: Its facts by name: what was asked, how many customers, how it was read, the file's SHA-256.
        query: The arguments of an export by name, e.g. `program_id`.
        read: When the first and the last answer of an export came.
    """

    role: str
    label: str
    facts: Mapping[str, str]
    query: Mapping[str, object] = field(factory=dict[str, object])
    read: tuple[datetime, datetime] | None = None

    __repr__ = brief_repr


@frozen
class Group:
    """Totals of the export's records with one status, table, event name, or value of the column that was named.

    Attributes:
        value: The status or the like, as text; None where the records have none.
        records: How many.
        points: Sums by column, `remaining` among them; empty for exports without points.
    """

    value: str | None
    records: int
    points: Mapping[str, Decimal]

    __repr__ = brief_repr


@frozen(kw_only=True)
class ReconcileResult:
    """The result of `reconcile`.

    Attributes:
        equal: No difference, and no rule of the severity `error` broken.
        comparison: The classes, control totals and first differences; None if there were no books.
        findings: What each rule found, those that found nothing included.
        subjects: What was compared.
        records: Records of the export.
        grouped_by: The column of `groups`.
        source: The kind of the export, e.g. `allocations`.
        shows_groups: Whether the summary shows them, since they were asked for.
        groups: Totals by status, table or event name.
        months: Points left to use of AVAILABLE allocations, by the local month in which they expire, e.g. `2026-01`.
        month: The local month of `as_of`.
        timezone: The zone of months and days, and where it was taken from.
        tolerance: What amounts may differ by.
        command: The command line that does the same again.
        as_of: The reference time of expiry checks.
        began: When it began.
        elapsed: Seconds it took.
        differences: The file of differences, None if none was asked for.
        report: The report, None if none was asked for.
        warnings: What makes differences likely that are none: exports that did not ask for the same.
    """

    equal: bool
    comparison: Comparison | None
    findings: tuple[Finding, ...]
    subjects: tuple[Subject, ...]
    records: int
    grouped_by: str
    groups: tuple[Group, ...]
    months: Mapping[str, Decimal]
    month: str
    timezone: str
    tolerance: Decimal
    command: str
    as_of: datetime
    began: datetime
    elapsed: float
    differences: Path | None = None
    report: Path | None = None
    warnings: tuple[str, ...] = ()
    shows_groups: bool = False
    source: str = ""

    __repr__ = brief_repr
    _repr_html_ = lines_card

    @property
    def broken(self) -> tuple[Finding, ...]:
        """The findings of rules that were broken, errors first."""
        return tuple(sorted((each for each in self.findings if each.count), key=lambda each: not each.is_error))

    @property
    def kept(self) -> tuple[Finding, ...]:
        """The findings of rules that hold."""
        return tuple(each for each in self.findings if not each.count)

    @property
    def verdict(self) -> str:
        """The verdict in a sentence."""
        errors = sum(each.is_error for each in self.findings)
        rules = f"{_count(errors, 'rule')} broken" if errors else "no rule broken"
        if self.comparison is None:
            found = "NO FAULT FOUND" if self.equal else "FAULTS FOUND"
            return f"{found}: {rules}, {_count(self.records, 'record')} checked"
        same = self.comparison.counts[EQUAL]
        if self.comparison.equal:
            word = "EQUAL" if self.equal else "EQUAL, BUT RULES ARE BROKEN"
            return f"{word}: {_count(same, 'record')} on both sides, {rules}"
        different = sum(number for kind, number in self.comparison.counts.items() if kind != EQUAL)
        return f"DIFFERENT: {different:,} of {_count(different + same, 'record')} differ, {rules}"

    def lines(self) -> list[str]:
        """The summary for a terminal, about ten lines."""
        lines = [self.verdict]
        lines += [f"warning: {each}" for each in self.warnings]
        lines += [f"{each.role}: {each.label}" for each in self.subjects]
        if self.comparison is not None:
            lines += _compared(self.comparison)
        if self.shows_groups:
            both = () if self.comparison is None else self.comparison.groups
            lines += [
                _both(self.grouped_by, each) if isinstance(each, BothSides) else _grouped(self.grouped_by, each)
                for each in (both or self.groups)[:_GROUPS_SHOWN]
            ]
            if len(self.groups) > _GROUPS_SHOWN:
                lines.append(f"and {len(self.groups) - _GROUPS_SHOWN} more values of {title_of(self.grouped_by)}")
        for finding in self.broken[:_RULES_SHOWN]:
            lines.append(f"{finding.rule.severity} {finding.rule.name}: {finding.count:,}")
        if len(self.broken) > _RULES_SHOWN:
            lines.append(f"and {len(self.broken) - _RULES_SHOWN} more rules broken")
        files = (("differences", self.differences), ("report", self.report))
        return lines + [f"{what}: {path}" for what, path in files if path]


def title_of(column: str) -> str:
    """The name of a column for a person: the customer that a record was asked for is `asked_key` in files alone."""
    return "Customer" if column == "asked_key" else column


_RULES_SHOWN = 3
_GROUPS_SHOWN = 10
_TOTALS_SHOWN = 3
_GROUP_SUMS = ("points_exclusive", "remaining")
_IN_WORDS = {
    MISSING_IN_BOOKS: "missing in books",
    MISSING_IN_CAPILLARY: "missing in Capillary",
    CHANGED: "changed",
    EQUAL: "within the tolerance",
}


def _grouped(column: str, group: Group) -> str:
    sums = "".join(f", {name} {group.points[name]:,f}" for name in _GROUP_SUMS if name in group.points)
    return f"{_valued(column, group.value)}: {_count(group.records, 'record')}{sums}"


def _both(column: str, group: BothSides) -> str:
    sums = "".join(
        f", {name} {ours:,f} - {theirs:,f} = {group.differences[name]:+,f}"
        for name, (ours, theirs) in group.totals.items()
    )
    sizes = f"{_count(group.capillary, 'record')}, {_count(group.books, 'row')} of the books"
    return f"{_valued(column, group.value)}: {sizes}{sums}"


def _valued(column: str, value: str | None) -> str:
    return f"{title_of(column)} {'(none)' if value is None else value}"


def _compared(comparison: Comparison) -> list[str]:
    counts = comparison.counts
    within = f" ({comparison.within_tolerance:,} within the tolerance)" if comparison.within_tolerance else ""
    missing = f"missing in books {counts[MISSING_IN_BOOKS]:,}, missing in Capillary {counts[MISSING_IN_CAPILLARY]:,}"
    lines = [f"equal {counts[EQUAL]:,}{within}, changed {counts[CHANGED]:,}, {missing}"]
    for totals in comparison.totals[:_TOTALS_SHOWN]:
        parts = ", ".join(f"{delta:+,f} {_IN_WORDS[kind]}" for kind, delta in totals.deltas.items() if delta)
        sides = f"Capillary {totals.capillary:,f} - books {totals.books:,f} = {totals.difference:+,f}"
        lines.append(f"{totals.field}: {sides}{f' ({parts})' if parts else ''}")
    return lines


def _count(number: int, one: str) -> str:
    return f"{number:,} {one}{'' if number == 1 else 's'}"
