"""Plain English: no string constant, docstring or comment of the package has a word that readers have to solve.

Invariant: a word that is gone does not return. What a phrase is to be replaced by is beside it.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from typing import TYPE_CHECKING

from support.paths import PACKAGE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
# Files and folders of the package that are still to be reworded.
NOT_YET = {
    "_codec",
    "errors.py",
    "jobs",
}


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Each string constant and comment of a file, with its line."""
    source = path.read_text("utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from enumerate(node.value.split("\n"), node.lineno)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def found_in(path: Path) -> Iterator[tuple[int, str, str]]:
    """Each line of a file with a banned word: the line, the word, and what to write."""
    for line, text in texts(path):
        for exact in TECHNICAL:
            text = text.replace(exact, "")  # noqa: PLW2901
        for pattern, instead in BANNED.items():
            if (found := pattern.search(text)) is not None:
                yield line, found[0], instead


def test_plain_english() -> None:
    """In every room that is done."""
    done = [path for path in sorted(PACKAGE.rglob("*.py")) if path.relative_to(PACKAGE).parts[0] not in NOT_YET]
    found = [f"{path}:{line}: {word!r}: write {instead}" for path in done for line, word, instead in found_in(path)]
    assert found == []


def test_a_banned_word_is_found(tmp_path: Path) -> None:
    """In a docstring, a message and a comment; not in a name, nor in a technical use."""
    path = tmp_path / "some.py"
    path.write_text('"""It tells.\n\nHeeds."""\nlies = "a feed"  # anew\nother = "os.walk; a foreign key"\n')
    assert sorted(line for line, _, _ in found_in(path)) == [1, 3, 4, 4]
