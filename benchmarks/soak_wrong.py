"""Wrong answers as a cache, a gateway or a broken proxy gives them in the place of the right one.

Invariant: each can be noticed by a reader that knows the rules of paging, since something contradicts it. Not played is
what no reader of one answer can notice: a first page that is short or empty under 200, a shorter last page, and two
different faults in one list.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from attrs import frozen

from benchmarks.soak_records import has_events, page_body, pages_of, rows_of
from benchmarks.soak_server import answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["ENDS", "FOREIGN", "KINDS", "LESS", "ODD", "TWICE", "Wrong", "wrong_answer", "wrong_of"]

_NEIGHBOUR = 29  # a customer of the same endpoint with the longest list
_HTML = b"<html><head><title>404 Not Found</title></head><body><h1>Not Found</h1></body></html>"
_PLAIN = "text/plain; charset=utf-8"
_STAYS = 0.2  # of them come again where the page is asked for again

LESS = "a row less"
FOREIGN = "another customer's page"
TWICE = "an answer twice"
# What may be taken for the end of a list: played on pages that a full page comes before.
ENDS: dict[str, Callable[[int], bytes]] = {
    "404 of a gateway": lambda _: answer(b'{"message":"no Route matched with those values"}', "404 Not Found"),
    "404 of a default backend": lambda _: answer(b"default backend - 404", "404 Not Found", kind=_PLAIN),
    "404 of a mux": lambda _: answer(b"404 page not found\n", "404 Not Found", kind=_PLAIN),
    "404 without a body": lambda _: answer(b"", "404 Not Found"),
    "404 of a framework": lambda _: answer(
        b'{"timestamp":"2026-11-20T02:17:00.000+00:00","status":404,"error":"Not Found","path":"/x"}', "404 Not Found"
    ),
    "404 with HTML": lambda _: answer(_HTML, "404 Not Found", kind="text/html"),
    "an empty page": lambda customer: answer(page_body(customer, 1, ())),
    "null data": lambda customer: answer(
        b'{"data":null,"warnings":[{"message":"shard 3 timed out; result is partial"}]}'
        if has_events(customer)
        else b"null"
    ),
    "200 with code 404": lambda _: answer(b'{"errors":[{"status":false,"code":404,"message":"busy"}]}'),
}
# Each status with the share of the page's rows that comes with it; None for no body.
ODD: dict[str, float | None] = {
    "202 Accepted": 0.0, "204 No Content": None, "205 Reset Content": None, "206 Partial Content": 0.6,
    "207 Multi-Status": 0.9, "226 IM Used": 0.1, "299 Odd": 0.5, "099 Odd": 1.0,
}  # fmt: skip
KINDS: dict[str, float] = {
    **dict.fromkeys(ENDS, 1.0), LESS: 4.0, FOREIGN: 5.0, TWICE: 5.0, **dict.fromkeys(ODD, 1.0),
}  # fmt: skip


@frozen
class Wrong:
    """What befalls one list.

    Attributes:
        kind: One of `KINDS`.
        page: The page that is answered wrongly.
        times: How often.
        late: Whether it comes late, behind the pages that were asked for after it.
        contradicted: Whether it is played only where the next page, which has rows, was asked for already.
    """

    kind: str
    page: int
    times: int = 1
    late: bool = False
    contradicted: bool = False


def wrong_of(customer: int, share: float, seed: int) -> Wrong | None:
    """What befalls the customer's list, if anything; `share` of all pages. The same for the same seed."""
    dice = random.Random(seed * 10**10 + customer)
    if dice.random() >= share * pages_of(customer):
        return None
    stays = dice.random() < _STAYS
    fitting = {kind: pages for kind in KINDS if (pages := _pages(kind, customer, stays=stays))}
    kind = dice.choices(list(fitting), [KINDS[kind] for kind in fitting])[0]
    contradicted = _contradicted(kind, stays=stays)
    late = contradicted or dice.random() < 0.5
    return Wrong(kind, dice.choice(fitting[kind]), _times(kind, stays=stays), late, contradicted)


def _contradicted(kind: str, *, stays: bool) -> bool:
    """Whether only the page after it shows that it is wrong: asked again, an end that stays is the end."""
    return kind == LESS or (kind in ENDS and stays)


def _pages(kind: str, customer: int, *, stays: bool) -> list[int]:
    """The pages that the kind may be played on."""
    pages = range(1, pages_of(customer) + 1)
    if kind in ODD:
        return list(pages)
    if kind in {FOREIGN, TWICE}:
        return [page for page in pages if rows_of(customer, page)]
    return [page for page in pages[1:] if not _contradicted(kind, stays=stays) or rows_of(customer, page + 1)]


def _times(kind: str, *, stays: bool) -> int:
    """How often; an end that stays is right again for who asks again after the error."""
    if not stays or kind == TWICE:
        return 1
    return 2 if kind in ENDS or kind == LESS else 3


def wrong_answer(kind: str, customer: int, page: int) -> bytes:
    """The whole answer, head and body; of an answer that comes twice the first."""
    rows: Sequence[int] = rows_of(customer, page)
    if kind in ENDS:
        return ENDS[kind](customer)
    if kind == LESS:
        return answer(page_body(customer, page, rows[:-1]))
    if kind == FOREIGN:
        return answer(page_body(customer - customer % 10 + _NEIGHBOUR, page))
    if kind == TWICE:
        return answer(page_body(customer, page))
    part = ODD[kind]
    if part is None:
        length = "" if kind.startswith("204") else "Content-Length: 0\r\n"
        return f"HTTP/1.1 {kind}\r\n{length}\r\n".encode()
    some = rows[: int(len(rows) * part)]
    extra = f"Content-Range: items 0-{len(some) - 1}/{len(rows)}\r\n" if kind.startswith("206") else ""
    return answer(page_body(customer, page, some), kind, extra)
