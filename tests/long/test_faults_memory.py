"""Answers without end: refused at the cap, in a process whose memory is looked at from outside.

Invariant: a process of its own reads, so that its peak is that of the SDK and of nothing else.
"""

import asyncio
import gzip
import json
import subprocess
import sys
import zlib

import pytest
from support.fault_runs import HEAD, Make, ids_of, ids_until, page_ids, page_json, rows_at, whole
from support.raw_server import Answer, RawServer, http

from capillary_async.errors import ResponseTooLargeError

MIB = 1024 * 1024
READER = """
import asyncio, json, sys
from capillary_async import AsyncSession, BasicAuth, RetryPolicy
from capillary_async.errors import ResponseTooLargeError

def peak():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))

async def main():
    async with AsyncSession(sys.argv[1], auth=BasicAuth("u", password="passw0rd")) as session:
        await session.request("GET", "/good")
        before = peak()
        try:
            await session.request("GET", "/path")
        except ResponseTooLargeError as error:
            said = [str(error), error.status, error.request_id, error.attempts, [one.kind for one in error.history]]
        print(json.dumps([peak() - before, said, await session.request("GET", "/good")]))

asyncio.run(main())
"""


def bomb(size: int) -> bytes:
    """So many MiB of zeros, as gzip."""
    engine = zlib.compressobj(level=9, wbits=31)
    return b"".join(engine.compress(bytes(MIB)) for _ in range(size)) + engine.flush()


ID = b"X-CAP-REQUEST-ID: r9"
GZIP = b"Content-Encoding: gzip"
# What is far beyond the cap of 64 MiB, as it is or unpacked; made when its test runs.
ENDLESS = {
    "200 MiB as gzip": lambda: whole(bomb(200), GZIP, ID),
    "200 MiB as many gzip members": lambda: whole(bomb(1) * 200, GZIP, ID),
    "100 MiB plain": lambda: whole(b"[" + b"1," * (50 * MIB), ID),
    "100 MiB in chunks, and no end": lambda: (
        HEAD + ID + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"100000\r\n" + bytes(MIB) + b"\r\n") * 100
    ),
}


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
@pytest.mark.parametrize("name", ENDLESS)
async def test_an_answer_beyond_the_cap_costs_less_than_100_mib_and_one_request(name: str):
    """Refused, not asked for again, and the session goes on."""
    good = http(b'{"a": 1}')
    async with RawServer(good=[good], path=[Answer(ENDLESS[name]())]) as server:
        reading = await asyncio.create_subprocess_exec(sys.executable, "-c", READER, server.url, stdout=subprocess.PIPE)
        out, _ = await reading.communicate()
        grown, (said, *story), after = json.loads(out)
        assert [one.target for one in server.seen] == ["/good", "/path", "/good"]
    assert story == [200, "r9", 1, ["too-large"]]
    assert "the answer is larger than 64 MiB; ask for less at a time, e.g. with a smaller page_size" in said
    assert after == {"a": 1}
    assert grown < 100


async def test_the_cap_itself_is_allowed(session_at: Make, monkeypatch: pytest.MonkeyPatch):
    """Exactly the cap passes, plain, in one member and in two; one byte more does not, in any."""
    body = b"[" + b"1" * 998 + b"]"
    monkeypatch.setattr("capillary_async._transport.body.MAX_BODY", 1000)
    for make in (bytes, gzip.compress, lambda data: gzip.compress(data[:500]) + gzip.compress(data[500:])):
        zipped = {} if make is bytes else {"Content-Encoding": "gzip"}
        async with RawServer(http(make(body), headers=zipped), http(make(body + b" "), headers=zipped)) as server:
            session = session_at(server.url)
            assert await session.request("GET", "/path") == [int("1" * 998)]
            with pytest.raises(ResponseTooLargeError):
                await session.request("GET", "/path")
            assert server.hits == 2


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "deflate without its header"])
async def test_a_body_unpacked_in_pieces_is_whole(session_at: Make, monkeypatch: pytest.MonkeyPatch, encoding: str):
    """Pieces of every size up to the body's own: none is lost, and the end is not taken for a cut."""
    body = page_json(1)
    engine = zlib.compressobj(wbits={"gzip": 31, "deflate": 15}.get(encoding, -15))
    packed = engine.compress(body) + engine.flush()
    answer = http(packed, headers={"Content-Encoding": encoding.partition(" ")[0]})
    async with RawServer(answer) as server:
        session = session_at(server.url)
        for size in range(1, len(body) + 2):
            monkeypatch.setattr("capillary_async._transport.body._PIECE", size)
            assert await ids_of(rows_at(session, max_items=3)) == page_ids(1), size
        assert server.hits == len(body) + 1


async def test_a_page_beyond_the_cap_ends_a_list_with_its_position(session_at: Make, monkeypatch: pytest.MonkeyPatch):
    """What is before it is given; the advice is to ask for less, which its position allows."""
    monkeypatch.setattr("capillary_async._transport.body.MAX_BODY", 1000)
    async with RawServer(http(page_json(1)), http(b"[" + b" " * 400_000 + b"]"), http(page_json(5))) as server:
        session = session_at(server.url)
        given, error = await ids_until(rows_at(session, prefetch=0), ResponseTooLargeError)
        assert given == page_ids(1)
        assert await ids_of(rows_at(session, start=error.position)) == page_ids(5)
        # The rest of it was on its way, so that its connection is not used again.
        assert (server.hits, server.connections) == (3, 2)
