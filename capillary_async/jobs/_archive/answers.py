"""`Answers`: answers the calls of an export from an archive, in place of the service.

Invariant: a body is given only if it is as it was written; a request without one is empty where the export never asked
for it, and else a fault that names it. A middleware of the session that `replay` makes.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from attrs import define, field

from capillary_async import Response, __version__
from capillary_async.jobs._archive.pack import PackReader
from capillary_async.jobs._archive.requests import Asked, asked_by, is_first_page, keys_of
from capillary_async.jobs._common.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Callable

    from capillary_async import Handler, Request
    from capillary_async.jobs._archive.folder import ArchiveFolder
    from capillary_async.jobs._dataset.state import State

__all__ = ["Answers"]

_OPEN = 16  # shards whose packs are open
_DIGITS = re.compile(rb"\"?([0-9]+)\"?")
_EMPTY, _BOM = b"[]", b"\xef\xbb\xbf"


class _Owner(msgspec.Struct):
    """Whose row it is."""

    customer_id: msgspec.Raw = msgspec.Raw(b"null")


_ROWS, _OWNER = msgspec.json.Decoder(list[msgspec.Raw]), msgspec.json.Decoder(_Owner)


@define(eq=False)
class _Found:
    """A line of an index: an answer, for several keys perhaps."""

    reader: PackReader
    line: dict[str, Any]
    keys: int


@define(eq=False)
class _Bodies:
    """The bodies of one shard."""

    readers: list[PackReader]
    found: dict[tuple[Any, Asked], _Found] = field(factory=dict[tuple[Any, Asked], _Found])

    def close(self) -> None:
        for reader in self.readers:
            reader.close()


class Answers:
    """Answers from one archive.

    Args:
        state: The copy of the database in the archive.
        on_fault: Called with the first fault.
    """

    def __init__(self, folder: ArchiveFolder, state: State, on_fault: Callable[[JobError], object]) -> None:
        self._folder, self._state, self._on_fault = folder, state, on_fault
        self._source, self._shard_keys = state.get("source"), state.get("shard_keys")
        self._open: OrderedDict[int, _Bodies] = OrderedDict()

    async def __call__(self, request: Request, handler: Handler) -> Response:  # noqa: ARG002 - nothing is sent
        """Answer a call."""
        keys = keys_of(self._source, request.path, request.query)
        asked = asked_by(request.path, request.query)
        try:
            found = {key: self._find(key, asked) for key in keys}
            return self._answer(found)
        except JobError as fault:
            self._on_fault(fault)
            raise

    def close(self) -> None:
        """Close the packs."""
        while self._open:
            self._open.popitem()[1].close()

    def _answer(self, found: dict[Any, _Found | None]) -> Response:
        given = [each for each in found.values() if each is not None]
        if len(found) == 1 and given and given[0].keys == 1:
            (one,) = given
            return _response(one.line["status"], one.reader.body(one.line), one.line["request_id"])
        # Other keys than in the archive were asked together: of each answer the rows of those that are asked.
        rows: list[bytes] = []
        for key, each in found.items():
            if each is not None and each.line["status"] != HTTPStatus.NOT_FOUND:
                rows += _rows_of(key, each)
        return _response(HTTPStatus.OK, b"[" + b",".join(rows) + b"]", given[0].line["request_id"] if given else None)

    def _find(self, key: Any, asked: Asked) -> _Found | None:
        """The answer for a key; None where it is empty, or the key failed."""
        place = self._state.place_of(key)
        if place is not None and self._state.has_failed(place):
            return None
        found = None if place is None else self._bodies((place - 1) // self._shard_keys).found.get((key, asked))
        if found is None and (place is None or is_first_page(asked)):
            raise JobError(
                f"{self._folder.path} has no answer for key {key} to {asked[0]} ({dict(asked[1])}): a body is missing"
                f"{_advice(self._state)}",
                path=str(self._folder.path),
            )
        return found

    def _bodies(self, shard: int) -> _Bodies:
        """The bodies of a shard, the last answer to each request."""
        known = self._open.get(shard)
        if known is not None:
            self._open.move_to_end(shard)
            return known
        bodies = _Bodies([])
        for pack in self._state.packs(shard):
            reader = PackReader(self._folder.path, pack)
            bodies.readers.append(reader)
            for line in reader.index():
                path, _, query = line["request"].partition("?")
                keys, asked = keys_of(self._source, path, query), asked_by(path, query)
                for key in keys:
                    bodies.found[key, asked] = _Found(reader, line, len(keys))
        self._open[shard] = bodies
        if len(self._open) > _OPEN:
            self._open.popitem(last=False)[1].close()
        return bodies


def _advice(state: State) -> str:
    """What to do where the replay asks for what the export did not ask for."""
    release = state.get("sdk_version")
    if release == __version__:
        return ": take the archive from a backup, or export again"
    return f", or another release asks otherwise: replay it with the release that made it, SDK {release}"


def _rows_of(key: Any, found: _Found) -> list[bytes]:
    """The rows of one key, byte for byte; of an answer for it alone all of them."""
    body = found.reader.body(found.line).removeprefix(_BOM).strip()
    rows = [body] if body[:1] == b"{" else [bytes(row) for row in _ROWS.decode(body or _EMPTY)]
    if found.keys == 1:
        return rows
    return [row for row in rows if _owner(row) == key]


def _owner(row: bytes) -> int | None:
    if row[:1] != b"{":
        return None
    digits = _DIGITS.fullmatch(bytes(_OWNER.decode(row).customer_id))
    return None if digits is None else int(digits[1])


def _response(status: int, body: bytes, request_id: str | None) -> Response:
    headers = {"Content-Type": "application/json"}
    if request_id is not None:
        headers["X-CAP-REQUEST-ID"] = request_id
    return Response(status, headers, body)
