"""What the sandbox answers with, before it is put on the wire, and the API's several shapes of refusal.

Invariant: numbers are written from Decimals as their text, never through a float. The endpoint files make these values;
`_protocol/send.py` sends them; faults replace or spoil them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs
import msgspec

from capillary_async._repr import brief_repr

__all__ = ["Answer", "Refused", "expired", "neo_error", "ok", "unauthorized", "v2_errors"]

_encode = msgspec.json.Encoder(decimal_format="number").encode
_NO_HEADERS: Mapping[str, str] = {}


@attrs.frozen
class Answer:
    """One HTTP answer: what it says, and how it is sent.

    Attributes:
        body: The bytes before any compression.
        status: The HTTP status.
        content_type: The media type, without parameters.
        headers: Further headers.
        send: `whole`; `length` cuts below the announced Content-Length, `chunked` cuts before the last chunk, `content`
            sends a complete message around a cut body; `reset` closes the connection with nothing sent.
        keep: The part of the body, from 0 to 1, that a cut answer still sends.
    """

    body: bytes = attrs.field(repr=False)
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = _NO_HEADERS
    send: Literal["whole", "length", "chunked", "content", "reset"] = "whole"
    keep: float = 1.0

    __repr__ = brief_repr


class Refused(Exception):  # noqa: N818  (it is control flow of the sandbox, not a fault)
    """An endpoint will not answer; carries what to say instead."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.answer = answer


def ok(value: Any, status: int = 200) -> Answer:
    """The value as JSON."""
    return Answer(_encode(value), status)


def neo_error(status: int, message: str) -> Answer:
    """A refusal of the Neo paths: an object where success is an array."""
    return ok({"errors": [{"status": False, "code": status, "message": message}]}, status)


def v2_errors(status: int, code: int, message: str) -> Answer:
    """A refusal of the v2 paths: the code in the body says more than the status."""
    errors = [{"status": False, "code": code, "message": message}]
    return ok({"data": None, "warnings": None, "errors": errors}, status)


def unauthorized(message: str) -> Answer:
    """Wrong or missing credentials, in the v1.1 envelope: its values are strings."""
    return _v11(401, 401, message)


def expired(status: int) -> Answer:
    """A token past its life: body code 498, whatever the HTTP status."""
    return _v11(status, 498, "Token expired, please generate a new one")


def _v11(status: int, code: int, message: str) -> Answer:
    return ok({"response": {"status": {"success": "false", "code": str(code), "message": message}}}, status)
