"""Exports as the content of a Delta table, in one commit, by the package deltalake.

Invariant: the table changes by one commit or not at all; an export that is in its log is never committed again, an
older one never replaces a newer one, and rows that `publish` did not write are never replaced.
Called by `_publish.py`.
"""

from __future__ import annotations

import importlib
import json
import re
import time
from typing import TYPE_CHECKING, Any

from capillary_async import __version__
from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._common.kill_points import reached
from capillary_async.jobs._common.pyarrow_import import pq
from capillary_async.jobs._publishing.microseconds import in_microseconds, with_microseconds
from capillary_async.jobs._publishing.sending import PublishProgress, Sent, refuse_other, send
from capillary_async.jobs._publishing.store import AGAIN, Store, s3_region

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from capillary_async.jobs._publishing.address import Destination
    from capillary_async.jobs._publishing.finished import Piece
    from capillary_async.jobs._publishing.together import ExportsTogether

__all__ = ["DeltaTable"]

_EPOCH = 1_000  # milliseconds per second
_OURS = re.compile(r"/export-[0-9a-f]{32}/[^/]+\Z")  # the files that publish writes
_NO_NEW_ROWS = ("DELETE", "OPTIMIZE", "VACUUM START", "VACUUM END")


class DeltaTable:
    """A Delta table, there or not yet.

    Attributes:
        version: The newest version, once the exports are in it or before it.
        was_there: Whether the exports were in the log before.
        replaced: The version whose rows were replaced; None if there were none.

    Raises:
        JobError: The package deltalake is missing, or the table cannot be read.
    """

    def __init__(self, store: Store, exports: ExportsTogether) -> None:
        self._store, self._exports = store, exports
        self._delta, self._transaction = _deltalake()
        self._options = _storage_options(store.destination)
        self._table = self._opened()
        self.version: int | None = None
        self.was_there = False
        self.replaced: int | None = None

    def publish(self, stop: threading.Event, on_progress: Callable[[PublishProgress], None] | None) -> Sent:
        """Send the shards and commit; nothing if the exports were committed before.

        Raises:
            JobError: The table has another schema, a newer export or other rows, or the store refuses.
        """
        pieces = self._exports.pieces()
        self.was_there = self._is_committed()
        if self.was_there:
            return Sent(files=len(pieces))
        schema = self._delta.Schema.from_arrow(in_microseconds(pq.read_schema(pieces[0].path)))
        self._refuse_misfit(schema)
        sizes: dict[str, int] = {}
        for export in self._exports.each:
            below = f"export-{export.digest[:32]}"
            there = self._store.sizes(below)
            refuse_other(self._store, there, export.pieces(below))
            sizes |= there
        sent = send(self._store, pieces, sizes, stop, on_progress, replace=True, prepare=with_microseconds)
        if stop.is_set():
            raise JobError("interrupted")
        if self._table is not None and self._table.file_uris():
            self.replaced = int(self._table.version())
        self._commit(sent.pieces, schema)
        reached("table-committed")
        return sent

    # -- what is there

    def _opened(self) -> Any:
        """The table at its newest version; None if there is none."""
        uri = self._store.destination.delta_uri
        try:
            return self._delta.DeltaTable(uri, storage_options=self._options)
        except Exception as error:  # noqa: BLE001 - whatever deltalake raises
            if type(error).__name__ == "TableNotFoundError":
                return None
            raise self._failed("read", error) from None

    def _is_committed(self) -> bool:
        """Whether the log has these exports."""
        if self._table is None or self._table.transaction_version(self._exports.done_id) is None:
            return False
        self.version = int(self._table.version())
        return True

    @property
    def is_replaced(self) -> bool:
        """Whether the table has a newer export of the same kind than these."""
        newest = None if self._table is None else self._table.transaction_version(self._exports.scope_id)
        return newest is not None and newest > self._exports.version

    def _refuse_misfit(self, schema: Any) -> None:
        table, where = self._table, self._store.destination
        if table is None:
            return
        _refuse_schema(where, table, schema)
        if self.is_replaced:
            raise JobError(
                f"the Delta table {where} has a newer export of the same query, and {self._exports.label} is older: it "
                "does not replace it. Publish it as another table, or export again"
            )
        if table.transaction_version(self._exports.scope_id) is None and table.file_uris():
            raise JobError(
                f"the Delta table {where} has rows of something else than {self._exports.scope}: publish replaces only "
                "what it published of the same kind, host and query without its dates. Publish as another table; "
                "several folders given at once become one table"
            )
        if _has_other_rows(table):
            raise JobError(
                f"the Delta table {where} has rows that publish did not write, e.g. appended ones, and they would be "
                "removed with those of the export before: publish as another table; or copy these rows to one, and "
                "RESTORE this table to the version that publish committed"
            )

    # -- the commit

    def _commit(self, pieces: Sequence[Piece], schema: Any) -> None:
        actions = [self._action(piece) for piece in pieces]
        try:
            if self._table is None:
                self._transaction.create_table_with_add_actions(
                    self._store.destination.delta_uri,
                    schema,
                    actions,
                    mode="error",
                    storage_options=self._options,
                    commit_properties=self._properties(),
                )
            else:
                self._table.create_write_transaction(
                    actions, mode="overwrite", schema=schema, commit_properties=self._properties()
                )
        except Exception as error:  # noqa: BLE001 - whatever deltalake raises; the log says whether it was committed
            self._refuse_uncommitted(error)
            return
        self._refuse_uncommitted(None)

    def _refuse_uncommitted(self, error: Exception | None) -> None:
        """Read the log again: it has the exports, or they are not published."""
        self._table = self._opened()
        if self._is_committed():
            return
        if error is None or "CommitFailed" in type(error).__name__ or "already exists" in str(error):
            raise JobError(
                f"another process changed the Delta table {self._store.destination} meanwhile, and nothing was "
                f"committed; {AGAIN}"
            )
        raise self._failed("commit to", error)

    def _action(self, piece: Piece) -> Any:
        return self._transaction.AddAction(
            path=piece.name,
            size=piece.bytes,
            partition_values={},
            modification_time=int(time.time() * _EPOCH),
            data_change=True,
            stats=json.dumps({"numRecords": piece.rows}),
        )

    def _properties(self) -> Any:
        exports = self._exports
        facts = {
            "capillary_async.version": __version__,
            "capillary_async.export": exports.digest,
            "capillary_async.scope": exports.scope,
            "capillary_async.records": str(sum(each.manifest.records for each in exports.each)),
            "capillary_async.keys_digest": ", ".join(str(each.manifest.keys_digest) for each in exports.each),
        }
        transaction = self._delta.Transaction
        return self._delta.CommitProperties(
            custom_metadata=facts,
            app_transactions=[transaction(exports.done_id, 1), transaction(exports.scope_id, exports.version)],
            max_commit_retries=0,  # a commit that came in between may have changed what was checked
        )

    def _failed(self, doing: str, error: Exception) -> JobError:
        return self._store.failed(f"{doing} the Delta table", "", error)


def _has_other_rows(table: Any) -> bool:
    """Whether the table has a file that publish did not write, and that is no rest of one that it wrote."""
    if all(_OURS.search(uri) for uri in table.file_uris()):
        return False
    for commit in table.history():  # the newest first
        if "capillary_async.export" in commit:
            return False
        if commit.get("operation") not in _NO_NEW_ROWS:
            return True
    return True


def _refuse_schema(where: Destination, table: Any, schema: Any) -> None:
    ours, theirs = ({each.name: str(each.type) for each in fields.fields} for fields in (schema, table.schema()))
    missing = [name for name in ours if name not in theirs]
    more = [name for name in theirs if name not in ours]
    other = [f"{name} is {theirs[name]}, not {kind}" for name, kind in ours.items() if theirs.get(name, kind) != kind]
    said = [f"the table has no column {', '.join(missing[:5])}"] if missing else []
    said += [f"the export has no column {', '.join(more[:5])}"] if more else []
    said += other[:5]
    metadata: Any = table.metadata()
    settings: dict[str, str] = metadata.configuration or {}
    if not said and metadata.partition_columns:
        said = [f"the table is partitioned by {', '.join(metadata.partition_columns)}"]
    if not said and settings.get("delta.columnMapping.mode", "none") != "none":
        said = ["the table maps names of columns, and the files of an export have their own"]
    if said:
        raise JobError(
            f"the Delta table {where} has another schema than the export: {'; '.join(said)}. Publish as another table"
        )


def _deltalake() -> tuple[Any, Any]:
    try:
        return importlib.import_module("deltalake"), importlib.import_module("deltalake.transaction")
    except ModuleNotFoundError as error:
        raise JobError(
            f'table="delta" needs the publish extra ({error.name} is missing): pip install "capillary-async[publish]"'
        ) from None


def _storage_options(destination: Destination) -> dict[str, str] | None:
    """What deltalake does not take from the environment by itself."""
    if destination.scheme != "s3":
        return None
    options = {"AWS_REGION": s3_region(destination)}
    if destination.endpoint is not None:
        allowed = "true" if destination.endpoint.startswith("http://") else "false"
        options |= {"AWS_ENDPOINT_URL": destination.endpoint, "AWS_ALLOW_HTTP": allowed}
    return {name: value for name, value in options.items() if value is not None}
