"""Places of a blocking session: coroutines, IPython, Streamlit's reruns, pytest without plugins; and its cost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import subprocess
import sys
import threading
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest
from support.environment import name_cluster
from support.raw_server import in_thread, said

from capillary_async import AsyncSession, BasicAuth, blocking
from capillary_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(customers=5, whales=0) as sandbox:
        yield sandbox


async def test_in_a_coroutine(box: Sandbox) -> None:
    """It works beside an asynchronous session in a running loop, which it blocks meanwhile."""
    customer = box.customer_ids[0]
    async with AsyncSession(box.url, auth=box.auth) as session:
        awaited = await session.loyalty_events.list(customer).collect()
    with blocking.Session(box.url, auth=box.auth) as plain:
        assert plain.loyalty_events.list(customer).collect() == awaited
        assert list(plain.loyalty_events.list_many([customer]).items()) == awaited
        threaded = await asyncio.gather(*[asyncio.to_thread(plain.loyalty_events.list(customer).collect)] * 3)
        assert threaded == [awaited] * 3


def test_context_variables_reach_middlewares(box: Sandbox) -> None:
    """Those of the thread that calls, as in a coroutine."""
    user: ContextVar[str] = ContextVar("user")
    seen: list[str] = []

    async def middleware(request: Any, handler: Any) -> Any:
        seen.append(user.get())
        return await handler(request)

    with blocking.Session(box.url, auth=box.auth, middlewares=[middleware]) as session:
        for name in ("ada", "grace"):
            user.set(name)
            session.loyalty_events.list(box.customer_ids[0]).first()
    assert seen == ["ada", "grace"]


def test_in_ipython(box: Sandbox, tmp_path: Path) -> None:
    """Plain cells and cells with `await`, which run IPython's own loop, in one shell."""
    cells = [
        "import threading",
        "from capillary_async import AsyncSession, BasicAuth, blocking",
        f"auth = BasicAuth({box.username!r}, password={box.password!r})",
        f"session = blocking.Session({box.url!r}, auth=auth)",
        f"rows = list(session.loyalty_events.list({box.customer_ids[0]}))",
        f"other = AsyncSession({box.url!r}, auth=auth)",
        f"same = await other.loyalty_events.list({box.customer_ids[0]}).collect()",
        "await other.aclose()",
        f"assert same == session.loyalty_events.list({box.customer_ids[0]}).collect() == rows",
        "session.close()",
        "print([thread.name for thread in threading.enumerate()].count('capillary_async.blocking'), len(rows) > 0)",
    ]
    shell = f"""
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in {cells!r}:
    shell.run_cell(cell).raise_error()
"""
    ended = subprocess.run(
        [sys.executable, "-c", shell],
        capture_output=True, text=True, timeout=30, check=False, cwd=tmp_path, env=clean(tmp_path),
    )  # fmt: skip
    assert (ended.stdout.splitlines()[-1:], ended.stderr) == (["0 True"], "")


def clean(home: Path) -> dict[str, str]:
    """An environment in which IPython keeps its files here, without the development mode's words."""
    import os

    return {**os.environ, "IPYTHONDIR": str(home), "HOME": str(home), "PYTHONDEVMODE": "", "PYTHONASYNCIODEBUG": ""}


def test_reruns_of_a_streamlit_script(box: Sandbox) -> None:
    """A script is executed again and again, each time in a new thread, with one cached session."""
    cache: dict[str, Any] = {}

    def cached() -> blocking.Session:
        if "session" not in cache:
            cache["session"] = blocking.Session(box.url, auth=box.auth)
        return cache["session"]

    source = "rows.append([one.id for one in cached().loyalty_events.list(customer)])"
    rows: list[list[int]] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            exec(source, {"cached": cached, "rows": rows, "customer": box.customer_ids[0]})  # noqa: S102
        except BaseException as error:
            errors.append(error)

    for _ in range(5):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join(10)
    assert errors == []
    assert len(rows) == 5
    assert rows[0]
    assert rows.count(rows[0]) == 5
    assert [thread.name for thread in threading.enumerate()].count("capillary_async.blocking") == 1
    cache["session"].close()


def test_under_pytest_without_plugins(box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No plugin is needed to test code that uses it; the sandbox's own fixture goes with it."""
    name_cluster(monkeypatch, box.url, box.username, box.password)
    (tmp_path / "test_report.py").write_text(
        "from capillary_async import blocking\n"
        "def test_own():\n"
        "    with blocking.Session.from_env() as session:\n"
        f"        assert session.loyalty_events.list({box.customer_ids[0]}).first()\n"
        "def test_sandbox(capillary_sandbox):\n"
        "    with blocking.Session(capillary_sandbox.url, auth=capillary_sandbox.auth) as session:\n"
        "        assert session.loyalty_events.list(capillary_sandbox.customer_ids[0]).first()\n"
    )
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "capillary_async.sandbox.pytest_plugin"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "2 passed" in ended.stdout


def test_a_record_in_a_page_costs_what_it_costs_in_a_loop() -> None:
    """At most 1.3 times the CPU of `async for`, decoding and all, in one process: whole pages cross threads."""
    rows = [{"id": number, "customerId": 5, "eventName": "EARN"} for number in range(5000)]
    with in_thread(said({"data": rows})) as server:
        auth = BasicAuth("till", password="p")
        with blocking.Session(server.url, auth=auth) as session:
            pager = session.loyalty_events.list(5).options(max_items=5000)

            def plain() -> int:
                return sum(1 for _ in pager)

            async def awaited() -> float:
                async with AsyncSession(server.url, auth=auth) as other:
                    inner = other.loyalty_events.list(5).options(max_items=5000)
                    spent = []
                    for _ in range(4):
                        began = time.process_time()
                        assert sum([1 async for _ in inner]) == 5000
                        spent.append(time.process_time() - began)
                    return min(spent)

            spent = []
            for _ in range(4):
                began = time.process_time()
                assert plain() == 5000
                spent.append(time.process_time() - began)
            assert min(spent) < 1.3 * asyncio.run(awaited())


# -- inputs of fan-outs


def numbered(thread_ids: list[int], numbers: Iterator[int]) -> Iterator[int]:
    """A generator that notes the thread in which it runs and is closed."""
    try:
        for number in numbers:
            thread_ids.append(threading.get_ident())
            yield number
    finally:
        thread_ids.append(threading.get_ident())


def test_an_input_is_read_in_the_thread_of_the_caller(box: Sandbox) -> None:
    """A generator, a cursor that no other thread may use, and a list of the same session."""
    import sqlite3

    with blocking.Session(box.url, auth=box.auth) as session:
        seen: list[int] = []
        assert len(list(session.loyalty_events.list_many(numbered(seen, iter(box.customer_ids))))) == 5
        assert set(seen) == {threading.get_ident()}
        assert len(seen) == 6
        with contextlib.closing(sqlite3.connect(":memory:")) as database:
            database.execute("CREATE TABLE customers (id INTEGER)")
            database.executemany("INSERT INTO customers VALUES (?)", [(one,) for one in box.customer_ids])
            rows = database.execute("SELECT id FROM customers")
            assert set(session.loyalty_events.list_many(one for (one,) in rows).collect()) == set(box.customer_ids)
        owners = (one.customer_id for one in session.loyalty_events.list_many(box.customer_ids).items())
        assert {outcome.key for outcome in session.loyalty_events.list_many(owners)} == set(box.customer_ids)


def test_an_input_that_is_left(box: Sandbox) -> None:
    """`break` closes the generator in the caller's thread; few keys were read ahead."""
    with blocking.Session(box.url, auth=box.auth) as session:
        seen: list[int] = []
        endless = (box.customer_ids[number % 5] for number in itertools.count())
        fan = session.loyalty_events.list_many(numbered(seen, endless)).options(unique=False)
        for _ in fan:
            break
        assert set(seen) == {threading.get_ident()}
        assert len(seen) < 700
        with pytest.raises(RuntimeError, match="read before: give a list to loop twice"):
            next(iter(fan))


def test_an_error_of_an_input(box: Sandbox) -> None:
    """It is raised as itself, after the outcomes of the keys before it."""

    def failing() -> Iterator[int]:
        yield from box.customer_ids[:3]
        raise LookupError("no more rows")

    with blocking.Session(box.url, auth=box.auth) as session:
        outcomes = iter(session.loyalty_events.list_many(failing()).ordered())
        assert [next(outcomes).key for _ in range(3)] == list(box.customer_ids[:3])
        with pytest.raises(LookupError, match="no more rows"):
            next(outcomes)
        with pytest.raises(LookupError, match="no more rows"):
            session.loyalty_events.list_many(failing()).collect()


def test_a_slow_input_gives_each_key_as_it_comes(box: Sandbox) -> None:
    """The first outcome does not wait for the keys after it."""

    def slow() -> Iterator[int]:
        for customer in box.customer_ids:
            yield customer
            time.sleep(0.3)

    with blocking.Session(box.url, auth=box.auth) as session:
        began = time.monotonic()
        for _ in session.loyalty_events.list_many(slow()):
            break
        assert time.monotonic() - began < 1.2
