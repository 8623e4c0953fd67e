"""Why a text is no id: what ids look like in files, and what programs make of them.

Invariant: an id is a positive whole number of 64 bits in decimal digits; nothing else is turned into one. Used where
ids come from a file.
"""

from __future__ import annotations

import re

__all__ = ["LARGEST", "is_number", "is_other_number", "why_no_id"]

LARGEST = 2**63 - 1
_DIGITS = re.compile(r"[0-9]+", re.ASCII)
_OTHER = re.compile(
    r"[+-]?(?=[0-9.,]*[0-9])(?:[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)?(?:[.,][0-9]*)?(?:[eE][+-]?[0-9]+)?", re.ASCII
)


def is_other_number(text: str) -> bool:
    """Whether it is a number written in another way than ids are: `600000001.0`, `6.0E+8`, `600,000,001`."""
    return _DIGITS.fullmatch(text) is None and _OTHER.fullmatch(text) is not None


def is_number(text: str) -> bool:
    """Whether it is a number, however it is written."""
    return _DIGITS.fullmatch(text) is not None or is_other_number(text)


def why_no_id(text: str) -> str | None:
    """Why it is no id, to follow the text; None where it is one."""
    if _DIGITS.fullmatch(text):
        significant = text.lstrip("0")
        if not significant:
            return "is no id: ids are positive"
        if len(significant) > len(str(LARGEST)) or int(significant) > LARGEST:
            return f"is no id: it is larger than {LARGEST}, the largest"
        return None
    if not text:
        return "is empty"
    if is_other_number(text):
        return (
            "is no id: it is a number with a sign, decimals, separators or an exponent. Spreadsheets write ids so, and "
            "pandas where one of the column is missing; write whole numbers, e.g. with astype('Int64')"
        )
    return "is no id: ids are whole numbers"
