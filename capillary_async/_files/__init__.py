"""Text input for ids and books: one descriptor, one pass, strict, every fault with its line.

Invariant: no byte is lost, nothing is guessed, and time is linear in the size of the input. Used by the command line
for ids and by `jobs` for books in CSV.
"""

from __future__ import annotations

from capillary_async._files.cells import columns_of, lines, records
from capillary_async._files.form import PACKED, PARQUET, TextForm, inner_suffix, separated_otherwise, text_form
from capillary_async._files.identifiers import is_number, is_other_number, why_no_id
from capillary_async._files.layout import Block, Fault, Layout
from capillary_async._files.names import near, near_file, shown_names, visible
from capillary_async._files.source import Source, SourceError

__all__ = [
    "PACKED",
    "PARQUET",
    "Block",
    "Fault",
    "Layout",
    "Source",
    "SourceError",
    "TextForm",
    "columns_of",
    "inner_suffix",
    "is_number",
    "is_other_number",
    "lines",
    "near",
    "near_file",
    "records",
    "separated_otherwise",
    "shown_names",
    "text_form",
    "visible",
    "why_no_id",
]
