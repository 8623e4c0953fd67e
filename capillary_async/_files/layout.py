"""The layout of a text file that arrives in pieces: its lines, its records, its quotation marks.

Invariant: a quotation mark opens a cell, closes it, or is doubled within; anything else is a fault with its line, never
guessed. The search functions of `bytes` and `re` do all work, so gigabytes take seconds. Used for ids and books.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["LONGEST", "Block", "Fault", "Layout"]

LONGEST = 64 << 20  # bytes of one record; more is an unclosed mark or no table
_MOST_CRS = 64  # before one LF
_LONE_CR = re.compile(rb"\r(?![\r\n])")
_ENDS = re.compile(rb"\r\n|\r|\n")


@cache
def _marks(delimiter: bytes, *, padded: bool) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """A mark after text, and one before text; each begins with the mark itself, which makes the search fast."""
    between, blanks = re.escape(delimiter), _blanks(delimiter)
    before = (
        rb'"(?:[^%b\r\n"%b]|[%b]++[^%b\r\n])' % (between, blanks, blanks, between)
        if padded
        else rb'"[^%b\r\n"]' % between
    )
    return re.compile(rb'"(?<=[^%b\r\n"]")' % between), re.compile(before)


def _blanks(delimiter: bytes) -> bytes:
    return b" \t".replace(delimiter, b"")


class Fault(Exception):  # noqa: N818 - of the input, not of the program
    """What is wrong with a text, and where.

    Attributes:
        line: The line of the file, from 1.
        record: The record, the header being 1; empty lines are none.
        reason: What is wrong and what to do, to follow the place.
        sound: How many bytes of the piece come before it and are sound.
    """

    def __init__(self, line: int, record: int, reason: str, sound: int = 0) -> None:
        super().__init__(f"line {line}{reason}")
        self.line, self.record, self.reason, self.sound = line, record, reason, sound


class Block(NamedTuple):
    """Whole records, checked.

    Attributes:
        data: Their bytes, line ends included.
        text: The same as text.
        line: The line of the first.
        record: How many records there were before it.
    """

    data: bytes
    text: str
    line: int
    record: int


class Layout:
    """The state of a scan.

    Args:
        quoted: Whether cells may be in quotation marks; otherwise a mark is text.
        padded: Whether blanks may follow a closing mark.
        one_end: Whether all line ends must be of one kind; otherwise only a lone CR beside others is refused.
        delimiter: The character between two cells.

    Attributes:
        records: How many records have begun, the header being one; empty lines are none.
        lines: How many lines have ended.
        longest: An upper bound of the bytes of the longest record.
    """

    def __init__(
        self, *, quoted: bool = True, padded: bool = False, one_end: bool = False, delimiter: str = ","
    ) -> None:
        self._quoted, self._one_end = quoted, one_end
        self._blanks = _blanks(delimiter.encode())
        self._after_text, self._before_text = _marks(delimiter.encode(), padded=padded)
        self.records, self.lines, self.longest = 0, 0, 0
        self._inside, self._opened = False, 1
        self._last, self._buffered = b"", b""
        self._end: bytes | None = None  # the kind of line end seen first
        self._found: Fault | None = None
        self._waiting: list[bytes] = []  # what has no record's end yet
        self._waiting_size = 0
        self._block_line, self._block_record = 1, 0

    def blocks(self, pieces: Iterable[bytes]) -> Iterator[Block]:
        """The blocks of whole records in a file that comes in pieces."""
        for piece in pieces:
            block = self.take(piece)
            if block is not None:
                yield block
        block = self.finish()
        if block is not None:
            yield block

    def take(self, piece: bytes) -> Block | None:
        """Scan the next piece; gives the records that are whole with it.

        Raises:
            Fault: Something is wrong.
        """
        piece, self._buffered = self._buffered + piece, b""
        if piece.endswith(b"\r"):  # the LF may be in the next piece
            kept = min(len(piece) - len(piece.rstrip(b"\r")), _MOST_CRS)
            piece, self._buffered = piece[:-kept], piece[-kept:]
        return self._scan_to_fault(piece) if piece else None

    def finish(self) -> Block | None:
        """Scan what is left at the end of the input.

        Raises:
            Fault: Something is wrong.
        """
        piece, self._buffered = self._buffered, b""
        block = self._scan_to_fault(piece) if piece else None
        if self._found is not None:
            raise self._found
        if self._inside:
            raise Fault(self._opened, self.records, ': a quotation mark (") has no partner; double those within a cell')
        rest = self._cut(0, 0, whole=True)
        if block is None or rest is None:
            return block or rest
        return Block(block.data + rest.data, block.text + rest.text, block.line, block.record)

    # -- one piece

    def _scan_to_fault(self, piece: bytes) -> Block | None:
        """Scan; a fault is raised by the next call where there are records before it, whatever the pieces."""
        if self._found is not None:
            raise self._found
        state = {**self.__dict__, "_waiting": list(self._waiting)}
        try:
            return self._scan(piece)
        except Fault as fault:
            self.__dict__.update(state)
            sound = piece[: fault.sound].rstrip(b"\r")
            block = self._scan(sound) if sound else None  # a fault before it is raised instead
            if block is None:
                raise
            self._found = fault
            return block

    def _scan(self, piece: bytes) -> Block | None:
        nul = piece.find(b"\0")
        if nul >= 0:
            raise self._fault(
                piece,
                nul,
                self._inside,
                ": a NUL byte, which is no UTF-8 text: it is a binary file, or UTF-16; save it as UTF-8",
            )
        was_inside, before = self._inside, self.records - bool(self._last.strip(b"\r\n"))
        parts = piece.split(b'"') if self._quoted else [piece]
        outside = self._outside(parts)
        if self._quoted:
            found = [
                each.start() for each in (self._after_text.search(outside), self._before_text.search(outside)) if each
            ]
            if found:
                raise self._stray(piece, before + _records(outside[: min(found) + 1]), inside=was_inside)
        self._check_ends(piece, outside[len(self._last) :], inside=was_inside)
        self.records = before + _records(outside)
        if self._inside or self._tail(outside).startswith(b'"'):
            self._note_opening(piece)
        self._last = self._tail(outside)
        end = _last_end(parts, inside=was_inside)
        ends = _count_ends(piece)
        block = self._cut_behind(piece, end, ends)
        self.lines += ends
        return block

    def _outside(self, parts: list[bytes]) -> bytes:
        """What is outside of quotation marks, and a mark for each run within; moves on to the next state."""
        outside = self._last + b'"'.join(parts[1 if self._inside else 0 :: 2])
        marks = len(parts) - 1
        self._inside ^= bool(marks % 2)
        return outside + b'"' if self._inside and marks else outside

    def _tail(self, outside: bytes) -> bytes:
        """What the next piece has to know: the last byte, with the closing mark before its blanks."""
        bare = outside.rstrip(self._blanks)
        return b'" ' if len(bare) < len(outside) and bare.endswith(b'"') else outside[-1:]

    def _check_ends(self, piece: bytes, outside: bytes, *, inside: bool) -> None:
        crlf = outside.count(b"\r\n")
        bare, lone = outside.count(b"\n") - crlf, outside.count(b"\r") - crlf
        if not self._one_end:
            lone = lone and len(_LONE_CR.findall(outside))  # CR CR LF is what some writers make of CR LF
            bare, crlf = bare + crlf, 0
        kinds = [kind for kind, many in ((b"\r\n", crlf), (b"\n", bare), (b"\r", lone)) if many]
        if self._end is None and len(kinds) == 1:
            self._end = kinds[0]
        if all(kind == self._end for kind in kinds):
            return
        for at, kind in self._ends_outside(piece, inside=inside):
            if not self._one_end:
                kind = b"\n" if kind == b"\r\n" else kind  # noqa: PLW2901 - both end a line alike
                if kind == b"\r" and _LONE_CR.match(piece, at) is None:
                    continue
            self._end = self._end or kind
            if kind != self._end:
                raise self._fault(
                    piece,
                    at,
                    inside,
                    ": its line ends are mixed, or a cell has one outside of quotation marks; save it with one kind",
                )

    def _ends_outside(self, piece: bytes, *, inside: bool) -> list[tuple[int, bytes]]:
        ends: list[tuple[int, bytes]] = []
        at = 0
        for part in piece.split(b'"') if self._quoted else [piece]:
            if not inside:
                ends += [(at + found.start(), found[0]) for found in _ENDS.finditer(part)]
            inside = self._quoted and not inside
            at += len(part) + 1
        return ends

    def _cut_behind(self, piece: bytes, end: int, ends: int) -> Block | None:
        self.longest = max(self.longest, self._waiting_size + len(piece))
        if not end:
            self._wait(piece)
            if self._waiting_size > LONGEST:
                raise self._too_long()
            return None
        self._wait(piece[:end])
        block = self._cut(_count_ends(piece[end:]), ends, whole=False)
        self._wait(piece[end:])
        return block

    def _wait(self, piece: bytes) -> None:
        if piece:
            self._waiting.append(piece)
            self._waiting_size += len(piece)

    def _cut(self, left: int, ends: int, *, whole: bool) -> Block | None:
        data = b"".join(self._waiting)
        self._waiting, self._waiting_size = [], 0
        if not data:
            return None
        line, record = self._block_line, self._block_record
        try:
            block = Block(data, data.decode(), line, record)
        except UnicodeDecodeError as error:
            at = line + _count_ends(data[: error.start])
            nth = max(record + _records(_unquoted(data[: error.start + 1], quoted=self._quoted)), 1)
            raise Fault(at, nth, _not_utf8(data, error)) from None
        self._block_line = self.lines + ends - left + 1
        # What is left of a piece behind its last record's end has begun one record at most.
        self._block_record = self.records - (0 if whole or not self._last.strip(b"\r\n") else 1)
        return block

    # -- faults

    def _fault(self, piece: bytes, at: int, inside: bool, reason: str) -> Fault:  # noqa: FBT001 - three callers
        outside = _unquoted(piece[: at + 1], inside=inside, quoted=self._quoted)
        before = self.records - bool(self._last.strip(b"\r\n"))
        record = max(1, before + _records(self._last + outside))
        return Fault(self.lines + _count_ends(piece[:at]) + 1, record, reason, at)

    def _too_long(self) -> Fault:
        if self._inside:
            return Fault(
                self._opened,
                self.records,
                f': a quotation mark (") has no partner within {LONGEST >> 20} MiB; double those within a cell',
            )
        return Fault(
            self._block_line, self.records, f": a row of more than {LONGEST >> 20} MiB, which is no row of a table"
        )

    def _stray(self, piece: bytes, record: int, *, inside: bool) -> Fault:
        at, opened = self._stray_place(piece, inside=inside)
        line = self.lines + _count_ends(piece[:at]) + 1
        began = self._opened if opened is None else self.lines + _count_ends(piece[:opened]) + 1
        since = f" (a cell in quotation marks began on line {began})" if began < line else ""
        return Fault(
            line,
            record,
            f': a quotation mark (") is where none may be{since}; put the cell in quotation marks and double those '
            "within",
            opened or 0,
        )

    def _stray_place(self, piece: bytes, *, inside: bool) -> tuple[int, int | None]:
        """Where the first mark too many is, and where the cell around it was opened: None in an earlier piece."""
        joined = self._last + piece
        shift, opened = len(self._last), None
        if not inside and self._last.startswith(b'"') and self._before_text.match(joined):
            return 0, None
        for found in re.finditer(b'"', piece):
            at = found.start()
            if inside:
                inside = False
                if self._before_text.match(joined, at + shift):
                    return at, opened
            else:
                inside = True
                if joined[max(0, at + shift - 1) : at + shift] != b'"':
                    opened = at
                if self._after_text.match(joined, at + shift):
                    return at, at
        return 0, opened  # pragma: no cover - it is called where there is one

    def _note_opening(self, piece: bytes) -> None:
        """Keep the line of the mark that opened the cell in which, or behind which, the piece ends."""
        if not self._inside:
            piece = piece[: max(piece.rfind(b'"'), 0)]
        at = piece.rfind(b'"')
        while at > 0 and piece[at - 1 : at] == b'"':  # doubled
            at = piece.rfind(b'"', 0, at - 1)
        if at < 0 or (at == 0 and self._last.endswith(b'"')):
            return
        self._opened = self.lines + _count_ends(piece[:at]) + 1


def _last_end(parts: list[bytes], *, inside: bool) -> int:
    """The place behind the last line end outside of quotation marks; 0 where there is none."""
    stop = sum(map(len, parts)) + len(parts) - 1
    for nth in range(len(parts) - 1, -1, -1):
        part = parts[nth]
        if inside == bool(nth % 2):
            at = max(part.rfind(b"\n"), part.rfind(b"\r"))
            if at >= 0:
                return stop - len(part) + at + 1
        stop -= len(part) + 1
    return 0


def _count_ends(text: bytes) -> int:
    return text.count(b"\n") + text.count(b"\r") - text.count(b"\r\n")


def _records(text: bytes) -> int:
    return sum(map(bool, text.replace(b"\r", b"\n").split(b"\n")))


def _unquoted(text: bytes, *, inside: bool = False, quoted: bool) -> bytes:
    if not quoted:
        return text
    parts = text.split(b'"')
    marks = len(parts) - 1
    return b'"'.join(parts[1 if inside else 0 :: 2]) + (b'"' if marks and inside ^ bool(marks % 2) else b"")


def _not_utf8(data: bytes, error: UnicodeDecodeError) -> str:
    if error.end == len(data) and error.reason == "unexpected end of data":
        return " ends within a character of UTF-8: the input was cut off"
    return (
        " is not UTF-8 (Latin-1, perhaps); save it as UTF-8, or give its encoding (encoding, --encoding), e.g. cp1252"
    )
