"""What users hold of a list: `Page`, and `Position`, from where reading continues.

Invariant: data only; a page refers to nothing of the session that read it. Called by `FetchedPage`, which makes pages,
by `ListReader`, the iterators and users.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar, overload

from attrs import field, fields, frozen
from attrs.validators import optional

from capillary_async._html import card
from capillary_async._paging.seen import Past, Stored
from capillary_async._repr import brief_repr, shown
from capillary_async._validation import validator, whole
from capillary_async.errors import ApiMessage

__all__ = ["Page", "Position", "past_of", "placed"]

T_co = TypeVar("T_co", covariant=True)


class _WithPast:
    """The part of a position that is neither shown nor compared."""

    __slots__ = ("_past",)

    _past: Past | Stored | None


@frozen
class Position(_WithPast):
    """Where reading continues: a value of three numbers.

    A position that a reading made also knows the records given before it, so that a reading that starts there gives
    none of them again, also where rows moved meanwhile, and reports those that changed. Pickled, it has digests of the
    last 4,096 keys (8 bytes each). One made by hand from three numbers knows no records: a row that moved past it since
    then is given a second time.

    Attributes:
        page: The page, from 1.
        index: Rows of that page, as received, that were given already.
        page_size: The page size that the two are counted in; None for the pager's own.
    """

    page: int = field(validator=validator(whole, 1))
    index: int = field(default=0, validator=validator(whole, 0))
    page_size: int | None = field(default=None, validator=optional(validator(whole, 1)))

    __repr__ = brief_repr

    def __reduce__(self) -> tuple[Any, ...]:
        past = past_of(self)
        stored = past.stored() if isinstance(past, Past) else past
        packed = None if stored is None else (stored.keys, stored.contents, stored.stale)
        return self._restored, (self.page, self.index, self.page_size, packed)

    @classmethod
    def _restored(
        cls, page: int, index: int, page_size: int | None, packed: tuple[bytes, bytes, int] | None
    ) -> Position:
        cls(page, index, page_size)  # checks them
        return placed(page, index, page_size, None if packed is None else Stored(*packed))


def placed(page: int, index: int, page_size: int | None, past: Past | Stored | None) -> Position:
    """A position that knows the records before it. Its numbers come from a reading and are not checked."""
    position, fill = object.__new__(Position), object.__setattr__
    fill(position, "page", page)
    fill(position, "index", index)
    fill(position, "page_size", page_size)
    fill(position, "_past", past)
    return position


def past_of(position: Position | None) -> Past | Stored | None:
    """The records before a position, as far as it knows them."""
    return getattr(position, "_past", None)


@frozen(eq=False)
class Page(Generic[T_co]):
    """One page of a list, without duplicates and within `max_items`.

    Attributes:
        items: The records.
        number: The number of the page, from 1.
        request_id: The server's id of the request.
        warnings: Warnings of the answer, and of the SDK where it dropped null entries.
        status: The HTTP status.
        elapsed: Seconds of the attempt that succeeded.
        position: Where reading continues after this page.
        last: True where this page is known to end the list, or `max_items` was reached.
    """

    items: tuple[T_co, ...]
    number: int
    request_id: str | None = None
    warnings: tuple[ApiMessage, ...] = ()
    status: int = 200
    elapsed: float = 0.0
    position: Position | None = None
    last: bool = False
    # The row, as received, of each item; None where item n is row n.
    _rows: Sequence[int] | None = field(default=None, repr=False)
    # The records before this page; None where none is known.
    _before: Past | None = field(default=None, repr=False)
    _drift: Any = field(default=None, repr=False, eq=False, alias="drift")  # for the jobs

    def position_behind(self, count: int) -> Position:
        """Where reading continues when only the first `count` items were used."""
        after = self.position or Position(self.number + 1)
        if count >= len(self.items):
            return after
        row = count if self._rows is None else self._rows[count]
        past = None if self._before is None else self._before.after(self.items[:count])
        return placed(self.number, row, after.page_size, past)

    def __getstate__(self) -> dict[str, Any]:
        # The position has what other processes need to know; the page would pickle all of it once more.
        return {name: None if name in ("_before", "_drift") else getattr(self, name) for name in _PAGE}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """For pydantic and FastAPI, as a return type or a field: `Page[LoyaltyEvent]`."""
        from capillary_async._pydantic import values_schema  # noqa: PLC0415 - loaded only when pydantic asks

        hints = {"items": tuple[T_co, ...], "number": int, "request_id": str | None,
                 "warnings": tuple[dict[str, Any], ...], "status": int, "elapsed": float, "last": bool}  # fmt: skip
        return values_schema(cls, source, hints, handler)

    def _repr_html_(self) -> str:
        facts = {"records": f"{len(self):,}", "last": self.last or None, "request id": self.request_id}
        return card(f"Page {self.number}", {**facts, "warnings": self.warnings or None}, self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[T_co]:
        return iter(self.items)

    @overload
    def __getitem__(self, index: int) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T_co, ...]: ...
    def __getitem__(self, index: int | slice) -> T_co | tuple[T_co, ...]:
        return self.items[index]

    def __repr__(self) -> str:
        return f"<Page {self.number}: {len(self.items)} items, request_id={shown(self.request_id)}>"


_PAGE = tuple(attribute.name for attribute in fields(Page))
