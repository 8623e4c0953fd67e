"""Text input for ids and books: one descriptor, one pass, strict, every fault with its line.

Invariant: no byte is lost, nothing is guessed, and time is linear in the size of the input. Used by the command line
for ids and by `jobs` for books in CSV.
"""

from __future__ import annotations

from capillary_async._files.cells import columns_of, lines, records
from capillary_async._files.identifiers import is_number, is_other_number, why_no_id
from capillary_async._files.layout import Block, Fault, Layout
from capillary_async._files.source import Source, SourceError

__all__ = [
    "Block",
    "Fault",
    "Layout",
    "Source",
    "SourceError",
    "columns_of",
    "is_number",
    "is_other_number",
    "lines",
    "records",
    "why_no_id",
]
