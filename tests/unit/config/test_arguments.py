"""What may be given to an endpoint: each kind of argument, over its whole range."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from enum import Enum, IntEnum, StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capillary_async import EventType, InvalidRequestError
from capillary_async.endpoints import _arguments as arguments

LARGEST = 2**63 - 1


class Index:
    """A number as numpy has them."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value  # type: ignore[no-any-return]


class NoBool:
    """A truth value as numpy has them: a number it is not."""

    def __bool__(self) -> bool:
        return True


class Number(IntEnum):
    SEVEN = 7


@pytest.mark.parametrize(
    ("value", "number"),
    [(1, 1), ("1", 1), ("007", 7), (LARGEST, LARGEST), (str(LARGEST), LARGEST), (Index(5), 5), (Number.SEVEN, 7)],
)
def test_ids(value: Any, number: int) -> None:
    """An int, an `__index__` value or a decimal string, as a plain int."""
    checked = arguments.positive("entity_id", value)
    assert checked == number
    assert type(checked) is int


@pytest.mark.parametrize(
    "value",
    [
        0, -1, True, False, 3.5, 3.0, None, "", " ", "12x", "-1", "+1", " 1", "1 ", "1\n", "1_000", "\uff11\uff12",
        "\u0663", "0", "1e3", "0x10", b"12", LARGEST + 1, str(LARGEST + 1), "9" * 5000, Index(0), NoBool(), [1],
        date(2025, 1, 1), 1j, "../x", "a/b", "a?x", "%2e%2e", "1\r\nHost: x", ".",
    ],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_what_is_no_id(value: Any) -> None:
    """Refused: the argument, what came, and what is allowed."""
    with pytest.raises(InvalidRequestError) as caught:
        arguments.positive("entity_id", value)
    text = str(caught.value)
    assert text.startswith(f"entity_id takes a positive whole number of at most {LARGEST}, got ")
    assert repr(value)[:60] in text
    assert len(text) < 300
    assert caught.value.argument == "entity_id"
    assert isinstance(caught.value, ValueError)


@given(st.text())
def test_a_text_is_an_id_only_as_ascii_digits(value: str) -> None:
    """Whatever else Python's `int` would take."""
    right = re.fullmatch("[0-9]{1,19}", value, re.ASCII) is not None and 1 <= int(value) <= LARGEST
    try:
        assert arguments.positive("x", value) == int(value)
    except InvalidRequestError:
        assert not right
    else:
        assert right


class Old(str, Enum):  # noqa: UP042 - users' own enums may be of this kind
    A = "a value"


class New(StrEnum):
    A = "a value"


class Text(str):
    """A text of a user's own class."""

    __slots__ = ()


@pytest.mark.parametrize("value", ["a value", Old.A, New.A, Text("a value")])
def test_texts(value: Any) -> None:
    """Plain, or of an enum, as a plain text."""
    checked = arguments.text("status", value)
    assert checked == "a value"
    assert type(checked) is str


@pytest.mark.parametrize(
    "value", ["", " ", "\t", "a\nb", "a\r\nb", "a\x00b", "a\x7fb", "\ud800", "\u2028", None, 5, b"a", EventType.SCAN]
)
def test_what_is_no_text(value: Any) -> None:
    """Empty, blank, or with control characters."""
    with pytest.raises(InvalidRequestError, match="status takes a text that is not empty, without control characters"):
        arguments.text("status", value)
    with pytest.raises(InvalidRequestError):
        arguments.choice_text("status", value if value is not None else "")


def test_a_text_or_none() -> None:
    """None is not sent."""
    assert arguments.choice_text("type", None) is None
    assert arguments.choice_text("type", "CUSTOMER") == "CUSTOMER"


@pytest.mark.parametrize(("value", "text"), [("abc", "abc"), ("0", "0"), (5, "5"), (Index(5), "5"), (New.A, "a value")])
def test_identities(value: Any, text: str) -> None:
    """An event may be named by a number or a text."""
    assert arguments.identity("entity_id", value) == text


@pytest.mark.parametrize("value", [0, -5, True, 2.5, None, "", b"x", [1]])
def test_what_is_no_identity(value: Any) -> None:
    """Refused."""
    with pytest.raises(InvalidRequestError, match="entity_id takes a text"):
        arguments.identity("entity_id", value)


def test_flags() -> None:
    """As the wire spells them; None is not sent."""
    assert [arguments.flag_text("x", value) for value in (True, False, None)] == ["true", "false", None]
    for value in (1, 0, "true", ""):
        with pytest.raises(InvalidRequestError, match="is_primary_user takes True, False or None"):
            arguments.flag_text("is_primary_user", value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (date(2025, 6, 1), "2025-06-01"),
        ("2025-06-01", "2025-06-01"),
        ("2024-02-29", "2024-02-29"),
        (date.max, "9999-12-31"),
    ],
)
def test_days(value: Any, text: str) -> None:
    """A date, or a text that is one."""
    assert arguments.day("from_date", value) == text


@pytest.mark.parametrize(
    "value",
    [
        "2025-6-1", "20250601", "2025-W01-1", "2025-02-30", "2025-13-01", "2025-00-01", "0000-01-01", "01.06.2025",
        "2025-06-01 ", "2025-06-01T00:00:00", "2025-06-0\uff11", "", None, 20250601, 1.5,
    ],
)  # fmt: skip
def test_what_is_no_day(value: Any) -> None:
    """Refused with what is allowed."""
    with pytest.raises(InvalidRequestError, match="from_date takes a date or a YYYY-MM-DD text that is one") as caught:
        arguments.day("from_date", value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [datetime(2025, 6, 1, tzinfo=UTC), datetime(2025, 6, 1)])  # noqa: DTZ001 - naive is meant
def test_a_moment_is_no_day(value: datetime) -> None:
    """Which day it is depends on the zone, and a silent choice may be a day off."""
    with pytest.raises(InvalidRequestError, match=r"say which zone's date you mean: value\.date\(\)"):
        arguments.day("from_date", value)


def test_days_in_order() -> None:
    """The same day twice is one day; the other order is refused."""
    assert arguments.days("a", "2025-06-01", "b", date(2025, 6, 1)) == ("2025-06-01", "2025-06-01")
    with pytest.raises(InvalidRequestError, match="a 2025-06-02 is after b 2025-06-01; swap them") as caught:
        arguments.days("a", "2025-06-02", "b", "2025-06-01")
    assert caught.value.argument == "a"


def test_lists_of_ids_and_names() -> None:
    """Each once, in order."""
    assert arguments.positives("event_ids", iter([3, "1", 3, Index(2)])) == (3, 1, 2)
    assert arguments.names("names", ("b", 7, "a", "b", "7")) == ("b", "7", "a")
    assert arguments.names("names", {"x": 1}) == ("x",)


@pytest.mark.parametrize("check", [arguments.positives, arguments.names])
@pytest.mark.parametrize("value", ["abc", b"abc", 5, None, 3.5])
def test_what_is_no_list(check: Any, value: Any) -> None:
    """A bare text or number is a slip."""
    with pytest.raises(InvalidRequestError, match=f"ids takes an iterable of .* got {value!r}"):
        check("ids", value)


@given(st.dictionaries(st.from_regex("[a-z_]{1,9}", fullmatch=True), st.text() | st.integers() | st.none()))
def test_a_query_says_what_was_given(params: dict[str, Any]) -> None:
    """Whatever is in a text stays in its parameter; what is None is not sent."""
    from urllib.parse import parse_qsl

    sent = {name: str(value) for name, value in params.items() if value is not None}
    try:
        encoded = arguments.query(**params)
    except UnicodeEncodeError:  # half characters are refused before, by `text`
        return
    assert dict(parse_qsl(encoded, keep_blank_values=True)) == sent
    assert encoded.isascii()
    assert not set(encoded) & set(" /?#\r\n")


def test_a_comma_stays_a_comma() -> None:
    """It joins ids on the wire."""
    assert arguments.query(entity_id="1,2", b="c d") == "entity_id=1,2&b=c%20d"
