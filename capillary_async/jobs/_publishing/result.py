"""`PublishResult`: what is at the URL now.

Invariant: data only. Made by `_publish.py`, shown by the command line.
"""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from capillary_async._html import lines_card
from capillary_async._repr import brief_repr

__all__ = ["PublishResult"]


@frozen(kw_only=True)
class PublishResult:
    """What is at the URL now.

    Attributes:
        folders: The exports.
        url: Where they are.
        table: `delta` for a Delta table, None for a copy of the export.
        digest: What identifies the export: the SHA-256 of its manifest, in hex; of several, of these.
        records: Records of the export.
        files: Files of the export that are there and verified.
        sent: Those that were sent now; the others were there.
        bytes_sent: The bytes of these.
        already_there: Whether all was there before: nothing was sent.
        version: The version of the Delta table.
        checked: How the files were verified.
        notes: What a reader should know, as sentences.
        elapsed: Seconds.
    """

    folders: tuple[Path, ...]
    url: str
    table: str | None
    digest: str
    records: int
    files: int
    sent: int
    bytes_sent: int
    already_there: bool
    version: int | None
    checked: str
    notes: tuple[str, ...]
    elapsed: float

    __repr__ = brief_repr
    _repr_html_ = lines_card

    def lines(self) -> list[str]:
        """The summary for a terminal."""
        what = f"Delta table, version {self.version}" if self.table else "export"
        where = f"{self.url} ({what}, {self.records:,} records, SHA-256 {self.digest[:16]})"
        if self.already_there:
            first = f"{where} is already there; nothing was sent"
        else:
            sent = f"{self.sent:,} of {self.files:,} files sent, {self.bytes_sent:,} bytes, {self.elapsed:.1f} s"
            first = f"published {where}: {sent}"
        return [first, f"checked: {self.checked}", *(f"note: {each}" for each in self.notes)]
