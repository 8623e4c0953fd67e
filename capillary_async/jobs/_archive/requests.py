"""Which keys a request asks for, and how two forms of the same request are recognized.

Invariant: pure; a request is known by its path and parameters, whatever their order. Used by `recorder.py` and
`answers.py`.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, unquote

__all__ = ["Asked", "asked_by", "is_first_page", "keys_of"]

_ENTITIES = re.compile(r"(?:^|&)entity_id=([^&]*)")
_CUSTOMER = re.compile(r"/customers/([0-9]+)/")

Asked = tuple[str, tuple[tuple[str, str], ...]]  # the path, and the parameters without the keys


def keys_of(source: str, path: str, query: str) -> list[Any]:
    """The keys of the export that a request asks for; none where it is no request of the export."""
    if source == "ledger":
        return [value for name, value in parse_qsl(query) if name == "identifierValue"]
    found = _CUSTOMER.search(path) if source == "events" else _ENTITIES.search(query)
    return [] if found is None else [int(key) for key in unquote(found[1]).split(",") if key.isdecimal()]


def asked_by(path: str, query: str) -> Asked:
    """What is asked of each key."""
    parameters = parse_qsl(query, keep_blank_values=True)
    return path, tuple(sorted(pair for pair in parameters if pair[0] != "entity_id"))


def is_first_page(asked: Asked) -> bool:
    """Whether it is the first page of a list, or no page of a list."""
    return dict(asked[1]).get("page", "1") == "1"
