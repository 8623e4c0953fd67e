"""Addresses as users give them: where their secrets are, and whether an address is a URL where a path is due.

Invariant: whatever the form of an address, its shown text has stars for every secret; where it is not certain how far
a secret reaches, more is hidden, never less. Used by `jobs` and `cli`; imports nothing of ours.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote, unquote_plus

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["scheme_of", "secrets_in", "why_no_path", "without_secrets"]

_STARS, _SHORTEST = "***", 4
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_AUTHORITY = re.compile(r"(?<![\w/@.])([A-Za-z][A-Za-z0-9+.-]+):/(/?)")  # pathlib leaves one slash of two
# One letter and a colon is a drive of Windows. `dbfs:/x` and what pathlib makes of `s3://x` have one slash.
_URL = re.compile(r"[\s'\"]*((?:[A-Za-z][A-Za-z0-9+.-]+:)+)/")
# In the URLs of databases the user is worth seeing; elsewhere a user without a password may be a token.
_DATABASES = re.compile(
    r"(?i)(?:postgres|redshift|cockroach|mysql|maria|mssql|sqlserver|oracle|snowflake|databricks|duckdb|sqlite|db2|"
    r"clickhouse|trino|hive|mongodb|redis|jdbc|abfss?$|wasbs?$)"
)
_NAME = (
    r"(?:[\w.\-]*(?:password|passwd|passphrase|passcode|pwd|secret|token|credentials?|signature|private_?key)[\w.\-]*|"
    r"pass|pw|sig|sas|(?:[\w.\-]*[_.\-])?(?:api|account|shared|access|sharedaccess|storage)[_\-]?key)"
)
# `name = value` of libpq, ODBC, ADO, JDBC and queries, also percent-encoded (`odbc_connect=...PWD%3Dx%3B`) or in JSON.
_NAMED = re.compile(rf"(?is)(?<![\w%]){_NAME}[\"']?\s*(?:=|:(?![/:])|%3D)\s*|(?is:%3B|%26|%20){_NAME}(?:=|%3D)")
_QUOTED = re.compile(r"(?s)'((?:[^'\\]|\\.|'')*)'|\"((?:[^\"\\]|\\.|\"\")*)\"|\{((?:[^}]|\}\})*)\}")
# An unquoted value ends where the next name begins, so that a separator within a password hides more and shows none.
_NEXT = re.compile(r"(?is)(?:[&;,\s]+|%3B|%26)[\"']?[A-Za-z_][\w .\-]{0,60}[\"']?\s*(?:=|%3D)|[\"']?\s*\Z")
_BARE = re.compile(r"(?s)\s*['\"]?(?:jdbc:[\w:]*:)?(?![A-Za-z]:[\\/])([^\s/:@'\"]+)[:/](.*)@")
_WITH_QUERY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/[^\s?#'\"]*([?#][^\s'\"]*)")
_PARAMETER = re.compile(r"(?:[?&;]([^=&;#]*)=|#)([^&;#]*)")
_HARMLESS = frozenset(
    {"application_name", "connect_timeout", "database", "dbname", "format", "host", "hostaddr", "port", "role",
     "schema", "sslmode", "table", "target_session_attrs", "user", "username", "version", "warehouse"}
)  # fmt: skip
_FILES = (".csv", ".parquet", ".gz", ".zst", ".duckdb", ".db", ".json", ".jsonl", ".html", ".txt", ".tsv", ".xlsx")
_HINTS = {
    "file": "give the path alone, without file:",
    "dbfs": "give the path below /dbfs/ instead",
}


def scheme_of(text: str) -> str | None:
    """What is before `://`, in lower case; None for a path and for any other form."""
    found = _SCHEME.match(text)
    return found[1].lower() if found else None


def why_no_path(given: str | os.PathLike[str]) -> str | None:
    """Why this is no path of a file or folder; None for a path.

    `s3:/x` counts as a URL, since that is what `pathlib` makes of `s3://x`; `s3:x` and `C:/x` are paths.
    """
    text = os.fspath(given)
    found = _URL.match(text)
    if found is None:
        return None
    scheme = found[1].rstrip(":").lower()
    hint = _HINTS.get(scheme, "give a local path, and copy the files from there")
    return (
        f"{without_secrets(text)!r} is a URL, and only paths of local files can be used here: {hint} (a folder that "
        f"is really named {found[1]!r} can be given by its absolute path)"
    )


def without_secrets(text: str) -> str:
    """The text with stars for every secret of the addresses in it."""
    for start, end in sorted(_merged(_spans(text)), reverse=True):
        text = f"{text[:start]}{_STARS}{text[end:]}"
    return text


def secrets_in(text: str) -> list[str]:
    """The secrets of an address, each in the forms in which an error may repeat it, the longest first."""
    forms: set[str] = set()
    for start, end in _spans(text):
        raw = text[start:end]
        bare = raw.replace("''", "'").replace("}}", "}")
        less = (
            part for part in re.split(r"[@&;\s/?#:]", raw) if len(part) >= _SHORTEST
        )  # it may reach less far than shown
        for each in (raw, bare, re.sub(r"\\(.)", r"\1", raw), *less):
            forms |= {each, unquote(each), unquote_plus(each)}
    return sorted(filter(None, forms), key=len, reverse=True)


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """From where to where the secrets reach; they may overlap."""
    yield from _in_userinfo(text)
    yield from _in_names(text)
    yield from _in_bare(text)
    yield from _in_queries(text)


def _merged(spans: Iterator[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _in_userinfo(text: str) -> Iterator[tuple[int, int]]:
    """`scheme://user:secret@host`: to the last `@` before a query, since passwords come with `/` and `@` unencoded."""
    for found in _AUTHORITY.finditer(text):
        start = found.end()
        following = _AUTHORITY.search(text, start)
        rest = text[start : following.start() if following else None]
        end = _last_at(rest)
        if end < 0:
            continue
        colon = rest.find(":", 0, end)
        if colon >= 0 and _DATABASES.match(found[1]):
            yield start + colon + 1, start + end
        elif colon >= 0 or (found[2] and not _DATABASES.match(found[1])):
            yield start, start + end


def _last_at(rest: str) -> int:
    """Where the userinfo ends; -1 where there is none. An `@` of the path or query alone is none."""
    query = re.search(r"\?[\w.%\-]+=", rest)
    end = rest.rfind("@", 0, query.start() if query else None)
    if end < 0 and query is not None and ":" in rest[: query.start()] and "@" in rest:
        return _within_password(rest)
    path = re.search(r"[/?#]", rest)
    if end >= 0 and path is not None and path.start() < end and ":" not in rest[: path.start()]:
        return rest.rfind("@", 0, path.start())
    return end


def _within_password(rest: str) -> int:
    """`u:p?x=1@h`: what looks like a query is part of the password, unless what is before it is `host:port/...`."""
    host = re.match(r"[\w.\-\[\]]*:\d{1,5}(?:[/?,]|$)|[^:]*/", rest)
    return -1 if host else rest.rfind("@")


def _in_names(text: str) -> Iterator[tuple[int, int]]:
    for found in _NAMED.finditer(text):
        quoted = _QUOTED.match(text, found.end())
        if quoted is not None and re.match(r"[&;,\s}\]\"')]|%3B|%26|\Z", text[quoted.end() :]):
            yield quoted.start() + 1, quoted.end() - 1
            continue
        following = _NEXT.search(text, found.end())
        yield found.end(), following.start() if following else len(text)


def _in_queries(text: str) -> Iterator[tuple[int, int]]:
    """The fragment of a URL, and the value of each parameter but for those that say no secret: `?key=secret#secret`."""
    for url in _WITH_QUERY.finditer(text):
        for found in _PARAMETER.finditer(text, url.start(1), url.end(1)):
            if found[1] is None or found[1].lower() not in _HARMLESS:
                yield found.span(2)


def _in_bare(text: str) -> Iterator[tuple[int, int]]:
    """`user/secret@host` of Oracle, `user:secret@host`: an address, unless it looks like a path."""
    found = _BARE.match(text)
    if found is None or _SCHEME.search(text) or _is_path(text):
        return
    yield found.span(2)


def _is_path(text: str) -> bool:
    plain = text.strip()
    folder = os.path.dirname(plain)  # noqa: PTH120 - text, whatever it is
    return plain.lower().endswith(_FILES) or plain.startswith((".", "~")) or _is_folder(folder)


def _is_folder(path: str) -> bool:
    try:
        return bool(path) and os.path.isdir(path)  # noqa: PTH112
    except (OSError, ValueError):
        return False
