"""`options(progress=True)`: a bar in a terminal, nothing where there is none, and none that outlives its reading."""

from __future__ import annotations

import asyncio
import io
import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from tqdm import tqdm

from capillary_async import AsyncSession, InvalidRequestError, blocking
from capillary_async.sandbox import Sandbox, ServerFailure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    Sessions = Callable[..., AsyncSession]
    OnTerminal = Callable[[], "Terminal"]


class Terminal(io.StringIO):
    """A stderr that is a terminal."""

    def isatty(self) -> bool:
        return True

    def bars(self) -> list[str]:
        """What was drawn, frame by frame."""
        return [frame for frame in re.split(r"[\r\n]", self.getvalue()) if frame.strip()]


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Terminal]:
    """Call it in the test: pytest sets stderr once more after its fixtures."""

    def make() -> Terminal:
        made = Terminal()
        monkeypatch.setattr(sys, "stderr", made)
        return made

    return make


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(customers=12, whales=1, whale_rows=350) as sandbox:
        yield sandbox


@pytest.fixture(autouse=True)
def no_bar_stays() -> Iterator[None]:
    yield
    assert not [bar for bar in getattr(tqdm, "_instances", ()) if not bar.disable]
    assert not [thread for thread in threading.enumerate() if type(thread).__name__ == "TMonitor"]


def expiry(box: Sandbox) -> dict[str, Any]:
    names = ("program_id", "point_category_id", "expiry_date_start", "expiry_date_end")
    return {name: getattr(box, name) for name in names}


async def test_a_pager_counts_records(session_at: Sessions, box: Sandbox, on_terminal: OnTerminal) -> None:
    """Of each way of reading, without a total: a list has none."""
    terminal = on_terminal()
    pager = session_at(box.url, auth=box.auth).points_allocation.by_expiry(entity_id=box.whale_ids[0], **expiry(box))
    shown = pager.options(progress=True)
    assert len(await shown.collect()) == 350
    assert terminal.bars()[-1].startswith(f"points_allocation.by_expiry(entity_id={box.whale_ids[0]}): 350 records")
    assert len([one async for one in shown]) == sum([len(page) async for page in shown.pages()]) == 350
    assert len([frame for frame in terminal.bars() if ": 350 records" in frame]) >= 3
    drawn = terminal.getvalue()
    assert len(await shown.options(progress=False).collect()) == 350
    assert terminal.getvalue() == drawn


async def test_a_fan_out_counts_keys(session_at: Sessions, box: Sandbox, on_terminal: OnTerminal) -> None:
    """Of an input with a length against it, of an iterator alone; in each form of the loop."""
    terminal = on_terminal()
    calls = session_at(box.url, auth=box.auth).points_allocation
    fan = calls.by_expiry_many(box.customer_ids, **expiry(box)).options(progress=True)
    for form in (fan, fan.ordered(), fan.items(), fan.pages()):
        terminal.truncate(terminal.seek(0))
        async for _ in form:
            pass
        assert re.match(r"points_allocation.by_expiry_many: 100%.* 12/12 ", terminal.bars()[-1])
    terminal.truncate(terminal.seek(0))
    assert len(await calls.by_expiry_many(iter(box.customer_ids), **expiry(box)).options(progress=True).collect()) == 12
    assert terminal.bars()[-1].startswith("points_allocation.by_expiry_many: 12 keys")


async def test_batches_and_tables(session_at: Sessions, box: Sandbox, on_terminal: OnTerminal) -> None:
    """Ids that are sent in batches count one by one, and tables count too."""
    terminal = on_terminal()
    pytest.importorskip("pyarrow")
    session = session_at(box.url, auth=box.auth)
    awarded = session.points_awarded.ids(
        box.customer_ids,
        program_id=box.program_id,
        point_category_id=box.point_category_id,
        start_expiry_date=box.expiry_date_start,
        end_expiry_date=box.expiry_date_end,
        status="AVAILABLE",
        batch_size=5,
    )
    for form in (awarded.options(progress=True), awarded.options(progress=True).pages()):
        terminal.truncate(terminal.seek(0))
        async for _ in form:
            pass
        assert " 12/12 " in terminal.bars()[-1]
    terminal.truncate(terminal.seek(0))
    await session.points_allocation.by_expiry_many(box.customer_ids, **expiry(box)).options(progress=True).to_arrow()
    assert " 12/12 " in terminal.bars()[-1]


async def test_failed_keys_are_shown(session_at: Sessions, box: Sandbox, on_terminal: OnTerminal) -> None:
    terminal = on_terminal()
    fan = session_at(box.url, auth=box.auth).loyalty_events.list_many([box.unknown_id, *box.customer_ids])
    outcomes = await fan.options(progress=True).collect()
    assert sum(not one.ok for one in outcomes.values()) == 1
    assert " 13/13 " in terminal.bars()[-1]
    assert "failed=1" in terminal.bars()[-1]


async def test_a_bar_ends_with_its_loop(session_at: Sessions, box: Sandbox, on_terminal: OnTerminal) -> None:
    """After `break`, an exception in the body, a cancellation, an error, and with its session."""
    terminal = on_terminal()
    session = session_at(box.url, auth=box.auth)
    pager = session.points_allocation.by_expiry(entity_id=box.whale_ids[0], **expiry(box)).options(progress=True)
    fan = session.points_allocation.by_expiry_many(box.customer_ids, **expiry(box)).options(progress=True)
    for make in (lambda: aiter(pager), pager.pages, lambda: aiter(fan), fan.items):
        async for _ in make():
            break
        with pytest.raises(ZeroDivisionError):
            [1 // 0 async for _ in make()]
        iterator = make()
        await anext(iterator)
        await iterator.aclose()

        async def endless(iterator: AsyncIterator[Any]) -> None:
            async for _ in iterator:
                await asyncio.sleep(30)

        task = asyncio.create_task(endless(make()))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del task, iterator
    assert terminal.bars()
    begun = aiter(pager)
    await anext(begun)
    await session.aclose()
    terminal.truncate(terminal.seek(0))
    with pytest.raises(RuntimeError, match="closed"):
        aiter(pager)
    assert terminal.bars() == []


async def test_an_error_ends_the_bar(session_at: Sessions, on_terminal: OnTerminal) -> None:
    terminal = on_terminal()
    async with Sandbox(customers=2, faults=[ServerFailure(500, times=None)]) as failing:
        session = session_at(failing.url, auth=failing.auth)
        with pytest.raises(Exception, match="500"):
            await session.loyalty_events.list(failing.customer_ids[0]).options(progress=True).collect()
    assert terminal.bars()[-1].startswith("loyalty_events.list")


async def test_without_a_terminal_nothing_is_drawn(
    session_at: Sessions, box: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    pager = session_at(box.url, auth=box.auth).loyalty_events.list(box.customer_ids[0])
    assert await pager.options(progress=True).collect() == await pager.collect()
    assert capfd.readouterr() == ("", "")


def test_without_a_loop(box: Sandbox, on_terminal: OnTerminal) -> None:
    """The blocking session shows the same bars, also where a `for` is left."""
    terminal = on_terminal()
    with blocking.Session(box.url, auth=box.auth) as session:
        fan = session.points_allocation.by_expiry_many(box.customer_ids, **expiry(box)).options(progress=True)
        assert len(list(fan)) == 12
        assert " 12/12 " in terminal.bars()[-1]
        for _ in session.loyalty_events.list(box.customer_ids[0]).options(progress=True):
            break


async def test_what_is_wrong_is_said_at_once(
    session_at: Sessions, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the middle of a reading."""
    session = session_at(box.url, auth=box.auth)
    for recipe in (session.loyalty_events.list(5), session.loyalty_events.list_many([5])):
        with pytest.raises(InvalidRequestError, match="progress takes True or False, got 1"):
            recipe.options(progress=1)
        monkeypatch.setitem(sys.modules, "tqdm.auto", None)
        with pytest.raises(ModuleNotFoundError, match=r'tqdm is missing.*pip install "capillary-async\[notebook\]"'):
            recipe.options(progress=True)
        assert recipe.options(progress=False)
        monkeypatch.undo()
    assert session.stats.requests == 0


def test_tqdm_is_not_loaded_without_a_bar() -> None:
    source = (
        "import sys; from capillary_async import AsyncSession, BasicAuth;"
        "s = AsyncSession('http://127.0.0.1:1', auth=BasicAuth('u', password='p'));"
        "s.loyalty_events.list(5).options(progress=False); s.loyalty_events.list_many([5]).options(unique=True);"
        "print('tqdm' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True).stdout == "False\n"
    )
