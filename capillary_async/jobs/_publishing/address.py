"""The URL that an export is published at: which store, which place in it, and how to reach it.

Invariant: a URL has no credentials and no query; both are refused, and no message repeats them. Called by
`_publish.py`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from attrs import frozen

from capillary_async import InvalidRequestError
from capillary_async._files.addresses import without_secrets

__all__ = ["SCHEMES", "Destination", "destination_of"]

SCHEMES = ("s3", "gs", "abfss", "file")
_ENDPOINT = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_FORMS = "s3://bucket/folder, gs://bucket/folder, abfss://container@account.dfs.core.windows.net/folder, file:///folder"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(//)?(.*)", re.DOTALL)
_ALIASES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfs": "abfss", "az": "abfss", "azure": "abfss", "adl": "abfss"}
_CONTAINER = re.compile(r"([A-Za-z0-9$][A-Za-z0-9$-]*)@([A-Za-z0-9]+)\.(dfs\.[A-Za-z.]+)")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@frozen(kw_only=True)
class Destination:
    """A folder in a store.

    Attributes:
        scheme: `s3`, `gs`, `abfss` or `file`.
        root: The folder as pyarrow's file system names it: `bucket/folder`, `container/folder` or `/folder`.
        url: The URL as it was given, without a slash at its end.
        account: The storage account and its domain, of `abfss`.
        endpoint: The URL of an S3-compatible server; None for AWS.
    """

    scheme: str
    root: str
    url: str
    account: tuple[str, str] | None = None
    endpoint: str | None = None

    @property
    def delta_uri(self) -> str:
        """The URL for the package deltalake, percent-encoded."""
        if self.scheme == "file":
            return Path(self.root).as_uri()
        authority, _, path = self.url.partition("://")[2].partition("/")
        return f"{self.scheme}://{authority}/{quote(path)}"

    def __str__(self) -> str:
        return self.url


def destination_of(url: str | os.PathLike[str], endpoint: str | None = None) -> Destination:
    """Read a URL.

    Args:
        url: The URL.
        endpoint: The URL of an S3-compatible server; None for `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`, else AWS.

    Raises:
        InvalidRequestError: It is a path, of another scheme, or has what a URL of a folder has not.
    """
    given = os.fspath(url) if isinstance(url, os.PathLike) else url
    if not isinstance(given, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers are not all typed
        raise InvalidRequestError(f"url takes {_FORMS}; got {given!r:.100}", argument="url")
    text = given.strip()
    scheme, rest = _scheme(text)
    text = f"{scheme}{text[len(scheme) :]}".rstrip("/")
    if not text.isprintable():
        raise _invalid(text, "has a control character")
    if "?" in rest or "#" in rest:
        raise _invalid(text, "has a query or a fragment: credentials and options come from the store's own environment")
    if scheme != "s3" and endpoint is not None:
        raise InvalidRequestError(
            f"endpoint takes a server for s3:// alone, got it with {scheme}://", argument="endpoint"
        )
    if scheme == "file":
        return Destination(scheme=scheme, root=_local(text, rest), url=text)
    authority, _, path = rest.rstrip("/").partition("/")
    _check_path(text, path)
    if scheme == "abfss":
        return _azure(text, authority, path)
    if not _BUCKET.fullmatch(authority):
        why = "has credentials" if "@" in authority or ":" in authority else "names no bucket"
        raise _invalid(text, why)
    return Destination(
        scheme=scheme, root=f"{authority}/{path}", url=text, endpoint=_endpoint(endpoint) if scheme == "s3" else None
    )


def _scheme(text: str) -> tuple[str, str]:
    """The scheme, and what is after `://`."""
    found = _URL.match(text)
    scheme = found[1].lower() if found else ""
    if found is None or (not found[2] and scheme not in SCHEMES):
        raise _invalid(text, "is a path or has no scheme: of a local folder give file:// and its absolute path")
    if scheme in _ALIASES:
        raise _invalid(text, f"is of the scheme {scheme}: write {_ALIASES[scheme]}://")
    if scheme not in SCHEMES:
        raise _invalid(text, f"is of the scheme {scheme}, which publish does not know")
    if not found[2]:
        raise _invalid(text, f"has no // after {scheme}:")
    return scheme, found[3]


def _check_path(text: str, path: str) -> None:
    parts = path.split("/")
    if not path:
        raise _invalid(text, "names no folder")
    if "" in parts or "." in parts or ".." in parts:
        raise _invalid(text, "has an empty part, . or .. in its path")


def _local(text: str, rest: str) -> str:
    """The absolute path of a file URL, which is percent-decoded as those of `Path.as_uri()` are encoded."""
    path = unquote(rest.removeprefix("localhost") if rest.startswith("localhost/") else rest)
    if not path.startswith("/"):
        raise _invalid(text, "is relative, or names a host: write file:// and an absolute path, file:///folder")
    _check_path(text, path.strip("/"))
    if "\0" in path:
        raise _invalid(text, "has a control character")
    return path.rstrip("/")


def _azure(text: str, authority: str, path: str) -> Destination:
    found = _CONTAINER.fullmatch(authority)
    if found is None:
        why = "has credentials" if ":" in authority else "names no container and account"
        raise _invalid(text, why)
    return Destination(scheme="abfss", root=f"{found[1]}/{path}", url=text, account=(found[2], found[3]))


def _endpoint(given: str | None) -> str | None:
    named = next((os.environ[name] for name in _ENDPOINT if os.environ.get(name)), None)
    text = named if given is None else given
    if text is None:
        return None
    try:
        parts = urlsplit(text)
        host, wrong = parts.hostname, bool(parts.username or parts.password or parts.query or parts.fragment)
        wrong = wrong or parts.port == 0 or parts.path.strip("/") != ""
    except ValueError:
        host, wrong = None, True
    if wrong or not host or parts.scheme not in ("http", "https"):  # pyright: ignore[reportPossiblyUnboundVariable]
        raise InvalidRequestError(
            f"endpoint takes the URL of an S3-compatible server, https://host:port without credentials, path or query; "
            f"got {without_secrets(text)!r:.200}",
            argument="endpoint",
        )
    return text.rstrip("/")


def _invalid(text: str, why: str) -> InvalidRequestError:
    shown = without_secrets(text) if "@" not in text or text.startswith("abfss") else f"{text.partition(':')[0]}://***"
    return InvalidRequestError(f"url takes {_FORMS}; {shown!r:.300} {why}", argument="url")
