"""Pages of allocations with values as servers write them, and as they should not."""

from __future__ import annotations

from decimal import Decimal

import attrs
from hypothesis import strategies as st

from capillary_async import PointsAllocation

FIELDS = tuple(attrs.fields_dict(PointsAllocation))
AMOUNTS = tuple(name for name, one in attrs.fields_dict(PointsAllocation).items() if one.type == Decimal | None)

# JSON, and texts that are none.
VALUES = [
    *("0", "-0", "1", "-1", "7.5", "-7.125", "0.100", "0.1000", "1.2345", "123456789012345.678", "999999999999999.999"),
    *(
        "1000000000000000",
        "12345678901234567890",
        "-9223372036854775808",
        "9223372036854775808",
        "1e3",
        "1E-3",
        "1.5e+2",
    ),
    *("1E-9999999", "1E9999999", "1e-101", "0.0000", "0e0", "-0.0", "1" * 101, "0." + "1" * 99, "0." + "1" * 101),
    *(
        "null",
        "true",
        "false",
        "[]",
        "{}",
        "[1]",
        '{"a": 1}',
        '""',
        '"1.5"',
        '"7"',
        '" 1 "',
        '"1_000"',
        '"NaN"',
        '"1e3"',
    ),
    *('"\\u0031"', '"\\ud800"', '"x"', "NaN", "Infinity", "01", "1.", ".5", "--1", "1 2"),
]

rows_of_values = st.lists(
    st.dictionaries(
        st.sampled_from((*AMOUNTS[:4], "id", "till_id", "status", "expiry_date", "odd")), st.sampled_from(VALUES)
    ),
    max_size=6,
)


def body_of(members: list[dict[str, str]]) -> bytes:
    """A page of rows whose values are JSON text."""
    texts = (", ".join(f'"{name}": {value}' for name, value in row.items()) for row in members)
    return ("[" + ", ".join(f"{{{text}}}" for text in texts) + "]").encode()
