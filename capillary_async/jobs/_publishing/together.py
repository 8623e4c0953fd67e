"""Exports that become one table: what identifies them together, and whether their rows can be together.

Invariant: no row is in the table twice, none of a list is missing: exports of one kind and cluster have one query and
no customer in common, and shards of a list are all there.
Called by `_publish.py` and `_publishing/delta.py`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from attrs import field, frozen

from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._common.pyarrow_import import pa, pc, pq
from capillary_async.jobs._dataset.id_shard import faults_together
from capillary_async.jobs._publishing.finished import FinishedExport

if TYPE_CHECKING:
    from capillary_async.jobs._publishing.finished import Piece

__all__ = ["ExportsTogether"]

_APP = "capillary-async"
_EPOCH = 1_000  # milliseconds per second


@frozen
class ExportsTogether:
    """Exports for one commit.

    Attributes:
        digest: What identifies them together.
        scope: What they are exports of: kind, cluster, and query without its dates.
        version: When the last of them was read, in milliseconds.
    """

    each: tuple[FinishedExport, ...]
    digest: str = field(init=False)
    scope: str = field(init=False)
    version: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        digests = sorted(export.digest for export in self.each)
        whole = digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
        object.__setattr__(self, "digest", whole)
        object.__setattr__(self, "scope", "; ".join(sorted({_scope(export) for export in self.each})))
        object.__setattr__(self, "version", max(int(export.read.timestamp() * _EPOCH) for export in self.each))

    @property
    def label(self) -> str:
        return ", ".join(export.label for export in self.each)

    @property
    def done_id(self) -> str:
        """The application id that says that these exports were committed."""
        return f"{_APP}:export:{self.digest}"

    @property
    def scope_id(self) -> str:
        """The application id whose version is the time of the newest export of this scope."""
        return f"{_APP}:scope:{hashlib.sha256(self.scope.encode()).hexdigest()[:32]}"

    def pieces(self) -> list[Piece]:
        return [piece for export in self.each for piece in export.pieces(f"export-{export.digest[:32]}")]

    def refuse_unfit(self) -> None:
        """Check that they can be one table.

        Raises:
            JobError: One is not in Parquet, they are of different forms or have no columns, would count rows twice, or
                are some of the shards of a list (`export --shard`).
        """
        if len({export.digest for export in self.each}) < len(self.each):
            raise JobError("the same export was given twice, and its rows would count twice: give each folder once")
        for export in self.each:
            if export.manifest.format != "parquet":
                raise JobError(
                    f"{export.path} is in JSON Lines, and a Delta table is of Parquet: export again as parquet"
                )
        faults = faults_together([(export.path, export.manifest) for export in self.each])
        if faults:
            raise JobError(
                f"a table takes all shards of a list of ids, or the table would lack rows: {'; '.join(faults)}"
            )
        filled = tuple(export for export in self.each if export.manifest.shards)
        if not filled:
            raise JobError(f"{self.each[0].path} has no customers, so no columns for a table: export some customers")
        for export in filled[1:]:
            if not _columns(export).equals(_columns(filled[0])):
                raise JobError(f"{export.path} and {filled[0].path} have different columns: give exports of one kind")
        _refuse_twice(filled)


def _columns(export: FinishedExport) -> Any:
    return pq.read_schema(export.path / export.manifest.shards[0].file).remove_metadata()


def _scope(export: FinishedExport) -> str:
    """What it is an export of, for a person: kind, host and query, without its dates."""
    manifest = export.manifest
    said = "".join(f", {name} {value}" for name, value in sorted(manifest.query.items()) if "date" not in name)
    cluster = str(manifest.cluster)  # a URL, or the name of a sandbox
    return f"{manifest.source} of {urlsplit(cluster).hostname or cluster}{said}"


def _refuse_twice(exports: tuple[FinishedExport, ...]) -> None:
    """Check that no customer of one scope is in two exports."""
    seen: dict[str, tuple[Any, FinishedExport]] = {}
    for export in exports if len(exports) > 1 else ():
        keys, scope = _keys(export), _scope(export)
        if scope in seen:
            known, other = seen[scope]
            if other.manifest.query != export.manifest.query:
                raise JobError(f"{export.path} and {other.path} are of different dates, and rows could count twice: "
                               "publish them as two tables")  # fmt: skip
            both = known.filter(pc.is_in(known, keys))
            if len(both):
                raise JobError(
                    f"customer {both[0].as_py()} is in {export.path} and in {other.path}, and would count twice: give "
                    "parts of one export, which have no customer in common"
                )
            keys = pa.concat_arrays([known, keys])
        seen[scope] = (keys, export)


def _keys(export: FinishedExport) -> Any:
    """The asked keys that have rows, each once."""
    paths = [export.path / each.file for each in export.manifest.shards]
    parts = [pc.unique(pq.read_table(path, columns=["asked_key"])["asked_key"]) for path in paths]
    return pc.unique(pa.chunked_array(parts))
