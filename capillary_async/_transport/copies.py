"""`Copies` finds an answer that the same connection brought before, for another request.

After a proxy sends an answer twice on one connection, the second is read as the answer to the next request. Rows name
their customer, an empty list does not.

Invariant: only an answer with a request id is a copy, since the server gives each answer another id; without ids, two
empty lists are the same bytes. Called by `Wire`; `Retry` sends such a request again, over a new connection. If that
brings the same id, the server's ids do not identify answers, and nothing is a copy from then on.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Copies"]

_KEPT = 64  # answers per connection
_ID_HEADERS = ("x-cap-request-id", "x-cap-requestid")

_Answers = OrderedDict[int, str]


class Copies:
    """The last answers of each connection, by the hash of their headers, and what was asked for."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Any, _Answers] = WeakKeyDictionary()
        self._suspected: OrderedDict[str, str] = OrderedDict()  # target: request id
        self._constant = False

    def has(self, connection: Any, target: str, sent: Mapping[str, str], answer: Any, body: bytes) -> bool:
        """Whether the connection brought this answer before, for another target; and remember it.

        Its headers and its length say so: the body of a copy is behind the same id.

        Args:
            connection: The connection, None for a test double.
            target: Path and query of the request.
            sent: The headers of the request: an id that the caller chose may be in all answers.
            answer: The answer of aiohttp.
            body: Its body, as it came.
        """
        number = next((answer.headers[name] for name in _ID_HEADERS if name in answer.headers), None)
        if connection is None or number is None or self._constant:
            return False
        if self._suspected and self._suspected.pop(target, None) == number:
            self._constant = True
        answers = self._known.get(connection)
        if answers is None:
            answers = self._known[connection] = OrderedDict()
        digest = hash((answer.status, answer.raw_headers, len(body)))
        copied = answers.pop(digest, target) != target
        answers[digest] = target
        if len(answers) > _KEPT:
            answers.popitem(last=False)
        if not copied or any(name.lower() in _ID_HEADERS for name in sent):
            return False
        self._suspected[target] = number
        if len(self._suspected) > _KEPT:
            self._suspected.popitem(last=False)
        return True
