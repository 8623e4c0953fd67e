"""Errors are values: they tell what they must, and arrive whole in another process."""

import asyncio
import copy
import inspect
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest
from support.raw_server import Answer, RawServer, http

from capillary_async import AsyncSession, EventQuery, Position, errors
from capillary_async.errors import (
    APIError,
    ApiMessage,
    AttemptRecord,
    CapillaryError,
    DecodeError,
    InvalidRequestError,
    NotFoundError,
    OriginalError,
    TransportError,
)

Make = Callable[..., AsyncSession]

# The tree as the design draws it: class and base.
TREE = {
    "CapillaryError": "Exception", "InvalidRequestError": "CapillaryError", "TransportError": "CapillaryError",
    "ConnectError": "TransportError", "TLSError": "ConnectError", "RequestTimeoutError": "TransportError",
    "DeadlineExceededError": "TransportError", "APIError": "CapillaryError", "BadRequestError": "APIError",
    "AuthenticationError": "APIError", "PermissionDeniedError": "APIError", "NotFoundError": "APIError",
    "CustomerNotFoundError": "NotFoundError", "MergedCustomerError": "APIError", "LedgerRequestError": "APIError",
    "RateLimitedError": "APIError", "ServerError": "APIError", "DecodeError": "CapillaryError",
    "ResponseTooLargeError": "DecodeError", "PagingError": "CapillaryError", "PageLoopError": "PagingError",
    "PageDriftError": "PagingError", "RecordConflictError": "PagingError",
}  # fmt: skip
CLASSES: list[type[CapillaryError]] = [getattr(errors, name) for name in TREE]
DEFINITIVE = {
    "APIError", "BadRequestError", "AuthenticationError", "PermissionDeniedError", "NotFoundError",
    "CustomerNotFoundError", "MergedCustomerError", "LedgerRequestError", "DecodeError", "ResponseTooLargeError",
}  # fmt: skip
CONCERNS_ALL_KEYS = {"AuthenticationError", "TLSError"}
LACKS_ANSWER = {
    "TransportError", "ConnectError", "TLSError", "RequestTimeoutError", "DeadlineExceededError", "RateLimitedError",
    "ServerError",
}  # fmt: skip


def full(kind: type[CapillaryError]) -> CapillaryError:
    """An error with every attribute set to something, as it would arrive at a user."""
    error = kind("GET /path: what happened (2 attempts)")
    error.method, error.path, error.attempts, error.elapsed = "GET", "/path", 2, 1.5
    error.history = (AttemptRecord(1, "status", 503, 0.2), AttemptRecord(2, "cut-body", None))
    error.quota_exhausted, error.position, error.key = True, Position(3, 7, 100), EventQuery(1, 2, 3)
    if isinstance(error, APIError):
        error.status, error.code, error.request_id, error.retry_after, error.html = 429, 9021, "r-1", 7.5, True
        error.body = '{"message": "text"}'
        error.errors = (ApiMessage(9021, "unknown", status=False), ApiMessage(None, "text"))
    if isinstance(error, DecodeError):
        error.faults, error.paths, error.body = ("$[3].points_value: no",), ("$[3].points_value",), "[..."
        error.malformed, error.status, error.request_id = True, 200, "r-2"
    if isinstance(error, TransportError):
        error.kind = "timeout"
    if isinstance(error, InvalidRequestError):
        error.argument = "entity_id"
    error.__cause__ = OriginalError("Server disconnected", type_name="aiohttp.ServerDisconnectedError")
    error.__suppress_context__ = True
    return error


def assert_same(one: BaseException | None, other: BaseException | None) -> None:
    """Class, text, attributes and cause."""
    assert type(one) is type(other)
    assert (one is None) == (other is None)
    if one is None or other is None:
        return
    assert (str(one), one.args, vars(one)) == (str(other), other.args, vars(other))
    assert one.__suppress_context__ == other.__suppress_context__
    assert_same(one.__cause__, other.__cause__)


def test_the_tree_is_as_drawn():
    for name, base in TREE.items():
        assert getattr(errors, name).__bases__[0].__name__ == base
    public = {name for name in errors.__all__ if name not in ("ApiMessage", "AttemptRecord", "OriginalError")}
    assert public == set(TREE)
    assert issubclass(InvalidRequestError, ValueError)


def test_every_class_says_when_it_is_raised():
    assert all(inspect.getdoc(kind) and kind.__doc__ for kind in CLASSES)


@pytest.mark.parametrize("kind", CLASSES)
def test_the_message_is_all_of_its_arguments(kind: type[CapillaryError]):
    """So that process pools and cluster engines can make it again."""
    error = kind("what happened")
    assert (error.args, str(error), error.message) == (("what happened",), "what happened", "what happened")
    again = kind(*error.args)
    assert (type(again), again.args, vars(again)) == (kind, error.args, vars(error))
    assert str(kind()) == ""
    assert repr(error) == f"{kind.__name__}('what happened')"


@pytest.mark.parametrize("kind", CLASSES)
def test_attributes_are_there_from_the_start(kind: type[CapillaryError]):
    """Nobody has to ask with `getattr` first."""
    error = kind("m")
    for name in ("method", "path", "attempts", "elapsed", "history", "quota_exhausted", "position", "key"):
        getattr(error, name)
    of_class = {
        APIError: ("status", "code", "errors", "request_id", "retry_after", "html", "body"),
        DecodeError: ("paths", "faults", "body", "malformed", "status", "request_id"),
        TransportError: ("kind",),
        InvalidRequestError: ("argument",),
    }
    for base, names in of_class.items():
        assert all(hasattr(error, name) for name in names) or not issubclass(kind, base)


@pytest.mark.parametrize("kind", CLASSES)
def test_three_questions_per_class(kind: type[CapillaryError]):
    """A table of all classes; an empty retry quota, which passes, changes no answer."""
    error = kind("m")
    expected = tuple(kind.__name__ in names for names in (DEFINITIVE, CONCERNS_ALL_KEYS, LACKS_ANSWER))
    assert (error.is_definitive, error.concerns_all_keys, error.lacks_answer) == expected
    error.quota_exhausted = True
    assert (error.is_definitive, error.concerns_all_keys, error.lacks_answer) == expected


@pytest.mark.parametrize(
    ("error", "lacking"),
    [
        (DecodeError(kind="shape"), False),
        (DecodeError(kind="misdirected"), False),
        (DecodeError(malformed=True, kind="bad-json", cut=False), False),
        (DecodeError(malformed=True, kind="bad-json"), True),
        (DecodeError(malformed=True, body="<html>"), True),
        (DecodeError(malformed=True), True),
    ],
)
def test_a_cut_body_or_one_without_json_lacks_an_answer(error: DecodeError, lacking: bool):
    """JSON of another shape, or wrong within, is an answer of the service."""
    assert error.lacks_answer is lacking


@pytest.mark.parametrize(
    ("error", "definitive"),
    [
        (APIError(status=400), True),
        (APIError(status=408), False),
        (APIError(status=425), False),
        (APIError(status=461), False),
        (APIError(status=400, html=True), False),
        (NotFoundError(status=404), False),
        (NotFoundError(status=404, code=8015), True),
        (NotFoundError(status=404, errors=(ApiMessage(None, "m"),)), True),
        (DecodeError(malformed=True), False),
    ],
)
def test_what_came_with_an_answer_decides_whether_it_is_definitive(error: CapillaryError, definitive: bool):
    """A bare 404, an HTML page, a passing status and a malformed body are no verdict of the API."""
    assert (error.is_definitive, error.concerns_all_keys) == (definitive, False)


def test_a_request_that_was_never_sent_is_not_definitive():
    """The session refused it because the server had refused others."""
    error = APIError(status=400)
    error.sent = False
    assert not error.is_definitive


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_errors_pickle_whole(kind: type[CapillaryError], protocol: int):
    error = full(kind)
    again = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301
    assert_same(again, error)
    assert_same(pickle.loads(pickle.dumps(again, protocol)), error)  # noqa: S301


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy])
def test_errors_copy_whole_and_apart(kind: type[CapillaryError], how: Callable[[Any], Any]):
    """A copy has attributes of its own."""
    error = full(kind)
    again = how(error)
    assert_same(again, error)
    again.key = "other"
    assert error.key == EventQuery(1, 2, 3)


def test_causes_of_the_system_and_of_ours_pickle_too():
    """And a cause of a cause."""
    error = full(CapillaryError)
    error.__cause__ = ConnectionResetError(104, "Connection reset by peer")
    assert_same(pickle.loads(pickle.dumps(error)), error)  # noqa: S301
    assert pickle.loads(pickle.dumps(error)).__cause__.errno == 104  # noqa: S301
    error.__cause__ = full(TransportError)
    assert_same(pickle.loads(pickle.dumps(error)), error)  # noqa: S301


class OwnError(APIError):
    """A user's subclass with a signature of its own."""

    def __init__(self, shop: str, number: int) -> None:
        super().__init__(f"{shop} {number}")
        self.shop = shop


def test_subclasses_with_other_signatures_pickle_too():
    error = OwnError("a", 1)
    error.status = 404
    assert_same(pickle.loads(pickle.dumps(error)), error)  # noqa: S301


def test_notes_are_carried():
    error = CapillaryError("m")
    error.add_note("while reading shop 7")
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["while reading shop 7"]  # noqa: S301


def test_an_original_error_is_text_and_a_name():
    error = OriginalError("said", type_name="lib.Error")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (again.args, again.type_name, OriginalError(*error.args).type_name) == (("said",), "lib.Error", "")


def fail(kind: type[CapillaryError]) -> None:
    raise full(kind) from full(kind).__cause__


def test_errors_cross_a_process_pool():
    """Raised there, caught here, whole but for its traceback; the pool hangs its own cause on it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for kind in (errors.RateLimitedError, errors.ConnectError, DecodeError, InvalidRequestError):
            error = pool.submit(fail, kind).exception(15)
            assert error is not None
            assert (type(error), str(error), vars(error)) == (kind, str(full(kind)), vars(full(kind)))


@pytest.mark.parametrize("answer", [http(b"{}", 404), http(b"<p>"), Answer(b"", "reset"), http(b'[{"id": {}}]')])
async def test_errors_as_they_come_pickle(session_at: Make, answer: Answer):
    """Not only those made for the test."""
    async with RawServer(answer) as server:
        rows = session_at(server.url).points_allocation.by_event(entity_id=1, customer_id=1, event_type_id=1)
        with pytest.raises(CapillaryError) as caught:
            await rows.collect()
    assert caught.value.position is not None
    assert_same(pickle.loads(pickle.dumps(caught.value)), caught.value)  # noqa: S301


async def test_the_root_catches_everything_but_use_after_closing(session_at: Make):
    session = session_at("http://127.0.0.1:1")
    with pytest.raises(CapillaryError):
        await session.request("POST", "/path")
    await session.aclose()
    with pytest.raises(RuntimeError) as caught:
        await session.request("GET", "/path")
    assert not isinstance(caught.value, CapillaryError)
    assert asyncio.get_running_loop()
