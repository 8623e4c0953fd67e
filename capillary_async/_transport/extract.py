"""Extracts of the body of an answer, for messages and errors.

Invariant: an extract is short, on one line, and without credentials, queries of URLs and control characters. Pure
functions, called by `classify.py` and `api_errors.py`.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, cast

from capillary_async._repr import cut
from capillary_async._transport.refusal import DEEPEST, LONGEST_NUMBER, LOOKED_AT

__all__ = ["cleaned", "extract", "text_of", "title_of"]

BODY_SHOWN: Final = 500  # characters: Spring's timestamp, status, error, message and path fit
WORDS_SHOWN: Final = 300
_MOST: Final = 20  # entries or members of a body that an extract shows

# Each takes all up to the next blank: `scrub`, which knows our own credentials, does not recognize a part of one.
_VEILED_NAME: Final = r"(?:passw(?:or)?d|secret|token|authorization|api[-_]?key|credential|cookie)"
_VEILED_MEMBER: Final = re.compile(_VEILED_NAME, re.IGNORECASE)
# After a colon a sentence may follow ("token: expired"): it takes quotation marks, a scheme or a digit.
_NAMED: Final = re.compile(
    rf"""({_VEILED_NAME}[\w-]{{0,40}}["']?\s*)(?:"""
    r"""([:=]\s*)(?:"[^"]*"|(?:bearer|basic|digest)\s+\S{6,}|(?=[^\s\d]{0,200}\d)\S{6,})|(=)\S+)""",
    re.IGNORECASE,
)
_SCHEME: Final = re.compile(r"\b(bearer|basic|digest)\s+(?=\S*[\d=])\S{8,}", re.IGNORECASE)
_JSON_TOKEN: Final = re.compile(r"\beyJ[\w-]{4,}\.\S+")
_USER: Final = re.compile(r"(://)[^\s@]{1,200}@\S*")
_URL_QUERY: Final = re.compile(r"(://[^\s?#]{0,300})[?#]\S*")
_QUERY: Final = re.compile(r"\?[^\s=?]*=\S*")
_TITLE: Final = re.compile(r"<(title|message|faultstring|h1)\b[^>]{0,200}>([^<]{1,1000})</\1", re.IGNORECASE | re.ASCII)


def cleaned(text: str, room: int = WORDS_SHOWN) -> str:
    """A text without credentials and queries, on one line, without control characters, and cut."""
    text = cut(text, LOOKED_AT)
    for pattern, instead in _TAKEN_OUT:
        text = pattern.sub(instead, text)
    return _one_line(text, room)


_TAKEN_OUT: Final = (
    (_NAMED, r"\1\2\3***"),
    (_SCHEME, r"\1 ***"),
    (_JSON_TOKEN, "***"),
    (_USER, r"\1***"),
    (_URL_QUERY, r"\1"),
    (_QUERY, ""),
)


def _one_line(text: str, room: int) -> str:
    return cut("".join(one if one.isprintable() else _escaped(one) for one in cut(text, room)), room)


def _escaped(character: str) -> str:
    return " " if character in "\r\n\t" else repr(character)[1:-1]


def extract(body: bytes, parsed: Any) -> str:
    """The beginning of a body, without credentials, queries and control characters."""
    if isinstance(parsed, dict | list):
        return _one_line(json.dumps(_shown(parsed, DEEPEST), ensure_ascii=False, default=str), BODY_SHOWN)
    return cleaned(body[:LOOKED_AT].decode("utf-8", "replace").strip(), BODY_SHOWN)


def _shown(value: Any, depth: int) -> Any:
    """A value as an extract shows it: texts cleaned, secret members veiled, long and deep ones cut."""
    if isinstance(value, str):
        return cleaned(value, BODY_SHOWN)
    if isinstance(value, int) and value.bit_length() > LONGEST_NUMBER:
        return "..."
    if not isinstance(value, dict | list):
        return value
    if not depth:
        return "..."
    if isinstance(value, list):
        return [_shown(one, depth - 1) for one in cast("list[Any]", value)[:_MOST]]
    return {
        cleaned(name): "***" if _VEILED_MEMBER.search(name) else _shown(one, depth - 1)
        for name, one in list(cast("dict[str, Any]", value).items())[:_MOST]
    }


def text_of(body: bytes) -> str:
    """What a body that is no JSON says; empty where it is no text."""
    try:
        text = body[:LOOKED_AT].decode("utf-8")
    except UnicodeDecodeError as error:
        whole_but_its_end = error.start > LOOKED_AT - 4
        text = body[: error.start].decode("utf-8") if whole_but_its_end else ""
    return "" if "\0" in text else text.strip().removeprefix("\ufeff")


def title_of(body: bytes) -> str:
    """The title of an HTML page, or the message of an XML one; empty where it has none."""
    found = _TITLE.search(text_of(body))
    return "" if found is None else " ".join(found[2].split())
