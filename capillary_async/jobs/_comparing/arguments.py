"""The arguments of `reconcile` and of the reports, checked before anything is read.

Invariant: nothing is read but whether a folder exists; each error names the argument, the value and what is valid. Used
by `_reconcile.py` and `_report/point_reports.py`.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, TypeAlias, cast

from attrs import asdict, frozen

from capillary_async.jobs._books.address import Address
from capillary_async.jobs._books.columns import Pair
from capillary_async.jobs._books.options import BooksOptions
from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._dataset.folder import local_path

__all__ = [
    "Arguments",
    "Columns",
    "PathLike",
    "decimal_of",
    "folders_of",
    "moment_of",
    "pairs_of",
    "refuse_overwriting",
    "target_of",
    "tolerance_of",
]

Columns: TypeAlias = Mapping[str, str] | Iterable[str] | str
PathLike: TypeAlias = str | os.PathLike[str]

_TOLERANCE_BELOW, _TOLERANCE_DECIMALS = 10**15, 18  # comparable with every amount


@frozen(kw_only=True)
class Arguments:
    """The checked arguments of one reconciliation, named as those of `reconcile`."""

    folders: tuple[Path, ...]
    books: Address | None
    key: tuple[Pair, ...]
    compare: tuple[Pair, ...]
    tolerance: Decimal
    options: BooksOptions
    out: Path | None
    report: Path | None
    by: str | None
    with_awarded: Path | None
    with_events: Path | None
    with_ledger: Path | None
    as_of: datetime | date | None
    timezone: tzinfo | str | None

    def refuse_overwriting(self) -> None:
        """Check that no file that is written is one that is read.

        Raises:
            JobError: One is.
        """
        own = None
        if self.books is not None and self.books.is_file:  # another address may have a password in it
            own = self.books.reveal().removeprefix("duckdb://")
        for target in (self.out, self.report):
            refuse_overwriting(target, (*self.folders, own, self.with_awarded, self.with_events, self.with_ledger))

    def refuse_useless(self) -> None:
        """Check that no argument about books is given without them.

        Raises:
            JobError: One is.
        """
        given = [name for name in ("key", "compare", "out") if getattr(self, name)]
        given += [name.replace("where", "books_where") for name, value in asdict(self.options).items() if value]
        if self.books is None and given:
            raise JobError(f"{given[0]} goes with books, and none are given")

    def command(self, as_of: datetime) -> str:
        """The command line of the same reconciliation at a time."""
        words = ["capillary-async", "reconcile", *map(str, self.folders)]
        words += ["--books", str(self.books)] if self.books is not None else []
        for option, given in (("--key", self.key), ("--compare", self.compare)):
            if given:
                words += [option, ",".join(p.ours if p.ours == p.theirs else f"{p.ours}={p.theirs}" for p in given)]
        options = {
            "--table": self.options.table,
            "--sheet": self.options.sheet,
            "--delimiter": self.options.delimiter,
            "--decimal": self.options.decimal,
            "--encoding": self.options.encoding,
            "--tolerance": f"{self.tolerance:f}" if self.tolerance else None,
            "--by": self.by,
            "--with-awarded": self.with_awarded,
            "--with-events": self.with_events,
            "--with-ledger": self.with_ledger,
            "--as-of": as_of.isoformat(timespec="seconds"),
            "--timezone": self.timezone,
            "--out": self.out,
            "--report": self.report,
        }
        words += [word for column, value in self.options.where for word in ("--books-where", f"{column}={value}")]
        words += [str(word) for option, value in options.items() if value is not None for word in (option, value)]
        return shlex.join(words)


def pairs_of(given: Columns, argument: str) -> tuple[Pair, ...]:
    """The columns of the export, each with its column of the books."""
    if isinstance(given, Mapping):
        pairs = [Pair(ours, theirs) for ours, theirs in cast("Mapping[str, str]", given).items()]
    else:
        words = given.split(",") if isinstance(given, str) else [word for each in given for word in each.split(",")]
        parts = [word.strip(" \t").partition("=") for word in words if word.strip(" \t")]
        pairs = [Pair(ours.strip(" \t"), (theirs if sign else ours).strip(" \t")) for ours, sign, theirs in parts]
    for pair in pairs:
        if not pair.ours or not pair.theirs:
            raise JobError(f"{argument} takes column=column, e.g. id=award_id, got {pair.ours}={pair.theirs}")
    return tuple(pairs)


def decimal_of(given: Any) -> Decimal | None:
    """A finite decimal number of a Decimal, int or text; None if it is anything else, e.g. a float."""
    if not isinstance(given, Decimal | int | str) or isinstance(given, bool):
        return None
    with contextlib.suppress(InvalidOperation):
        value = Decimal(given)
        return value if value.is_finite() else None
    return None


def tolerance_of(given: Any) -> Decimal:
    tolerance = decimal_of(given)
    if tolerance is None or tolerance < 0:
        raise JobError(f"tolerance takes a decimal number from 0 on, as Decimal, int or text, got {given!r}")
    if tolerance >= _TOLERANCE_BELOW or cast("int", tolerance.normalize().as_tuple().exponent) < -_TOLERANCE_DECIMALS:
        raise JobError(
            f"tolerance takes less than {_TOLERANCE_BELOW:,} points and at most {_TOLERANCE_DECIMALS} decimals, "
            f"got {given!r}"
        )
    return tolerance


def folders_of(given: PathLike | Iterable[PathLike]) -> tuple[Path, ...]:
    """The folders of exports, each once.

    Raises:
        JobError: There is none, one is a URL, or one is there twice.
    """
    several = [given] if isinstance(given, str | os.PathLike) else list(given)
    folders = tuple(local_path(each, "the export") for each in several)
    if not folders:
        raise JobError("give the folder of an export, or several; none was given")
    seen: dict[Path, Path] = {}
    for folder in folders:
        if (other := seen.setdefault(folder.resolve(), folder)) is not folder:
            raise JobError(f"{folder} and {other} are the same export; name it once", path=str(folder))
    return folders


def target_of(given: PathLike | None, argument: str, suffix: str, folders: Sequence[PathLike]) -> Path | None:
    """The path of a file to be written: in a folder that exists, and not in an export."""
    if given is None:
        return None
    path = local_path(given, argument)
    if path.suffix.lower() != suffix:
        raise JobError(f"{path}: the name must end in {suffix}", path=str(path))
    if any(Path(folder).resolve() in path.resolve().parents for folder in folders):
        raise JobError(f"{path} is within the export, which keeps its own files only; put it elsewhere", path=str(path))
    if not path.resolve().parent.is_dir():
        raise JobError(f"{path}: there is no folder {path.parent}", path=str(path))
    return path


def refuse_overwriting(target: Path | None, sources: Iterable[PathLike | None]) -> None:
    """Check that a file to be written replaces nothing that is read, and nothing of any export.

    Raises:
        JobError: It does.
    """
    if target is None:
        return
    whole = target.resolve()
    if whole.is_dir():
        raise JobError(f"{target} is a folder; name a file", path=str(target))
    for source in sources:
        if source is not None and _same(whole, Path(source)):
            raise JobError(
                f"{target} is what is compared, and would be written over; give another name", path=str(target)
            )
    for above in whole.parents:
        if (above / "state.sqlite").exists() or ((above / "manifest.json").exists() and (above / "shards").is_dir()):
            raise JobError(
                f"{target} is within the export {above}, which keeps its own files only; put it elsewhere",
                path=str(target),
            )


def _same(target: Path, source: Path) -> bool:
    with contextlib.suppress(OSError):
        return target == source.resolve() or target.samefile(source) or source.resolve() in target.parents
    return False


def moment_of(given: datetime | date | None, zone: tzinfo) -> datetime:
    """An aware time, or the beginning of a day in a zone; None for now."""
    if given is None:
        return datetime.now(UTC)
    if not isinstance(given, datetime):
        return datetime(given.year, given.month, given.day, tzinfo=zone).astimezone(UTC)
    if given.tzinfo is None:
        raise JobError(f"as_of takes an aware datetime or a date, got {given!r} without a zone")
    return given.astimezone(UTC)
