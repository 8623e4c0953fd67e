"""Plain English: no string constant, docstring or comment of the package has a word that readers have to solve.

Invariant: a word that is gone does not return. The words, and what to write, are in
`support/words.py`.
"""

from __future__ import annotations

import ast
import io
import tokenize
from typing import TYPE_CHECKING

import pytest
from support.pages import PAGES
from support.paths import PACKAGE, ROOT
from support.words import banned_words

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
        for word, instead in banned_words(text):
            yield line, word, instead


def test_plain_english() -> None:
    """In every file of the package: texts and comments."""
    files = sorted(PACKAGE.rglob("*.py"))
    found = [f"{path}:{line}: {word!r}: write {instead}" for path in files for line, word, instead in found_in(path)]
    assert found == []


@pytest.mark.parametrize("name", [*PAGES, ".github/SECURITY.md", ".github/CONTRIBUTING.md"])
def test_plain_english_in_documents(name: str) -> None:
    """For those who read before they install; `--help` has its own test."""
    lines = enumerate((ROOT / name).read_text("utf-8").splitlines(), 1)
    assert [(name, number, *found) for number, line in lines for found in banned_words(line)] == []


def test_a_banned_word_is_found(tmp_path: Path) -> None:
    """In a docstring, a message and a comment; not in a name, nor in a technical use."""
    path = tmp_path / "some.py"
    path.write_text('"""It tells.\n\nHeeds."""\nlies = "a feed"  # anew\nother = "os.walk; a foreign key"\n')
    assert sorted(line for line, _, _ in found_in(path)) == [1, 3, 4, 4]
