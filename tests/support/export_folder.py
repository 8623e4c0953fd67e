"""Folders as an export leaves them, written by pyarrow, for tests of what reads them."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import types
import typing
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import attrs
import pyarrow as pa
import pyarrow.parquet as pq

from capillary_async.models import LedgerEvent, LoyaltyEvent, PointsAllocation, PointsAwarded

if TYPE_CHECKING:
    from pathlib import Path

MODELS: dict[str, type[Any]] = {
    "allocations": PointsAllocation,
    "awarded": PointsAwarded,
    "events": LoyaltyEvent,
    "ledger": LedgerEvent,
}
DERIVED = {"awarded_at": "awarded_date", "expires_at": "expiry_date", "updated_at": "auto_update_time"}
PLAIN = {
    int: pa.int64(),
    str: pa.string(),
    Decimal: pa.decimal128(18, 3),
    bool: pa.bool_(),
    dt.datetime: pa.timestamp("us", tz="UTC"),
}


def schema_of(source: str) -> pa.Schema:
    """The columns of a shard; what is nested stands as JSON text here."""
    hints = typing.get_type_hints(MODELS[source])
    asked = pa.string() if source == "ledger" else pa.int64()
    fields = [("asked_key", asked), ("shard", pa.int32()), ("row", pa.int32())]
    for field in attrs.fields(MODELS[source]):
        members = [each for each in typing.get_args(hints[field.name]) if each is not types.NoneType]
        fields.append((field.name, PLAIN.get(members[0] if len(members) == 1 else Any, pa.string())))
    derived = DERIVED if source == "allocations" else {}
    return pa.schema([*fields, *((name, pa.timestamp("ms", tz="UTC")) for name in derived)])


def whole_row(source: str, row: dict[str, Any], shard: int, number: int) -> dict[str, Any]:
    """A row with every column; amounts become Decimals, and the owner is who was asked."""
    whole: dict[str, Any] = dict.fromkeys(schema_of(source).names)
    asked = row.get("customer_id", "1" if source == "ledger" else 1)
    whole |= {"asked_key": asked, "shard": shard, "row": number} | row
    if isinstance(whole.get("date"), str):
        whole["date"] = dt.datetime.fromisoformat(whole["date"])
    for name, of in DERIVED.items() if source == "allocations" else ():
        if whole[of] is not None:
            whole[name] = dt.datetime.fromtimestamp(whole[of] // 1000, dt.UTC)
    types_of = {field.name: field.type for field in schema_of(source)}
    for name, value in whole.items():
        if value is not None and pa.types.is_decimal(types_of[name]):
            whole[name] = Decimal(value)
    return whole


def write_export(
    path: Path,
    source: str,
    rows: list[dict[str, Any]],
    *,
    per_shard: int = 1000,
    jsonl: bool = False,
    **manifest: Any,
) -> Path:
    """Write a finished export of these rows; words beside them replace members of the manifest."""
    (path / "shards").mkdir(parents=True)
    shards = []
    for shard, start in enumerate(range(0, len(rows), per_shard)):
        part = [whole_row(source, row, shard, n) for n, row in enumerate(rows[start : start + per_shard])]
        file = path / "shards" / f"part-{shard:08}.{'jsonl' if jsonl else 'parquet'}"
        if jsonl:
            file.write_text("".join(json.dumps(row, default=_json) + "\n" for row in part))
        else:
            pq.write_table(pa.Table.from_pylist(part, schema_of(source)), file)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        named = {"file": str(file.relative_to(path)), "rows": len(part), "keys": len(part)}
        shards.append({**named, "sha256": digest, "bytes": file.stat().st_size})
    columns = [field.name for field in schema_of(source) if pa.types.is_decimal(field.type)]
    totals = {
        name: str(sum((Decimal(row[name]) for row in rows if row.get(name) is not None), Decimal(0)))
        for name in columns
    }
    asked = {row.get("asked_key", row.get("customer_id")) for row in rows}
    whole = {
        "schema_version": 1,
        "sdk_version": "0",
        "source": source,
        "query": {"program_id": 2282, "point_category_id": 17383},
        "format": "jsonl" if jsonl else "parquet",
        "ids": {"asked": len(asked), "found": len(asked), "empty": 0, "failed": 0, "digest": "of the ids"},
        "records": len(rows),
        "totals": totals,
        "keys_digest": "of the keys",
        "shards": shards,
        "failures": {"file": "failures.jsonl", "rows": 0},
        "complete": True,
        "consistency": "fast",
    }
    (path / "failures.jsonl").write_text("")
    (path / "manifest.json").write_text(json.dumps(whole | manifest))
    return path


def _json(value: Any) -> str:
    return value.isoformat() if isinstance(value, dt.datetime) else str(value)
