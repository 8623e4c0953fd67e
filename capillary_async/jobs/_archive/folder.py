"""The folder of an archive: its packs, whose export it is, and the copy of that export's database.

Invariant: a folder belongs to one export, and nothing in it is removed that this export did not make; the copy of the
database is there only when the export is finished. Used by `ExportRun` and by the replay.
"""

from __future__ import annotations

import json
import re
import sqlite3
import uuid
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, cast

from capillary_async._files.durable import give_name, make_folder, sync_folder, write_file
from capillary_async.jobs._common.digest import file_digest
from capillary_async.jobs._common.errors import JobError, about
from capillary_async.jobs._dataset.folder import is_own_file, local_path
from capillary_async.jobs._dataset.state import Pack, State

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator
    from pathlib import Path


__all__ = ["ArchiveFolder"]

_PACK = re.compile(r"part-[0-9]{8}-[0-9]{3,}\.zip(?:\.part)?")
_VERSION = 1


class ArchiveFolder:
    """The files of one archive.

    Raises:
        JobError: It is a URL.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = local_path(path, "the archive").absolute()
        self.about = self.path / "archive.json"
        self.state = self.path / "state.sqlite"

    def pack(self, shard: int, nth: int) -> Path:
        """The file of a pack."""
        return self.path / f"part-{shard:08d}-{nth:03d}.zip"

    def listed(self) -> Iterator[Path]:
        """The packs that are there, unfinished ones included."""
        yield from sorted(path for path in self.path.iterdir() if _PACK.fullmatch(path.name))

    def join(self, state: State, facts: dict[str, Any]) -> None:
        """Make it the archive of an export, or check that it is.

        Args:
            state: The database of the export.
            facts: What is written down for people, e.g. the query.

        Raises:
            JobError: It is another export's, the export was begun without one, or it cannot be made.
        """
        known = state.get("archive_id")
        try:
            if known is None:
                known = self._new(state)
            if self.identity() is None and not state.packs():
                self._refuse_files()
                members = {"archive_version": _VERSION, "archive_id": known, **facts}
                write_file(self.about, json.dumps(members, indent=2, ensure_ascii=False).encode() + b"\n")
        except OSError as error:
            raise self._fault(
                f"cannot use {self.path} as an archive: {error.strerror or error}; name a folder that can be written"
            ) from None
        if self.identity() != known:
            raise self._fault(
                f"{self.path} is not the archive that the export was begun with: give that one, or export into another "
                "folder"
            )

    def _new(self, state: State) -> str:
        if state.get("asked") is not None:
            raise self._fault(
                "the export was begun without an archive: go on without one, or export into another folder"
            )
        make_folder(self.path)
        self._refuse_files()
        identity = uuid.uuid4().hex
        state.put(archive_id=identity)
        return identity

    def _refuse_files(self) -> None:
        """Refuse a folder that has files, but for what a killed process left of `archive.json`."""
        make_folder(self.path)
        if any(not path.name.startswith(f".{self.about.name}.") for path in self.path.iterdir()):
            raise self._fault(
                f"the archive {self.path} is not empty: every export has an archive of its own; name a new folder"
            )

    def _fault(self, message: str) -> JobError:
        return JobError(message, path=str(self.path))

    def identity(self) -> str | None:
        """The id of the export whose archive it is; None where it is no archive."""
        try:
            found: Any = json.loads(self.about.read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        members = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
        return str(members.get("archive_id")) if members.get("archive_version") == _VERSION else None

    def repair(self, packs: Iterable[Pack], *, paranoid: bool) -> set[int]:
        """Remove packs that count no more, and return the shards whose packs are not as they were written."""
        named = {pack.file: pack for pack in packs}
        for path in self.listed():
            if path.name not in named:
                path.unlink()
        wrong = {pack.number for pack in named.values() if not self._is_whole(pack, paranoid=paranoid)}
        for pack in named.values():
            if pack.number in wrong:
                (self.path / pack.file).unlink(missing_ok=True)
        self._drop_part()
        return wrong

    def _is_whole(self, pack: Pack, *, paranoid: bool) -> bool:
        path = self.path / pack.file
        if not is_own_file(path) or path.stat().st_size != pack.bytes:
            return False
        return not paranoid or file_digest(path) == pack.sha256

    @property
    def _part(self) -> Path:
        return self.path / "state.sqlite.part"

    def _drop_part(self) -> None:
        for end in ("", "-journal", "-wal", "-shm"):
            self._part.with_name(self._part.name + end).unlink(missing_ok=True)

    def reopen(self) -> None:
        """Remove the copy of the database: the export goes on."""
        with suppress(FileNotFoundError):
            self.state.unlink()
            sync_folder(self.path)

    def finish(self, state: State) -> None:
        """Keep a copy of the database of the finished export."""
        self._drop_part()
        try:
            state.back_up(self._part)
        except sqlite3.OperationalError as error:
            raise about(error, self._part) from error
        give_name(self._part, self.state)

    def is_finished(self, finished: str | None) -> bool:
        """Whether the copy of the database is that of an export that was finished then."""
        if not is_own_file(self.state):
            return False
        with suppress(Exception), closing(State.read_only(self.state)) as copy:
            return bool(copy.get("finished") == finished)
        return False
