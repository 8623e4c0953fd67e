"""The order of a call's steps, and users' own steps around them."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest
from support.raw_server import RawServer, http, said

from capillary_async import AsyncSession, Request, Response, RetryPolicy
from capillary_async._transport.chain import compose
from capillary_async._transport.messages import Handler, Middleware
from capillary_async.errors import NotFoundError, ServerError

Make = Callable[..., AsyncSession]
GET = Request("GET", "/path")


def named(name: str, told: list[str]) -> Middleware:
    async def step(request: Request, handler: Handler) -> Response:
        told.append(f"{name} in")
        try:
            return await handler(request)
        finally:
            told.append(f"{name} out")

    return step


async def test_the_first_step_is_the_outermost():
    told: list[str] = []

    async def last(_: Request) -> Response:
        told.append("last")
        return Response(200)

    handler = compose((named("a", told), named("b", told)), last)
    assert (await handler(GET)).status == 200
    assert told == ["a in", "b in", "last", "b out", "a out"]
    assert compose((), last) is last


async def test_users_steps_run_outside_retry(session_at: Make):
    """Once a call, however many attempts it takes; in the order given; they see no credentials."""
    told: list[str] = []
    seen: list[Request] = []

    async def look(request: Request, handler: Handler) -> Response:
        seen.append(request)
        return await handler(request)

    async with RawServer(http(b"", 500), http(b"", 500), http(b"{}")) as server:
        session = session_at(server.url, middlewares=[named("a", told), named("b", told), look])
        assert await session.request("GET", "/path") == {}
        assert server.hits == 3
    assert told == ["a in", "b in", "b out", "a out"]
    assert [(one.method, one.path, dict(one.headers)) for one in seen] == [("GET", "/path", {})]


async def test_a_users_step_may_add_a_header(session_at: Make):
    async def tag(request: Request, handler: Handler) -> Response:
        return await handler(request.with_header("X-CAP-REQUEST-ID", "mine"))

    async with RawServer(http(b"{}")) as server:
        await session_at(server.url, middlewares=[tag]).request("GET", "/path")
        assert server.seen[0].headers["x-cap-request-id"] == "mine"


async def test_a_users_step_may_answer_by_itself(session_at: Make):
    """Its answer is read as a server's would be: rows are decoded, a refusal is raised."""

    async def cached(request: Request, _: Handler) -> Response:
        return Response(200, body=b'[{"id": 7}]') if "event" in request.path else Response(404)

    async with RawServer(http(b"{}")) as server:
        session = session_at(server.url, middlewares=[cached])
        rows = session.points_allocation.by_event(entity_id=1, customer_id=1, event_type_id=1)
        assert [row.id for row in await rows.collect()] == [7]
        with pytest.raises(NotFoundError):
            await session.request("GET", "/other")
        assert server.hits == 0


async def test_a_users_step_may_change_an_answer(session_at: Make):
    """A new body is decoded anew, not taken for the old one."""

    async def change(request: Request, handler: Handler) -> Response:
        return attrs.evolve(await handler(request), body=b'{"a": 2}')

    async with RawServer(said({"a": 1})) as server:
        assert await session_at(server.url, middlewares=[change]).request("GET", "/path") == {"a": 2}


async def test_a_users_step_may_send_again(session_at: Make):
    """Two calls of the chain are two calls, each with its own attempts and story."""
    errors: list[Any] = []

    async def stubborn(request: Request, handler: Handler) -> Response:
        try:
            return await handler(request)
        except ServerError as error:
            errors.append(error)
        return await handler(request)

    async with RawServer(http(b"", 500), http(b"", 500), http(b"{}")) as server:
        session = session_at(server.url, middlewares=[stubborn], retry=RetryPolicy(attempts=2, backoff=0))
        assert await session.request("GET", "/path") == {}
        assert server.hits == 3
    assert [one.attempts for one in errors] == [2]
