"""The formats of a shard by their names: Parquet, and JSON Lines.

Invariant: each name has one implementation. Used by `_export.py` and `_verifying/verification.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from capillary_async.jobs._common.several import is_several
from capillary_async.jobs._dataset.jsonl_format import Jsonl
from capillary_async.jobs._dataset.parquet_format import Parquet

if TYPE_CHECKING:
    from collections.abc import Mapping

    from capillary_async.jobs._common.sources import Dataset
    from capillary_async.jobs._dataset.shard_format import Format

__all__ = ["FormatName", "format_of"]

FormatName = Literal["parquet", "jsonl"]


def format_of(name: str, source: Dataset, query: Mapping[str, Any], version: int) -> Format:
    """The format of that name, as a folder of that schema version has it."""
    return Parquet(source, query, version) if name == "parquet" else Jsonl(source, several=is_several(query))
