"""Checking an export by rules: how a rule is run, and what it found.

Invariant: a rule has a name, a weight and words for a person, and each of its findings names the record. The rules
themselves are in `_comparing/rule_catalog.py`. Called by `_comparing/checks.py`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from attrs import frozen

from capillary_async._repr import brief_repr
from capillary_async.jobs._books.duckdb_engine import name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capillary_async.jobs._books.duckdb_engine import Engine
    from capillary_async.jobs._comparing.export_reader import ExportReader

__all__ = ["Example", "Finding", "RowRule", "Rule", "SetRule", "check_manifest", "check_rows", "check_set", "record_of"]

SHOWN = 100


@frozen
class Rule:
    """One rule.

    Attributes:
        name: Short and lasting, e.g. `deductions-within-points`.
        severity: `error` makes the verdict a difference; `note` is for a person to look at.
        meaning: What is true if all is well, and what it means if it is not.
    """

    name: str
    severity: Literal["error", "note"]
    meaning: str

    __repr__ = brief_repr


@frozen
class RowRule(Rule):
    """A rule that each row keeps or breaks by itself.

    Attributes:
        broken: The SQL condition of a row that breaks it.
        detail: The SQL text that says how.
    """

    broken: str
    detail: str

    __repr__ = brief_repr


@frozen
class SetRule(Rule):
    """A rule about several rows.

    Attributes:
        query: The SQL of what breaks it: columns `record`, `asked_key` and `detail`, all text.
    """

    query: str

    __repr__ = brief_repr


@frozen
class Example:
    """One record that breaks a rule.

    Attributes:
        record: Its key.
        asked_key: The id that was asked for.
        detail: How it breaks it.
    """

    record: str | None
    asked_key: str | None
    detail: str | None

    __repr__ = brief_repr


@frozen
class Finding:
    """What a rule found; nothing, where `count` is 0.

    Attributes:
        rule: The rule.
        count: How many break it.
        examples: The first hundred of them.
    """

    rule: Rule
    count: int
    examples: tuple[Example, ...] = ()

    __repr__ = brief_repr

    @property
    def is_error(self) -> bool:
        """Whether it makes the verdict a difference."""
        return bool(self.count) and self.rule.severity == "error"


def record_of(folder: ExportReader, alias: str = "") -> str:
    """The SQL text of a record's key."""
    before = f"{alias}." if alias else ""
    return " || ' ' || ".join(f"coalesce(CAST({before}{name(key)} AS VARCHAR), 'nothing')" for key in folder.source.key)


def check_rows(engine: Engine, folder: ExportReader, rules: Sequence[RowRule]) -> list[Finding]:
    """Run all rules of rows in one pass, then look up the examples of those that were broken."""
    about, relation = str(folder.path), name(folder.relation)
    counts = ", ".join(f"count(*) FILTER (WHERE {rule.broken})" for rule in rules)
    found = engine.row(f"SELECT {counts} FROM {relation}", about=about)
    findings: list[Finding] = []
    for rule, count in zip(rules, found, strict=True):
        select = f"SELECT {record_of(folder)} AS record, CAST(asked_key AS VARCHAR), {rule.detail}"
        keys = ", ".join(name(key) for key in folder.source.key)
        query = f"{select} FROM {relation} WHERE {rule.broken} ORDER BY {keys}, shard, row LIMIT {SHOWN}"
        examples = engine.rows(query, about=about) if count else []
        findings.append(Finding(rule, count, tuple(Example(*each) for each in examples)))
    return findings


def check_set(engine: Engine, rule: SetRule, *, about: str) -> Finding:
    """Run a rule about several rows."""
    engine.run(f"CREATE OR REPLACE TEMP TABLE breaking AS {rule.query}", about=about)
    count = engine.row("SELECT count(*) FROM breaking")[0]
    examples = engine.rows(f"SELECT * FROM breaking ORDER BY ALL LIMIT {SHOWN}") if count else []
    engine.run("DROP TABLE breaking")
    return Finding(rule, count, tuple(Example(*each) for each in examples))


_TOTALS = Rule(
    "manifest-totals",
    "error",
    "The export wrote down how many records it had and the sum of each points column. The files must still add up to "
    "that; where they do not, files were changed or lost after the export. Run capillary-async verify.",
)
_COMPLETE = Rule(
    "export-complete",
    "error",
    "Every customer asked for was answered. Where some failed, their records are missing here, and what the books have "
    "of them shows as missing in Capillary. Run the same export command again: it asks only for those.",
)


def check_manifest(engine: Engine, folder: ExportReader) -> list[Finding]:
    """Check that the files have what the manifest says, and that each export is complete."""
    lacking = [each for each in folder.exports if each.manifest.ids.failed or not each.manifest.complete]
    incomplete = sum(each.manifest.ids.failed or 1 for each in lacking)
    complete = Finding(_COMPLETE, incomplete, tuple(Example(str(each.path), None, _lacking(each)) for each in lacking))
    wrong = tuple(example for each in folder.exports for example in _wrong_totals(engine, each))
    return [complete, Finding(_TOTALS, len(wrong), wrong)]


def _lacking(folder: ExportReader) -> str:
    failed = folder.manifest.ids.failed
    return f"{failed:,} of {folder.manifest.ids.asked:,} customers failed" if failed else "the manifest says incomplete"


def _wrong_totals(engine: Engine, folder: ExportReader) -> list[Example]:
    totals = folder.manifest.totals
    columns = [column for column in totals if folder.columns.get(column, "").startswith("DECIMAL")]
    sums = "".join(f", coalesce(sum({name(column)}), 0)" for column in columns)
    records, *found = engine.row(f"SELECT count(*){sums} FROM {name(folder.relation)}", about=str(folder.path))
    said: list[tuple[str, Any, Any]] = [("records", folder.manifest.records, records)]
    said += [(column, totals[column], value) for column, value in zip(columns, found, strict=True)]
    return [
        Example(str(folder.path), None, f"{what}: the manifest says {manifest}, the files {value}")
        for what, manifest, value in said
        if Decimal(manifest) != Decimal(value)
    ]
