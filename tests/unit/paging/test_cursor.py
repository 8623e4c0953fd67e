"""The cursor of a reading, as values: page, size, cap and end."""

from __future__ import annotations

import pytest
from attrs.exceptions import FrozenInstanceError

from capillary_async._paging.cursor import LIKELY_CAPS, Cursor, after_single_page, detect_page_size
from capillary_async._paging.page import Position

FIRST = Position(1)


def read(cursor: Cursor, *received: int) -> Cursor:
    """The cursor after pages of these lengths."""
    for length in received:
        cursor = cursor.detect(length).after(length)
    return cursor


@pytest.mark.parametrize(
    ("received", "page", "size", "done"),
    [
        ((100,), 2, 100, False),  # as requested
        ((100, 100, 7), 4, 100, True),
        ((100, 0), 2, 100, True),  # the empty page is where later rows would come
        ((50,), 2, 50, False),  # a likely cap is believed
        ((50, 50, 20), 4, 50, True),  # and once it is known, a shorter page ends the list
        ((49,), 2, 100, True),
        ((120,), 2, 100, False),  # more than requested
        ((0,), 1, None, True),  # an empty list shows no size
    ],
)
def test_pages_from_the_first_on(received: tuple[int, ...], page: int, size: int | None, done: bool) -> None:
    """Page 1 shows the size, a page that is not full the end."""
    cursor = read(Cursor.at(FIRST, 100), *received)
    assert cursor.position(None) == Position(page, 0, size)
    assert cursor.done is done
    assert cursor.begun


@pytest.mark.parametrize(("received", "done"), [(50, False), (49, True), (100, False)])
def test_a_reading_that_begins_later_believes_no_short_page(received: int, done: bool) -> None:
    """It may be the last one: its length puts off the end, but is not taken for the size."""
    cursor = read(Cursor.at(Position(3), 100), received)
    assert cursor.size == 100
    assert cursor.done is done
    assert cursor.position(None).page_size == (100 if received == 100 else None)


def test_a_known_cap_is_full() -> None:
    """Also a length at which servers seldom cap."""
    cursor = Cursor.at(FIRST, 100)
    assert cursor.may_be_capped(33)
    assert not cursor.is_full(33)
    capped = cursor.capped_at(33)
    assert capped.is_full(33)
    after = read(capped, 33)
    assert (after.number, after.size, after.done) == (2, 33, False)
    assert not after.may_be_capped(20)


@pytest.mark.parametrize("cursor", [Cursor.at(Position(1, 0, 100), 10), Cursor.at(FIRST, 100, fixed=True)])
def test_a_size_that_is_known_is_not_detected_again(cursor: Cursor) -> None:
    """From a position, or where the caller fixed it."""
    assert not cursor.may_be_capped(50)
    assert not cursor.is_full(50)
    after = read(cursor, 50)
    assert (after.size, after.done) == (100, True)


def test_max_items_stay_within_the_page() -> None:
    """Reading continues at the first row that was left over."""
    cut = Cursor.at(FIRST, 100).detect(100).after(100, cut_at=30)
    assert cut.position(None) == Position(1, 30, 100)
    assert cut.done
    enough = Cursor.at(FIRST, 100).detect(100).after(100, enough=True)
    assert enough.position(None) == Position(2, 0, 100)
    assert enough.done


def test_a_page_in_whose_middle_reading_began_has_no_full_page_before() -> None:
    """What came before it is not known; a position at the beginning of a page follows a full one."""
    assert Cursor.at(Position(3), 10).full_before
    assert not Cursor.at(Position(3, 4), 10).full_before
    assert not Cursor.at(FIRST, 10).full_before
    assert Cursor.at(Position(3, 4), 10).after(0).skip == 4


def test_known_pages_end_by_their_number() -> None:
    """Lengths say nothing then, and positions name no size."""
    cursor = Cursor.at(FIRST, 10, pages=2)
    assert cursor.fills(0)
    cursor = read(cursor, 0)
    assert (cursor.number, cursor.done) == (2, False)
    cursor = read(cursor, 3)
    assert cursor.position(None) == Position(3)
    assert cursor.done
    assert Cursor.at(Position(3), 10, pages=2).done


def test_steps_change_nothing() -> None:
    """Each gives a new cursor."""
    cursor = Cursor.at(FIRST, 100)
    before = repr(cursor)
    read(cursor.capped_at(33), 33, 5)
    assert cursor.ended().done
    assert repr(cursor) == before
    with pytest.raises(FrozenInstanceError):
        cursor.number = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("number", "received", "detected", "position", "ended"),
    [
        (1, 100, None, Position(2, 0, 100), False),
        (1, 50, None, Position(2, 0, 50), False),
        (3, 50, None, Position(4), False),  # one page alone cannot show a cap
        (3, 49, None, Position(4, 0, 100), True),
        (3, 50, 100, Position(4, 0, 100), False),
        (3, 0, None, Position(3), True),
        (3, 0, 100, Position(3, 0, 100), True),
    ],
)
def test_a_single_page(number: int, received: int, detected: int | None, position: Position, ended: bool) -> None:
    """Where the list continues after it, and whether it ended the list."""
    assert after_single_page(number, received, 100, detected) == (position, ended)


def test_likely_caps_are_page_sizes() -> None:
    """A page as long as requested, or longer, is no cap."""
    assert [detect_page_size(100, length) for length in (10, 11, 99, 100, 200)] == [10, 100, 100, 100, 100]
    assert all(detect_page_size(cap + 1, cap) == cap for cap in LIKELY_CAPS)
