"""However a reading of a blocking session ends, it leaves no request, task, thread or connection."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from support.environment import AT_ONCE, PASSWORD, USERNAME
from support.raw_server import RawServer, http, in_thread, said

from capillary_async import BasicAuth, blocking
from capillary_async._loops import call_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "capillary_async.blocking"
ROWS = [{"id": number, "customerId": 5} for number in range(1, 101)]
FULL = said({"data": ROWS, "errors": [], "warnings": []})
HANGING = http("[", headers={"Content-Length": "100"}, then="stall")


def threads() -> list[threading.Thread]:
    """Those of blocking sessions."""
    return [thread for thread in threading.enumerate() if thread.name == NAME]


def comes(true: Callable[[], object], within: float = 5) -> bool:
    """Whether something becomes true in time."""
    end = time.monotonic() + within
    while not true() and time.monotonic() < end:
        time.sleep(0.005)
    return bool(true())


def session_of(server: RawServer) -> blocking.Session:
    return blocking.Session(server.url, auth=BasicAuth(USERNAME, password=PASSWORD), retry=AT_ONCE)


@pytest.fixture
def server() -> Iterator[RawServer]:
    """One full page; the pages after it hang."""
    with in_thread(FULL, HANGING) as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    assert comes(lambda: not threads())
    yield
    assert comes(lambda: not threads())


def tasks(session: blocking.Session) -> int:
    """Tasks in the session's loop, but for that which waits for its end."""
    import asyncio

    async def count() -> int:
        return len(asyncio.all_tasks()) - 2  # and this one

    return session._loop.run(count)


def idle(session: blocking.Session, server: RawServer) -> bool:
    """Whether nothing is going on."""
    return comes(lambda: tasks(session) == 0 and server.active == 0)


# -- loops that are left


def test_break_leaves_nothing(server: RawServer) -> None:
    """Records, pages, outcomes: the pages read ahead are cancelled at once."""
    with session_of(server) as session:
        pager = session.loyalty_events.list(5)
        for record in pager:
            assert record.id == 1
            assert comes(lambda: server.active)
            break
        assert idle(session, server)
        server._answers = [FULL, HANGING]
        for page in pager.pages():
            assert len(page) == 100
            break
        assert idle(session, server)
        server._answers = [FULL, HANGING]
        for _, page in session.loyalty_events.list_many([5, 6]).pages():
            assert page
            break
        assert idle(session, server)
        server._answers = [FULL, HANGING]
        for _ in session.loyalty_events.list_many([5, 6]).items():
            break
        assert idle(session, server)


def test_an_exception_in_the_body_leaves_nothing(server: RawServer) -> None:
    with session_of(server) as session:
        with pytest.raises(ZeroDivisionError):
            all(record.id / 0 for record in session.loyalty_events.list(5))
        assert idle(session, server)


def test_a_dropped_generator_leaves_nothing(server: RawServer) -> None:
    """Also where the garbage collector finds it, in whichever thread, that of the session's loop included."""
    with session_of(server) as session:
        begun = iter(session.loyalty_events.list(5))
        next(begun)
        del begun
        assert idle(session, server)
        for collect in (gc.collect, lambda: call_in(session._loop._loop, gc.collect)):
            server._answers = [FULL, HANGING]
            circle: list[Any] = [iter(session.loyalty_events.list(5))]
            next(circle[0])
            circle.append(circle)
            del circle
            collect()
            assert idle(session, server)
        never_begun = session.loyalty_events.list(5).pages()
        del never_begun
        assert idle(session, server)


def test_a_dropped_session_ends_its_thread(server: RawServer) -> None:
    """A notebook's cell that makes it anew leaves no thread behind."""
    session = session_of(server)
    assert session.loyalty_events.list(5).options(prefetch=0).first()
    view = session.with_options(priority="bulk")
    pager = view.loyalty_events.list(5)
    del session, view
    assert len(threads()) == 1
    del pager
    assert comes(lambda: not threads())
    assert comes(lambda: server.active == 0)


# -- closing


def test_closing(server: RawServer) -> None:
    """Twice is fine; then each call says that it is closed, as `AsyncSession` does."""
    session = session_of(server)
    pager, fan = session.loyalty_events.list(5), session.loyalty_events.list_many([5])
    pages = pager.pages()
    next(pages)
    session.close()
    session.close()
    assert session.closed
    calls = [pager.collect, pager.pages, pager.batches, fan.collect, session.with_options, session.__enter__]
    looped = [partial(list, pager), partial(list, fan), partial(next, pages)]
    for call in [*calls, *looped, partial(pager.page, 1), partial(session.request, "GET", "/x")]:
        with pytest.raises(RuntimeError, match="Session is closed: make a new one"):
            call()
    never_used = session_of(server)
    never_used.close()
    assert never_used.closed
    assert comes(lambda: server.active == 0)


def test_closing_ends_what_other_threads_wait_for(server: RawServer) -> None:
    """Their calls and loops end with an error at once."""
    server._answers = [HANGING]
    errors: list[BaseException] = []
    session = session_of(server)

    def caught(call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    calls = [
        lambda: session.request("GET", "/x"),
        session.loyalty_events.list(5).collect,
        lambda: list(session.loyalty_events.list(5)),
        lambda: list(session.loyalty_events.list_many([5])),
    ]
    waiting = [threading.Thread(target=caught, args=(call,)) for call in calls]
    for thread in waiting:
        thread.start()
    assert comes(lambda: server.active == len(calls))
    session.close()
    for thread in waiting:
        thread.join(5)
    assert [type(error) for error in errors] == [RuntimeError] * len(calls)
    assert all("closed" in str(error) for error in errors)


def test_sessions_closed_while_threads_begin_calls() -> None:
    """No call hangs, whichever comes first."""
    with in_thread(said({"data": []})) as server:
        for _ in range(30):
            session, ended = session_of(server), []

            def work(session: blocking.Session = session, ended: list[str] = ended) -> None:
                while not ended:
                    try:
                        session.request("GET", "/x")
                    except RuntimeError as error:
                        ended.append(str(error))

            working = [threading.Thread(target=work) for _ in range(3)]
            for thread in working:
                thread.start()
            time.sleep(0.003)
            session.close()
            for thread in working:
                thread.join(5)
                assert not thread.is_alive()


# -- threads


def test_several_threads_at_once() -> None:
    """Each has its own answers; all share one loop and its connections."""
    with in_thread(said({"data": ROWS[:7]})) as server, session_of(server) as session:
        found: list[int] = []
        pager = session.loyalty_events.list(5)

        def work() -> None:
            found.extend(len(list(pager)) for _ in range(10))

        working = [threading.Thread(target=work) for _ in range(8)]
        for thread in working:
            thread.start()
        assert len(threads()) <= 1
        for thread in working:
            thread.join(10)
        assert found == [7] * 80
        assert server.connections < 20
        assert len(threads()) == 1


def test_the_own_loop_does_not_wait_for_itself() -> None:
    """A middleware that uses its own blocking session gets an error, where it would hang."""
    with in_thread(said([])) as server:
        sessions: list[blocking.Session] = []

        async def middleware(request: Any, handler: Any) -> Any:
            sessions[0].request("GET", "/y")
            return await handler(request)

        auth = BasicAuth(USERNAME, password=PASSWORD)
        with blocking.Session(server.url, auth=auth, middlewares=[middleware]) as session:
            sessions.append(session)
            with pytest.raises(RuntimeError, match="own event loop"):
                session.request("GET", "/x")


# -- processes

PRELUDE = """
import os, signal, sys, threading, time
from capillary_async import BasicAuth, blocking

def slow():
    return session.request("GET", "/slow")

session = blocking.Session(sys.argv[1], auth=BasicAuth("u", password="p"))
"""


def script(body: str) -> list[str]:
    return [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(body)]


def ends(body: str, url: str) -> str:
    """What the script prints; it ends well, in time, and without a word on stderr."""
    environment = {**os.environ, "PYTHONASYNCIODEBUG": ""}
    environment.pop("PYTHONDEVMODE", None)
    ended = subprocess.run(
        [*script(body), url], capture_output=True, text=True, timeout=20, check=False, env=environment
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c(times: int) -> None:
    """In the middle of a slow request: KeyboardInterrupt within a second, and nothing is left; twice the same."""
    body = """
    print("ready", flush=True)
    try:
        slow()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        if int(sys.argv[2]) == 2:
            try:
                slow()
            except KeyboardInterrupt:
                print("interrupted", flush=True)
        async def tasks():
            import asyncio
            return len(asyncio.all_tasks()) - 2
        print(session._loop.run(tasks))
        session.close()
        print([thread.name for thread in threading.enumerate()], flush=True)
    """
    with in_thread(HANGING) as server:
        with subprocess.Popen([*script(body), server.url, str(times)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            for hit in range(1, times + 1):
                assert comes(lambda hit=hit: server.hits == hit, 10)
                began = time.monotonic()
                process.send_signal(signal.SIGINT)
                assert process.stdout.readline() == "interrupted\n"
                assert time.monotonic() - began < 1
            assert process.stdout.read() == "0\n['MainThread']\n"
        assert process.returncode == 0
        assert comes(lambda: server.active == 0)


def test_ctrl_c_ends_a_script() -> None:
    """One that has no handler ends by the signal, as any script does, in the middle of a `for` over a fan-out."""
    body = """
    with session:
        for outcome in session.loyalty_events.list_many(range(1, 99)):
            print("never")
    """
    with in_thread(HANGING) as server:
        process = subprocess.Popen(
            [*script(body), server.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert comes(lambda: server.active > 3, 10)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        out, err = process.communicate(timeout=10)
        assert time.monotonic() - began < 2
        assert (out, err.splitlines()[-1]) == ("", "KeyboardInterrupt")
        assert "Task was destroyed" not in err
        assert process.returncode == -signal.SIGINT


def test_a_script_that_closes_nothing_ends(server: RawServer) -> None:
    """With a request under way and a generator that is not exhausted, at once and without noise."""
    body = """
    records = iter(session.loyalty_events.list(5))
    print(next(records).id)
    threading.Thread(target=slow, daemon=True).start()
    time.sleep(0.1)
    """
    began = time.monotonic()
    assert ends(body, server.url) == "1\n"
    assert time.monotonic() - began < 15


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child(server: RawServer) -> None:
    """Its calls fail with an error that says what to do, it ends without a hang, and the parent goes on."""
    body = """
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
    unused = blocking.Session(sys.argv[1], auth=BasicAuth("u", password="p"))
    records = iter(session.loyalty_events.list(5).options(prefetch=0))
    print(next(records).id, flush=True)
    child = os.fork()
    if not child:
        for call in (slow, lambda: list(session.loyalty_events.list(5)), lambda: [next(records) for _ in range(100)]):
            try:
                call()
            except RuntimeError as error:
                print(error)
        session.close()
        print(unused.loyalty_events.list(5).options(max_items=2).collect()[1].id)
        sys.exit()
    os.waitpid(child, 0)
    print(next(records).id)
    print(session.loyalty_events.list(5).options(max_items=3).collect()[2].id)
    session.close()
    """
    server._answers = [FULL]
    refusal = "the Session was used before the fork: make one in each process, after the fork"
    assert ends(body, server.url).splitlines() == ["1", *[refusal] * 3, "2", "2", "3"]


class Interrupted(SimpleQueue):  # type: ignore[type-arg]
    """Is interrupted just after it gave its first value, before anyone saw it."""

    calls = 0

    def get(self, *args: Any, **kwargs: Any) -> Any:
        value = super().get(*args, **kwargs)
        self.calls += 1
        if self.calls == 1:
            raise KeyboardInterrupt
        return value


def test_an_interrupt_at_the_moment_of_the_answer() -> None:
    """It is raised, and nothing is waited for that came already."""
    with in_thread(said([])) as server, session_of(server) as session:
        inner = session._inner
        with pytest.raises(KeyboardInterrupt):
            session._loop.run(lambda: inner.request("GET", "/x"), Interrupted())
        assert tasks(session) == 0


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no such signal")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of interrupted finalizers
def test_interrupts_between_any_two_statements() -> None:
    """At drawn moments, in calls, pages and inputs: none hangs, none leaves a task."""

    class InterruptError(BaseException):
        """What the signal raises, as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        if armed:
            raise InterruptError

    armed, draw, before = False, Random(7), signal.signal(signal.SIGUSR1, interrupt)
    with in_thread(said({"data": ROWS[:7]})) as server, session_of(server) as session:
        for _ in range(50):
            timer = threading.Timer(draw.uniform(0.0005, 0.02), os.kill, (os.getpid(), signal.SIGUSR1))
            with suppress(InterruptError):
                armed = True
                timer.start()
                while timer.is_alive():
                    list(session.loyalty_events.list_many(one for one in range(1, 9)))
                    session.loyalty_events.list(5).collect()
            armed = False
            timer.join()
            assert comes(lambda: tasks(session) == 0)
    signal.signal(signal.SIGUSR1, before)
