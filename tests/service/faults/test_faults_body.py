"""Bodies that are damaged, no JSON, or not what was asked for, in HTTP that is right: what each becomes.

Columns: the answer, the class, the word in the history, the requests of a call that may make three. All come on one
connection, which stays in use.
"""

import gzip
import json
import zlib
from collections.abc import Iterable
from functools import partial

import pytest
from support.fault_runs import (
    HEAD,
    Fault,
    Make,
    goes,
    heals_in_a_page,
    ids_of,
    packed,
    page_ids,
    page_json,
    rows_at,
    stays,
    tears_a_page,
    zipped,
)
from support.raw_server import Answer, RawServer, chunked, http

from capillary_async import RetryPolicy
from capillary_async._transport import body as decompression
from capillary_async.errors import APIError, DecodeError, NotFoundError, RateLimitedError, ServerError, TransportError

Body = partial(Fault, error=DecodeError, kind="bad-json", keeps=True, status=200)
NotJson = partial(Body, kind="not-json", attempts=2)
OtherShape = partial(Body, kind="shape", attempts=1)
Beyond = partial(Body, kind="shape", attempts=2)
Torn = partial(Fault, error=TransportError, kind="cut-body", keeps=True)
Refused = partial(Fault, kind="status", keeps=True)
NotWhole = partial(Refused, error=APIError, attempts=2)

DEEP = 200_000
DIGITS = b"7" * 5000
ROW = b'[{"id": 1, "points_value": %s}]'


def raw_deflate(body: bytes) -> bytes:
    """Deflate without the zlib header, as some servers send it."""
    engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return engine.compress(body) + engine.flush()


def flipped(body: bytes) -> bytes:
    """One bit of the packed data is another; its length is the same."""
    return body[:30] + bytes([body[30] ^ 1]) + body[31:]


FAULTS = {
    # compression
    "gzip cut at 20 bytes": Torn(lambda body: zipped(body, lambda packed: packed[:20])),
    "gzip without its trailer, the JSON whole": Torn(lambda body: zipped(body, lambda packed: packed[:-8])),
    "gzip with half a trailer": Torn(lambda body: zipped(body, lambda packed: packed[:-3])),
    "gzip with a wrong CRC": Torn(lambda body: zipped(body, lambda packed: packed[:-8] + bytes(4) + packed[-4:])),
    "gzip with a wrong length": Torn(lambda body: zipped(body, lambda packed: packed[:-4] + bytes(4))),
    "gzip with a bit flipped": Torn(lambda body: zipped(body, flipped)),
    "second gzip member cut": Torn(lambda body: zipped(body, lambda packed: packed + packed[:15])),
    "gzip followed by text": Torn(lambda body: zipped(body, lambda packed: packed + b"more")),
    "said gzip, is none": Torn(packed),
    "deflate cut": Torn(lambda body: packed(zlib.compress(body)[:-2], "deflate")),
    "deflate without its header, cut": Torn(lambda body: packed(raw_deflate(body)[:-2], "deflate")),
    "gzip nobody declared": NotJson(lambda body: http(gzip.compress(body))),
    "gzip twice": NotJson(lambda body: packed(gzip.compress(gzip.compress(body)), "gzip, gzip"), says="'gzip, gzip'"),
    "br": NotJson(lambda body: packed(body, "br"), says="Content-Encoding 'br', which was not asked for"),
    # no JSON
    "204": NotJson(lambda _: Answer(b"HTTP/1.1 204 No Content\r\n\r\n"), status=204, says="an empty body"),
    "nothing": NotJson(lambda _: http(b""), says="an empty body"),
    "blanks": NotJson(lambda _: http(b" \r\n"), says="an empty body"),
    "no chunk": NotJson(lambda _: chunked(), says="an empty body"),
    "HTML": NotJson(lambda _: http("<!DOCTYPE html><p>Maintenance", headers={"Content-Type": "text/html"}),
                    says="an HTML page"),
    "HTML declared as JSON": NotJson(lambda _: http("\r\n <html><body>Just a moment..."), says="an HTML page"),
    "text": NotJson(lambda _: http("upstream connect error"), says="no JSON"),
    "UTF-16": NotJson(lambda body: http(body.decode().encode("utf-16")), says="no JSON"),
    # half a JSON, and no JSON in one place
    "half a JSON": Body(lambda body: http(body[: len(body) // 2])),
    "JSON cut between two rows": Body(lambda body: http(body[: body.index(b"}") + 1])),
    "JSON without its last bracket": Body(lambda body: http(body[:-1])),
    "JSON twice": Body(lambda body: http(body + body)),
    "JSON with a byte behind": Body(lambda body: http(body + b"x")),
    "a comma behind the last row": Body(lambda body: http(body[:-1] + b",]")),
    "NaN": Body(lambda _: http(ROW % b"NaN")),
    "Infinity": Body(lambda _: http(ROW % b"-Infinity")),
    "latin-1": Body(lambda _: http('[{"id": 1, "status": "caf\xe9"}]'.encode("latin-1"))),
    # JSON of another kind: it would be the same next time
    "id of 5,000 digits": Beyond(lambda _: http(b'[{"id": %s}]' % DIGITS), says="a number out of range"),
    "array 200,000 deep": Beyond(lambda _: http(b"[" * DEEP + b"]" * DEEP), says="nested too deep"),
    "object 200,000 deep": Beyond(lambda _: http(b'{"a":' * DEEP + b"1" + b"}" * DEEP), says="nested too deep"),
    "field 200,000 deep": Beyond(lambda _: http(ROW % (b"[" * DEEP + b"]" * DEEP)), says="nested too deep"),
    "'NaN' as text": OtherShape(lambda _: http(ROW % b'"NaN"'), says="$[0].points_value: expected a decimal number"),
    "a text as id": OtherShape(lambda _: http(b'[{"id": "one"}]'), says="$[0].id"),
    "an object for an array": OtherShape(lambda _: http(b'{"rows": []}'), says="expected an array, got an object"),
    "a row that is a number": OtherShape(lambda _: http(b"[5]"), says="$[0]"),
    # refusals, whole and readable
    "500": Refused(lambda _: http(b"", 500), ServerError, status=500),
    "502 with HTML": Refused(lambda _: http("<html>Bad gateway", 502), ServerError, status=502, says="an HTML page"),
    "521 of Cloudflare": Refused(lambda _: http("<html>", 521), ServerError, status=521),
    "503": Refused(lambda _: http(b"", 503), ServerError, status=503),
    "429": Refused(lambda _: http(b"", 429), RateLimitedError, status=429),
    "500 in the body of a 200": Refused(
        lambda _: http(b'{"code": 500, "message": "no"}'), ServerError, kind="code", status=200
    ),
    # neither a refusal nor a whole answer
    **{
        f"{status}": NotWhole(partial(http, status=status), status=status, says=f"no whole answer, but HTTP {status}")
        for status in (201, 202, 206, 207, 226, 299)
    },
    "206 with its range": NotWhole(
        lambda body: http(body, 206, {"Content-Range": "bytes 0-99/1000"}), status=206, says="a part of the answer"
    ),
    "099": NotWhole(lambda body: Answer(http(body).data.replace(b"HTTP/1.1 200", b"HTTP/1.1 099")), status=99),
    "501": Refused(lambda _: http(b"", 501), ServerError, attempts=1, status=501),
    "304": Refused(lambda _: Answer(b"HTTP/1.1 304 Not Modified\r\n\r\n"), APIError, attempts=1, status=304),
    "404 with HTML": Refused(lambda _: http("<html>", 404), NotFoundError, attempts=1, status=404),
}  # fmt: skip


@pytest.fixture
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What decompresses: the library's own zlib, or the one of the extra `speed`."""
    monkeypatch.setattr(decompression, "_ENGINE", pytest.importorskip(request.param))
    return request.param


ENGINES = ["zlib", "isal.isal_zlib"]


def by_engine(names: Iterable[str]) -> pytest.MarkDecorator:
    """Each case, the compressed ones with each engine."""
    cases = [(name, engine) for name in names for engine in ENGINES[: 2 if "gzip" in name or "deflate" in name else 1]]
    return pytest.mark.parametrize(("name", "engine"), cases, indirect=["engine"])


@by_engine(FAULTS)
@pytest.mark.usefixtures("engine")
async def test_a_fault_that_stays_is_an_error_with_its_story(session_at: Make, name: str):
    await stays(session_at, FAULTS[name])


@by_engine(FAULTS)
@pytest.mark.usefixtures("engine")
async def test_a_fault_that_goes_is_healed_by_the_next_attempt(session_at: Make, name: str):
    await goes(session_at, FAULTS[name])


# After a full page these end the list, where they come twice: see test_ends.py and test_empty_answers.py.
ENDS = {"204", "404 with HTML"}


@pytest.mark.parametrize("prefetch", [0, 4])
@by_engine(name for name in FAULTS if name not in ENDS)
@pytest.mark.usefixtures("engine")
async def test_no_record_of_a_torn_page_is_given_and_none_is_lost(session_at: Make, name: str, prefetch: int):
    await tears_a_page(session_at, FAULTS[name], prefetch)


FINE = {
    "identity": lambda body: packed(body, "identity"),
    "gzip": zipped,
    "x-gzip": lambda body: packed(gzip.compress(body), "X-GZip "),
    "two gzip members": lambda body: packed(gzip.compress(body[:50]) + gzip.compress(body[50:])),
    "gzip, padded": lambda body: zipped(body, lambda packed: packed + b"\0" * 7),
    "gzip in chunks of one byte": lambda body: Answer(
        chunked(*[bytes([octet]) for octet in gzip.compress(body)]).data.replace(
            HEAD, HEAD + b"Content-Encoding: gzip\r\n"
        )
    ),
    "deflate": lambda body: packed(zlib.compress(body), "deflate"),
    "deflate without its header": lambda body: packed(raw_deflate(body), "deflate"),
    "a byte order mark": lambda body: http(b"\xef\xbb\xbf" + body),
    "blanks around": lambda body: http(b"\r\n\t " + body + b"\r\n"),
    "latin-1 declared, ASCII sent": lambda body: http(body, headers={"Content-Type": "text/plain; charset=latin-1"}),
    "a member nobody knows": lambda body: http(body.replace(b'"status"', b'"new": [{"a": 1e400}], "status"')),
}


@by_engine(FINE)
@pytest.mark.usefixtures("engine")
async def test_what_is_odd_and_whole_is_no_fault(session_at: Make, name: str):
    """One request: nothing is asked for twice that came once."""
    await heals_in_a_page(session_at, FINE[name](page_json(3)))


async def test_an_amount_of_100_digits_is_given_to_its_last(session_at: Make):
    """It is a number like any other: not refused, not rounded, not infinite."""
    async with RawServer(http(ROW % (DIGITS[:97] + b".125"))) as server:
        (row,) = await rows_at(session_at(server.url)).collect()
        assert str(row.points_value) == DIGITS[:97].decode() + ".125"
        assert server.hits == 1


async def test_an_empty_body_has_no_trailer_to_miss(session_at: Make):
    """A 503 that says gzip and sends nothing is still a 503."""
    async with RawServer(http(b"", 503, {"Content-Encoding": "gzip"})) as server:
        with pytest.raises(ServerError) as caught:
            await ids_of(rows_at(session_at(server.url)))
        assert caught.value.status == 503


async def test_what_is_counted_is_what_came_over_the_wire(session_at: Make):
    """Compressed bytes, those of a damaged answer too."""
    good, bad = gzip.compress(page_json(1)), gzip.compress(page_json(1))[:-4]
    async with RawServer(packed(bad), packed(good)) as server:
        session = session_at(server.url)
        assert await ids_of(rows_at(session, max_items=3)) == page_ids(1)
        assert session.stats.bytes == len(good) + len(bad)


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
@pytest.mark.usefixtures("engine")
async def test_gzip_cut_at_any_byte_gives_no_record(session_at: Make):
    """The length is right at each of them: aiohttp alone takes half of such a body for the whole."""
    body = gzip.compress(page_json(1))
    answers = [one for at in range(1, len(body)) for one in (packed(body[:at]), packed(body))]
    async with RawServer(*answers) as server:
        session = session_at(server.url, retry=RetryPolicy(attempts=2, backoff=0))
        for at in range(1, len(body)):
            assert await ids_of(rows_at(session, max_items=3)) == page_ids(1), at
            assert server.hits == 2 * at


async def test_json_cut_at_any_byte_gives_no_record(session_at: Make):
    """In HTTP that is right: each beginning of a list is no list."""
    body = page_json(1)
    answers = [one for at in range(len(body)) for one in (http(body[:at]), http(body))]
    async with RawServer(*answers) as server:
        session = session_at(server.url, retry=RetryPolicy(attempts=2, backoff=0))
        for at in range(len(body)):
            assert await ids_of(rows_at(session, max_items=3)) == page_ids(1), at
            assert server.hits == 2 * at + 2


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
async def test_a_flipped_bit_of_gzip_gives_no_other_record(session_at: Make, engine: str):
    """Whichever bit: either its own records, where the bit says nothing, or another attempt."""
    body = gzip.compress(page_json(1), mtime=0)
    damaged = [body[:at] + bytes([body[at] ^ 1 << bit]) + body[at + 1 :] for at in range(len(body)) for bit in range(8)]
    answers = [one for bad in damaged for one in (packed(bad), packed(body))]
    harmless = 0
    async with RawServer(*answers) as server:
        session = session_at(server.url, retry=RetryPolicy(attempts=2, backoff=0))
        for bad in damaged:
            before = server.hits
            assert await ids_of(rows_at(session, max_items=3)) == page_ids(1), bad
            if server.hits == before + 1:
                harmless += 1
                await session.request("GET", "/skip")
    # Six bytes of the header (time, hints, system), the flag for text, and what fills the last byte of the data; isal
    # ignores the three reserved flags too.
    assert harmless <= 8 * 6 + 1 + 7 + (0 if engine == "zlib" else 3)


@pytest.mark.parametrize("answer", [{"data": [{"id": 1}], "errors": [{"code": 8069, "message": "merged"}]}])
async def test_rows_beside_an_error_are_not_given(session_at: Make, answer: object):
    """Half of an answer is none, also under HTTP 200."""
    async with RawServer(http(json.dumps(answer))) as server:
        session = session_at(server.url)
        with pytest.raises(APIError):
            await session.loyalty_events.list(7).collect()
        assert (server.hits, session.stats.records) == (1, 0)
