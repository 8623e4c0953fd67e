"""A member that comes twice with two values is no record's value, whatever reads the page."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capillary_async import DecodeError, PointsAllocation
from capillary_async._codec.decode import parse, rows

TWICE = [
    b'[{"id":1,"points_exclusive":12.5,"points_exclusive":99}]',
    b'[{"id":1,"new":1,"new":2}]',
    b'[{"id":1,"points_exclusive":"1","points_exclusive":1}]',
    b'[{"id":1,"points_exclusive":null,"points_exclusive":1}]',
    b'[{"id" : 1, "points_exclusive" : 1, "points_exclusive" : 2}]',
    b'[{"id":1,"points_exclusive":1,"points\\u005fexclusive":2}]',
    b'[{"id":1,"status":"\\ud83d","status":"x"}]',
    b'\xef\xbb\xbf[{"id":1,"id":2}]',
]


@pytest.mark.parametrize("body", TWICE)
def test_neither_of_two_values_is_picked(body: bytes):
    """The page is an error that names the member and both values."""
    with pytest.raises(DecodeError, match=r"comes twice in one object, as .+ and as ") as caught:
        rows(PointsAllocation, body)
    assert caught.value.kind == "beyond"
    with pytest.raises(DecodeError, match="comes twice"):
        parse(body)


def test_the_same_value_twice_is_one_value():
    """What says the same twice says it."""
    (record,) = rows(PointsAllocation, b'[{"id":1,"status":"A","status":"A","points_exclusive":1.50}]').items
    assert (record.id, record.status, str(record.points_exclusive)) == (1, "A", "1.50")


def test_a_name_that_is_no_text_is_an_error_of_ours():
    """It does not leave as a UnicodeDecodeError, which would end a whole fan-out."""
    with pytest.raises(DecodeError):
        rows(PointsAllocation, b'[{"id":1,"\xff":1}]')


TEXTS = st.text(st.sampled_from('":\\,a{}[] \n\u00e9'), max_size=8)
VALUES = st.recursive(
    st.none() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, st.booleans(), st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]))
@settings(max_examples=50, deadline=None)
def test_no_other_json_is_refused(value: Any, ascii_only: bool, separators: tuple[str, str]):
    """Names and texts of quotes, colons and backslashes are no repeated members, however they are written."""
    assert parse(json.dumps(value, ensure_ascii=ascii_only, separators=separators).encode()) == value


ODD = [
    '"status":"a}b"',
    '"status":"}"',
    '"org_id1":{}',
    '"org_id1":[{}]',
    '"org_id1":"}"',
    '"status":"}","org_id2":{"a":1}',
]


@pytest.mark.parametrize("raw", [False, True], ids=["records", "raw"])
@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("number", [1, 50])
def test_a_brace_within_a_row_hides_no_second_value(number: int, odd: str, raw: bool):
    """In a text or in a member that is not documented, alone or among plain rows."""
    plain = '{"id":1,"points_exclusive":12.5,"status":"AVAILABLE"}'
    twice = '{"id":2,"points_exclusive":12.5,' + odd + ',"points_exclusive":999}'
    body = f"[{','.join([plain] * (number - 1) + [twice])}]".encode()
    with pytest.raises(DecodeError, match="comes twice"):
        rows(PointsAllocation, body, raw=raw)
