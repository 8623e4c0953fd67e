"""The pytest plugin, in runs of pytest of their own: both modes of pytest-asyncio, anyio, no plugin at all."""

import pytest

pytestmark = pytest.mark.long

pytest_plugins = ["pytester"]

READS = """
    {mark}
    async def test_reads(capillary_sandbox, capillary_session):
        first = capillary_sandbox.customer_ids[0]
        events = await capillary_session.loyalty_events.list(first).collect()
        assert [event.id for event in events] == [row["id"] for row in capillary_sandbox.events(first)]
        assert capillary_sandbox.requests == len(capillary_sandbox.journal) >= 1

    {mark}
    async def test_has_a_server_of_its_own(capillary_sandbox, capillary_session):
        assert capillary_sandbox.requests == 0
        async for _ in capillary_session.loyalty_events.list(capillary_sandbox.customer_ids[0]):
            break
"""
OPTIONS = """
    import asyncio

    import pytest
    from capillary_async import RateLimitedError, RetryPolicy
    from capillary_async.sandbox import Throttle

    @pytest.fixture
    def capillary_sandbox_options():
        return {"customers": 3, "faults": [Throttle(times=None)]}

    @pytest.fixture
    def capillary_session_options():
        return {"retry": RetryPolicy(attempts=1)}

    async def test_throttled(capillary_sandbox, capillary_session):
        assert len(capillary_sandbox.customer_ids) == 3
        with pytest.raises(RateLimitedError):
            await capillary_session.loyalty_events.list(capillary_sandbox.customer_ids[0]).collect()
        assert capillary_sandbox.requests == 1

    def test_with_ones_own_loop(capillary_session, capillary_sandbox):
        async def first():
            return await capillary_session.loyalty_events.list(capillary_sandbox.customer_ids[0]).first()

        with pytest.raises(RateLimitedError):
            asyncio.run(first())
"""
PLAIN = """
    import urllib.error
    import urllib.request

    import pytest

    def test_without_an_event_loop(capillary_sandbox):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(capillary_sandbox.url)
        caught.value.close()
        assert capillary_sandbox.journal[0].status == 401
"""
BACKEND = "import pytest\n\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
INI = """
    [pytest]
    filterwarnings = error
    {more}
"""
LOOP_SCOPE = "asyncio_default_fixture_loop_scope = function"
AUTO, STRICT = (f"asyncio_mode = {mode}\n    {LOOP_SCOPE}" for mode in ("auto", "strict"))


def passed(pytester: pytest.Pytester, *args: str, more: str = "", **files: str) -> int:
    """Run pytest on these files; all must pass. Gives their number."""
    pytester.makeini(INI.format(more=more))
    pytester.makepyfile(**files)
    outcomes = pytester.runpytest_subprocess(*args).parseoutcomes()
    assert set(outcomes) == {"passed"}
    return outcomes["passed"]


def test_asyncio_in_auto_mode_and_options_to_override(pytester: pytest.Pytester) -> None:
    assert passed(pytester, more=AUTO, test_reads=READS.format(mark=""), test_options=OPTIONS) == 4


@pytest.mark.parametrize("mark", ["asyncio", 'asyncio(loop_scope="module")', "anyio"])
def test_asyncio_in_strict_mode_with_any_loop_and_anyio_beside_it(pytester: pytest.Pytester, mark: str) -> None:
    pytester.makeconftest(BACKEND)
    text = "    import pytest\n" + READS.format(mark=f"@pytest.mark.{mark}")
    assert passed(pytester, more=STRICT, test_reads=text) == 2


def test_anyio_alone(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(BACKEND)
    text = "    import pytest\n" + READS.format(mark="@pytest.mark.anyio")
    assert passed(pytester, "-p", "no:asyncio", test_reads=text) == 2


def test_no_async_plugin_is_needed(pytester: pytest.Pytester) -> None:
    assert passed(pytester, "-p", "no:asyncio", "-p", "no:anyio", test_plain=PLAIN) == 1


def test_in_this_very_process(capillary_sandbox: object, capillary_session: object) -> None:
    """The fixtures are there without any import."""
    assert repr(capillary_sandbox).startswith("<Sandbox customers=500")
    assert "http://127.0.0.1:" in repr(capillary_session)
