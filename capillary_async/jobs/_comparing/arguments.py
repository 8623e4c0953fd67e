"""What may be given to `reconcile`, checked before anything is read.

Invariant: nothing is read but whether a folder is there; each refusal names the argument, what came and what is
allowed. Used by `_reconcile.py`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, TypeAlias, cast

from capillary_async.jobs._books.columns import Pair
from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._dataset.folder import local_path

__all__ = ["Columns", "PathLike", "moment_of", "pairs_of", "spare", "target_of", "tolerance_of"]

Columns: TypeAlias = Mapping[str, str] | Iterable[str] | str
PathLike: TypeAlias = str | os.PathLike[str]

_TOLERANCE_BELOW, _TOLERANCE_DECIMALS = 10**15, 18  # what can be held against every amount


def pairs_of(given: Columns, argument: str) -> tuple[Pair, ...]:
    """The columns of the export and of the books."""
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


def tolerance_of(given: Any) -> Decimal:
    tolerance = Decimal("nan")
    if isinstance(given, Decimal | int | str) and not isinstance(given, bool):
        with contextlib.suppress(InvalidOperation):
            tolerance = Decimal(given)
    if not tolerance.is_finite() or tolerance < 0:
        raise JobError(f"tolerance takes a decimal number from 0 on, as Decimal, int or text, got {given!r}")
    if tolerance >= _TOLERANCE_BELOW or cast("int", tolerance.normalize().as_tuple().exponent) < -_TOLERANCE_DECIMALS:
        raise JobError(
            f"tolerance takes less than {_TOLERANCE_BELOW:,} points and at most {_TOLERANCE_DECIMALS} decimals, "
            f"got {given!r}"
        )
    return tolerance


def target_of(given: PathLike | None, argument: str, suffix: str, folder: PathLike) -> Path | None:
    if given is None:
        return None
    path = local_path(given, argument)
    if path.suffix.lower() != suffix:
        raise JobError(f"{path}: the name must end in {suffix}", path=str(path))
    if Path(folder).resolve() in path.resolve().parents:
        raise JobError(
            f"{path} lies within the export, which keeps its own files only; put it elsewhere", path=str(path)
        )
    if not path.resolve().parent.is_dir():
        raise JobError(f"{path}: there is no folder {path.parent}", path=str(path))
    return path


def spare(target: Path | None, sources: Iterable[PathLike | None]) -> None:
    """See that a file to be written replaces nothing that is read, and nothing of any export.

    Raises:
        JobError: It would.
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
                f"{target} lies within the export {above}, which keeps its own files only; put it elsewhere",
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
