"""`IdShard`: one of N parts of a list of ids, each of which is exported into a folder of its own.

Invariant: an id is in one shard, by its text alone; what the shards of one list say of it shows whether they are
disjoint and whole. Used by the export, by `verify` and by whatever reads several exports as one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from attrs import asdict, evolve, field, frozen

from capillary_async import InvalidRequestError
from capillary_async.jobs._common.digest import BETWEEN, MultisetDigest
from capillary_async.jobs._dataset.members import by, count, text

if TYPE_CHECKING:
    from capillary_async.jobs._dataset.manifest import Manifest

__all__ = ["IdList", "IdShard", "expanded", "faults_together", "folder_name", "shards_below"]

MOST = 100_000
_FOLDER = re.compile(r"shard-([0-9]+)-of-([0-9]+)", re.ASCII)
_NAMED = 20
_SAME = ("source", "query", "format", "cluster", "server_timezone", "consistency")


@frozen(kw_only=True)
class IdShard:
    """The shard of an export, in its manifest.

    Attributes:
        number: From 1 to `of`.
        of: How many shards the list has.
        ids: How many ids the whole list has, repeated ones included.
        repeated: How many ids of this shard came again.
        digest: Of all ids of the list, whatever their order.
    """

    number: int = field(metadata=by(count(1, MOST)))
    of: int = field(metadata=by(count(1, MOST)))
    ids: int = field(default=0, metadata=by(count(0, (1 << 53) - 1)))
    repeated: int = field(default=0, metadata=by(count(0, (1 << 53) - 1)))
    digest: str = field(default="", metadata=by(text()))

    @classmethod
    def checked(cls, given: Any) -> Self | None:
        """The shard that an argument asks for, as `(3, 16)`; None for None.

        Raises:
            InvalidRequestError: It is no pair of whole numbers, or the first is not from 1 to the second.
        """
        if given is None:
            return None
        pair = list(cast("Iterable[Any]", given)) if isinstance(given, list | tuple) else []
        whole = len(pair) == 2 and all(type(one) is int for one in pair)  # noqa: PLR2004 - a pair
        if not whole or not 1 <= pair[1] <= MOST or not 1 <= pair[0] <= pair[1]:
            raise InvalidRequestError(
                f"shard takes two whole numbers (number, of), the first from 1 to the second, e.g. (3, 16), got "
                f"{given!r:.80}",
                argument="shard",
            )
        return cls(number=pair[0], of=pair[1])

    @property
    def identity(self) -> dict[str, int]:
        """What a folder is begun with."""
        return {"number": self.number, "of": self.of}

    def has(self, key: Any) -> bool:
        """Whether an id, or the identifier of a ledger, belongs to it."""
        return _number(hashlib.sha256(str(key).encode()).digest(), self.of) == self.number

    def of_list(self, ids: int, repeated: int, digest: str) -> Self:
        """With what is known of the whole list."""
        return evolve(self, ids=ids, repeated=repeated, digest=digest)

    def as_facts(self) -> dict[str, Any]:
        """All attributes."""
        return asdict(self)

    def __str__(self) -> str:
        return f"shard {self.number} of {self.of}"


def _number(digest: bytes, of: int) -> int:
    """The shard of a digest: its first eight bytes as a number, modulo `of`, from 1."""
    return int.from_bytes(digest[:8], "big") % of + 1


class IdList:
    """A whole list of ids, counted as it is read, of which those of one shard are kept.

    Attributes:
        ids: How many there were.
        own: How many of them belong to the shard, repeated ones included.
        digest: Of all.
    """

    def __init__(self, shard: IdShard, keep: Callable[[list[Any]], Awaitable[object]]) -> None:
        self._shard, self._keep = shard, keep
        self.ids = self.own = 0
        self.digest = MultisetDigest()

    async def keep(self, piece: list[Any]) -> None:
        """Count a piece of the list and keep what belongs to the shard."""
        kept = [one for one in piece if self._is_own(one)]
        self.ids += len(piece)
        self.own += len(kept)
        await self._keep(kept)

    def _is_own(self, one: Any) -> bool:
        if isinstance(one, tuple):  # an identifier and its events
            owner, events = cast("tuple[str, list[str]]", one)
            self.digest.put_texts([BETWEEN.join((owner, *events)).encode()])
            return self._shard.has(owner)
        digest = hashlib.sha256(str(one).encode()).digest()
        self.digest.join(MultisetDigest(int.from_bytes(digest, "big")))
        return _number(digest, self._shard.of) == self._shard.number


# --- several folders --------------------------------------------------------------------------------------------------


def folder_name(number: int, of: int) -> str:
    """The name of the folder of a shard below a common one."""
    return f"shard-{number:0{len(str(of))}}-of-{of}"


def shards_below(folder: Path) -> list[Path]:
    """The folders of shards in a folder that is no export itself, in order; none where there are none."""
    if (folder / "manifest.json").exists() or not folder.is_dir():
        return []
    found = ((_FOLDER.fullmatch(path.name), path) for path in folder.iterdir() if path.is_dir())
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]


def expanded(folders: Iterable[Path]) -> list[Path]:
    """The folders, with those of its shards in place of one that has them."""
    return [each for folder in folders for each in shards_below(folder) or [folder]]


def faults_together(found: Sequence[tuple[Path, Manifest]]) -> list[str]:
    """Why the exports are not the disjoint and whole shards of one list; none where no export is a shard."""
    first = next((one for one in found if one[1].shard is not None), None)
    if first is None or first[1].shard is None:
        return []
    faults = [fault for one in found if one is not first for fault in _differences(first, one)]
    if faults:
        return faults
    shards = [(path, manifest.shard, manifest.ids.asked) for path, manifest in found if manifest.shard is not None]
    of = first[1].shard.of
    there: dict[int, Path] = {}
    for path, shard, _ in shards:
        if shard.number in there:
            faults.append(f"{shard} is there twice: {there[shard.number]} and {path}")
        there.setdefault(shard.number, path)
    missing = [number for number in range(1, of + 1) if number not in there]
    if missing:
        named = ", ".join(map(str, missing[:_NAMED])) + (", ..." if len(missing) > _NAMED else "")
        which = f"shard {named} of {of} is" if len(missing) == 1 else f"shards {named} of {of} are"
        faults.append(f"{which} missing: give the folders of all shards together, each of a finished export")
    have = sum(asked + shard.repeated for _, shard, asked in shards)
    if not faults and have != first[1].shard.ids:
        faults.append(f"the shards together have {have:,} ids, and their list has {first[1].shard.ids:,}")
    return faults


def _differences(first: tuple[Path, Manifest], other: tuple[Path, Manifest]) -> list[str]:
    """What two exports must have in common to be shards of one list."""
    (path, one), (beside, two) = first, other
    if one.shard is None or two.shard is None:
        return [f"{beside} is no shard, and {path} is {one.shard}: give the shards of one list alone"]
    if (one.shard.of, one.shard.ids, one.shard.digest) != (two.shard.of, two.shard.ids, two.shard.digest):
        what = "numbers of shards" if one.shard.of != two.shard.of else "lists of ids"
        return [f"{path} ({one.shard}) and {beside} ({two.shard}) are of different {what}"]
    names = [name for name in _SAME if getattr(one, name) != getattr(two, name)]
    return [f"{path} and {beside} are shards of one list with another {name}" for name in names]
