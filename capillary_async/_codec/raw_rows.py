"""`RawRow`: a row of a page whose amounts are still the digits of the body, for columns without records.

Invariant: a raw row equals another row, or a record, exactly where the records of both are equal. Made by msgspec for
`fast_decoder`; read by the paging rules as records are, and by `tables`.
"""

from decimal import Decimal
from functools import lru_cache
from typing import Any, ClassVar

import attrs
import msgspec

from capillary_async.models.exact import PARSING

__all__ = ["RawRow", "raw_decoder"]


class RawRow(msgspec.Struct, gc=False, eq=False):
    """A row: whole numbers and texts as the model has them, amounts as int or as the bytes of their digits.

    Where only some columns are read, the other members are None in the record.
    """

    model: ClassVar[Any]
    amounts: ClassVar[frozenset[str]]

    def record(self) -> Any:
        """The row as a record of its model."""
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        values.update((name, _amount(values[name])) for name in self.amounts)
        return self.model(**values)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, RawRow):
            return msgspec.structs.astuple(self) == msgspec.structs.astuple(other) or self.record() == other.record()
        return bool(self.record() == other) if isinstance(other, self.model) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.record())


def _amount(value: Any) -> Decimal | None:
    return None if value is None else Decimal(value.decode() if isinstance(value, bytes) else value, PARSING)


@lru_cache(maxsize=64)
def raw_decoder(model: Any, columns: tuple[str, ...]) -> Any:
    """The msgspec decoder of a page into raw rows.

    Args:
        model: A model in snake_case.
        columns: The fields to read, in any order.
    """
    fields = attrs.fields_dict(model)
    amounts = frozenset(name for name in columns if fields[name].type == Decimal | None)
    # In the order of the model, which is that of the wire: msgspec finds a member first where it comes next.
    described = [(name, Any if name in amounts else fields[name].type, None) for name in fields if name in columns]
    row = msgspec.defstruct(
        f"{model.__name__}Row", described, bases=(RawRow,), namespace={"model": model, "amounts": amounts}, eq=False
    )
    return msgspec.json.Decoder(list[row], float_hook=str.encode)  # type: ignore[valid-type]
