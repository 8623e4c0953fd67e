"""The words that are gone from the texts of the package, and what to write instead."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTEAD = {  # a pattern, and what to write
    r"cannot be(?= named|\.|;|,| is|$)": "is invalid",
    r"tells|told": "reports, says, message",
    r"stands": "is",
    r"lies": "is in",
    r"heeds?|heeded": "honours",
    r"anew": "again, recompute",
    r"mend(?:s|ed|ing)?": "repair",
    r"held back|holds? back": "buffered, kept",
    r"ask(?:s|ed|ing)? again": "retry",
    r"crew|walks?|feed|spare|strikes?|doubtful|tally|dice|spool|foreign": "worker pool, reader, key source, unowned",
    r"patience": "max_wait",
    r"aside": "spill",
    r"rule kept here": "Invariant",
    r"behind it|behind the end": "after",
    r"(?:customers|records|rows|keys|requests|bytes|lines) an? (?:file|line|key|page|second)": "per file, per line",
    r"at most\)": "maximum N",
    r"nobody": "no task, no caller",
}
BANNED = {re.compile(rf"\b(?:{pattern})(?!\w)", re.IGNORECASE): word for pattern, word in INSTEAD.items()}
TECHNICAL = (  # exact uses that are the field's own
    "foreign key",
    "feed_data",
    "feed_eof",
    "os.walk",
    "ast.walk",
)


def banned_words(text: str) -> Iterator[tuple[str, str]]:
    """Each banned word of a text, and what to write."""
    for exact in TECHNICAL:
        text = text.replace(exact, "")
    for pattern, instead in BANNED.items():
        if (found := pattern.search(text)) is not None:
            yield found[0], instead
