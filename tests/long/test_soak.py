"""The soak in short: faults, an outage and wrong answers through the real command, its accounts, and its servers."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.paths import ROOT
from support.processes import processes_of

from benchmarks import soak, soak_proxy, soak_records, soak_server, soak_world, soak_wrong
from benchmarks.soak_leg import Leg, Sample
from benchmarks.soak_misdirected import MisdirectedLeg
from benchmarks.soak_world import FIRST, Account, customers_for, page_body, pages_of, place

pytestmark = pytest.mark.long

LINUX = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")


def command(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.soak", *arguments],
        cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


# --- the command ------------------------------------------------------------------------------------------------------


def test_a_short_soak_loses_nothing(tmp_path):
    """Faults of every kind, an outage in the middle of both legs, and every bound kept."""
    out = tmp_path / "soak.json"
    process = command("--pages", "2000", "--outage", "1", "--json", str(out))
    said, complaints = process.communicate(timeout=55)
    assert (process.returncode, complaints) == (0, ""), said
    faults, outage = json.loads(out.read_text())["legs"]
    for leg in (faults, outage):
        figures = leg["figures"]
        assert figures["lost"] == figures["duplicated"] == figures["unexpected"] == figures["misordered"] == 0
        assert figures["expected"] == figures["delivered"] == figures["served_whole"] >= leg["pages"] - 2
        assert figures["down_requests"] > 0
        assert figures["up_after"] is not None
        assert all(bound["kept"] for bound in leg["bounds"])
    assert set(faults["figures"]["faults"]) == set(soak_server.FAULTS)
    assert faults["figures"]["retries"] > 100
    assert outage["figures"]["told_and_asked_again"] == {}
    assert "ok   pages lost: 0" in said


def test_a_short_soak_through_a_misdirecting_proxy_loses_and_misdirects_nothing(tmp_path):
    """Wrong ends, others' answers and parts of answers, each kind of them: read right, or an error and asked again."""
    out = tmp_path / "soak.json"
    process = command("--misdirected", "--pages", "3000", "--faults", "0.1", "--json", str(out))
    said, complaints = process.communicate(timeout=55)
    assert (process.returncode, complaints) == (0, ""), said
    [leg] = json.loads(out.read_text())["legs"]
    figures = leg["figures"]
    assert {figures[word] for word in MisdirectedLeg.wrongs} == {0}
    assert figures["expected"] == figures["delivered"] == figures["served_whole"] > 40_000
    assert set(figures["faults"]) == set(soak_wrong.KINDS)
    assert sum(figures["faults"].values()) > 200
    assert figures["told_and_asked_again"]
    assert "ok   records misdirected: 0" in said


@LINUX
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_an_interrupted_soak_leaves_no_server_behind(number, code):
    mark = f"soak-{os.getpid()}-{number}"
    process = command("--pages", "20000", "--outage", "0", SOAK_MARK=mark)
    assert process.stdout is not None
    deadline = time.monotonic() + 20
    assert process.stdout.readline().startswith("faults: 20,000 pages")
    while len(processes_of(f"SOAK_MARK={mark}")) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.5)  # anywhere in the beginning
    process.send_signal(number)
    _, complaints = process.communicate(timeout=20)
    assert process.returncode == code
    assert complaints.strip() == "soak: interrupted; its server is stopped"
    assert processes_of(f"SOAK_MARK={mark}") == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--pages", "0"],
        ["--outage", "500"],
        ["--faults", "0.9"],
        ["--json", "/no/such/folder/x"],
        ["--pages", "many"],
        ["--misdirected", "--outage", "3"],
    ],
)
def test_what_cannot_be_is_refused_in_a_line(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        soak.main(arguments)
    assert caught.value.code == 2
    assert "soak: error:" in capsys.readouterr().err


# --- the account sees each kind of wrong ------------------------------------------------------------------------------


def records(customer):
    """What the right pages hold, as the SDK would give it."""
    found = []
    for page in range(1, pages_of(customer) + 1):
        parsed = json.loads(page_body(customer, page), parse_float=Decimal)
        found += [SimpleNamespace(id=row["id"], points_exclusive=row["points_exclusive"]) for row in parsed]
    return found


def whole(account):
    return bytes([1]) * account.total


def closed(change=None, customers=10, *, skip=(), again=(), served=None):
    """The account of ten customers, one of them changed."""
    account = Account(customers)
    for customer in (*range(FIRST, FIRST + customers), *again):
        rows = records(customer)
        if customer not in skip:
            account.note(customer, change(rows) if change and customer == FIRST + 6 else rows)
    return account.close(served(account) if served else whole(account))


def test_an_account_without_a_fault():
    figures = closed()
    assert figures["expected"] == figures["delivered"] == figures["served_whole"] == 19
    assert [figures[word] for word in ("lost", "duplicated", "unexpected", "misordered")] == [0, 0, 0, 0]


def other(rows):
    return [*rows[:-1], SimpleNamespace(id=rows[-1].id, points_exclusive=rows[-1].points_exclusive + 1)]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda rows: rows[:-1], {"lost": 1, "duplicated": 0, "unexpected": 0, "misordered": 0}),
        (lambda rows: rows[5:], {"lost": 1, "duplicated": 0, "unexpected": 0, "misordered": 0}),
        (lambda rows: [], {"lost": 3, "duplicated": 0, "unexpected": 0, "misordered": 0}),
        (lambda rows: [*rows, rows[0]], {"lost": 1, "duplicated": 1, "unexpected": 0, "misordered": 0}),
        (lambda rows: rows[::-1], {"lost": 0, "duplicated": 0, "unexpected": 0, "misordered": 1}),
        (other, {"lost": 1, "duplicated": 0, "unexpected": 1, "misordered": 0}),
    ],
    ids=["a row", "a page", "all", "twice", "order", "points"],
)
def test_an_account_with_one(change, expected):
    """A row or page lost, one twice, another order, other points: none of them passes."""
    figures = closed(change)
    assert {word: figures[word] for word in expected} == expected


def test_a_customer_without_an_outcome_or_with_two_and_one_that_nobody_asked_for():
    assert closed(skip={FIRST + 3})["lost"] == 3
    assert closed(again=[FIRST + 3])["duplicated"] == 1
    assert closed(again=[FIRST + 10])["unexpected"] == 3


def test_a_page_delivered_that_was_never_served_whole_is_unexpected():
    """It would have been read out of a torn answer."""
    assert closed(served=lambda account: bytes([0]) + whole(account)[1:])["unexpected"] == 1


def test_pages_have_places_without_gaps():
    places = [
        place(customer, page)
        for customer in range(FIRST, FIRST + 30)
        for page in range(1, pages_of(customer) + 1)
    ]  # fmt: skip
    assert places == list(range(57))
    assert customers_for(57) == 30
    assert customers_for(58) == 31
    assert soak_world.page_body(FIRST + 7, 1) == b"[]"


# --- the server -------------------------------------------------------------------------------------------------------


def test_every_fault_comes_with_its_weight_and_the_dice_are_the_seeds():
    one, two = (soak_server.SoakServer(10**6, share=0.1, outage=0, seed=5) for _ in range(2))
    assert [one.fault() for _ in range(20_000)] == [two.fault() for _ in range(20_000)]
    assert set(one.faults) == set(soak_server.FAULTS)
    assert 0.09 < sum(one.faults.values()) / 20_000 < 0.11


def test_the_outage_begins_behind_half_of_the_pages_and_ends(monkeypatch):
    now = 100.0
    monkeypatch.setattr(soak_server, "time", SimpleNamespace(monotonic=lambda: now))
    server = soak_server.SoakServer(10, share=0.0, outage=30, seed=1)
    assert server.fault() is None
    server.whole = 5
    for now, found in ((100.0, "reset"), (114.9, "reset"), (115.0, "down"), (129.9, "down"), (138.0, None)):
        assert server.fault() == found, now
    assert (server.down_requests, server.up_after) == (4, 8.0)


def test_bounds_tell_what_was_missed():
    """Memory that grows, connections that stay, a late end of the outage, and too many requests."""
    leg = Leg("outage", 100, 0.0, 30.0, 1)
    leg.samples = [Sample(at, at * 10, 50.0 + at * 5, 10 + at * 10, 5) for at in range(11)]
    leg.figures = {
        "lost": 1, "duplicated": 0, "unexpected": 0, "misordered": 0, "tasks_left": 0, "up_after": 10.2,
        "requests": 117, "expected": 100, "told_and_asked_again": {"ServerError": 1}, "down_requests": 9,
    }  # fmt: skip
    missed = [bound.text for bound in soak.bounds(leg) if not bound.kept]
    assert missed == [
        "pages lost", "MiB grown from the second quarter to the last", "descriptors beyond one a connection",
        "seconds from the end of the outage to the next request", "requests a page, outage included",
        "keys failed by the outage",
    ]  # fmt: skip
    leg.figures["up_after"] = None
    assert soak.bounds(leg)[-3].value == float("inf")


def test_a_server_that_does_not_start_is_told_in_a_line(monkeypatch, capsys):
    def none(self, children):
        raise soak.BenchmarkError("no server: it did not start")

    monkeypatch.setattr(Leg, "run", none)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert soak.main(["--pages", "10"]) == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err == "soak: no server: it did not start\n"


async def read_all(reader):
    """What comes until the end, a reset, or half a second of silence."""
    came = b""
    try:
        while piece := await asyncio.wait_for(reader.read(65536), 0.5):
            came += piece
    except TimeoutError:
        return came
    except ConnectionResetError:
        return b"RST " + came
    return came


async def test_each_fault_on_the_wire_is_what_its_name_says():
    """Read by hand: what tears an answer tears it, and what is whole is whole."""
    loop = asyncio.get_running_loop()
    server = soak_server.SoakServer(1000, share=0.0, outage=0, seed=1)
    kinds = iter(soak_server.FAULTS)
    server.fault = lambda: next(kinds)
    listening = await loop.create_server(lambda: soak_server._Connection(server, loop), "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    told = {}
    async with listening:
        for kind in soak_server.FAULTS:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET /x?entity_id={FIRST}&page=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            told[kind] = await read_all(reader)
            writer.close()
    body = page_body(FIRST, 1)
    assert told["close"] == b""
    assert told["reset"].startswith(b"RST")
    assert told["reset in the body"].startswith(b"RST")
    assert told["short Content-Length"].endswith(body)
    assert f"Content-Length: {len(body) + 50}".encode() in told["short Content-Length"]
    assert told["no last chunk"].endswith(body + b"\r\n")
    assert told["stall before the headers"].endswith(body)
    assert told["stall in the body"].endswith(body)
    assert told["half a JSON"].endswith(body[: len(body) // 2])
    assert b"Retry-After: 0.02" in told["429 with Retry-After"]
    assert b"Retry-After" not in told["503"]
    assert server.whole == 2


# --- the misdirecting proxy -------------------------------------------------------------------------------------------


def record(identity):
    """A record as the SDK gives it, with the fields of both endpoints."""
    value = soak_records.value(identity)
    return SimpleNamespace(id=identity, points_exclusive=value, unique_id=value)


def account_of(change):
    """The account of twenty customers, with the lists of two of them changed together."""
    account = soak_records.Account(20)
    lists = {
        customer: [
            record(identity)
            for page in range(1, soak_records.pages_of(customer) + 1)
            for identity in soak_records.rows_of(customer, page)
        ]
        for customer in range(soak_records.FIRST, soak_records.FIRST + 20)
    }
    change(lists[soak_records.FIRST + 3], lists[soak_records.FIRST + 14])
    for customer, items in lists.items():
        account.note(customer, items)
    return account.close(b"\x01" * account.total)


def swapped(one, two):
    one[:], two[:] = two[:], one[:]


def altered(one, two):
    two[0] = SimpleNamespace(id=two[0].id, unique_id="other")


@pytest.mark.parametrize(
    ("change", "due"),
    [
        (lambda one, two: None, {}),
        (lambda one, two: one.pop(), {"lost": 1}),
        (lambda one, two: two.clear(), {"lost": 100}),
        (lambda one, two: one.append(one[-1]), {"doubled": 1}),
        (lambda one, two: one.append(two[0]), {"misdirected": 1}),
        (swapped, {"misdirected": 161, "lost": 161}),
        (lambda one, two: one.reverse(), {"misordered": 1}),
        (altered, {"altered": 1, "lost": 1}),
    ],
    ids=["right", "a row", "a list", "twice", "another's", "exchanged", "order", "content"],
)
def test_the_account_of_records_sees_each_kind_of_wrong(change, due):
    figures = account_of(change)
    assert figures["expected"] == 990
    assert {word: figures[word] for word in MisdirectedLeg.wrongs if figures[word]} == due


def test_a_record_delivered_that_was_never_served_is_seen():
    account = soak_records.Account(1)
    account.note(soak_records.FIRST, [record(1)])
    assert account.close(bytes(45))["never served"] == 1


def test_records_say_whose_they_are():
    for customer in range(soak_records.FIRST, soak_records.FIRST + 40):
        ids = [
            n for page in range(1, soak_records.pages_of(customer) + 1) for n in soak_records.rows_of(customer, page)
        ]
        assert {soak_records.owner(identity) for identity in ids} <= {customer}
        assert len(soak_records.rows_of(customer, soak_records.pages_of(customer))) < soak_records.SIZE


def test_wrong_answers_come_at_their_share_and_are_the_seeds():
    customers = range(soak_records.FIRST, soak_records.FIRST + 20_000)
    wrongs = {customer: soak_wrong.wrong_of(customer, 0.01, 7) for customer in customers}
    played = [wrong for wrong in wrongs.values() if wrong is not None]
    assert 0.009 < len(played) / sum(map(soak_records.pages_of, customers)) < 0.011
    assert {wrong.kind for wrong in played} == set(soak_wrong.KINDS)
    assert all(soak_wrong.wrong_of(customer, 0.01, 7) == wrongs[customer] for customer in customers[:500])
    assert any(soak_wrong.wrong_of(customer, 0.01, 8) != wrongs[customer] for customer in customers[:500])


def test_what_no_reader_can_notice_is_not_played():
    """A wrong end is behind a full page; one that stays, and a row less, have rows behind them."""
    for customer in range(soak_records.FIRST, soak_records.FIRST + 5000):
        wrong = soak_wrong.wrong_of(customer, 0.15, 1)
        if wrong is None or wrong.kind in soak_wrong.ODD:
            continue
        if wrong.kind in soak_wrong.ENDS or wrong.kind == soak_wrong.LESS:
            assert wrong.page > 1
            assert wrong.contradicted == (wrong.times > 1 or wrong.kind == soak_wrong.LESS)
            assert not wrong.contradicted or soak_records.rows_of(customer, wrong.page + 1)
        else:
            assert soak_records.rows_of(customer, wrong.page)


def test_an_end_that_stays_is_played_only_where_the_next_page_was_asked_for():
    proxy = soak_proxy.Proxy(1000, share=0.15, seed=1)
    customer, wrong = next(
        (customer, wrong)
        for customer in range(soak_records.FIRST, soak_records.FIRST + 1000)
        if (wrong := proxy.wrong_of(customer)) is not None and wrong.contradicted and wrong.times == 2
    )
    proxy.ask(customer, 1)
    assert proxy.ask(customer, wrong.page) == wrong
    assert proxy.play(customer, wrong) is None
    proxy.ask(customer, wrong.page + 1)
    assert proxy.play(customer, wrong) == proxy.play(customer, wrong) != proxy.right(customer, wrong.page)
    assert proxy.play(customer, wrong) is proxy.ask(customer, wrong.page) is None
    assert proxy.faults == {wrong.kind: 2}


async def test_an_answer_that_comes_twice_stays_before_what_follows_on_its_connection():
    loop = asyncio.get_running_loop()
    proxy = soak_proxy.Proxy(1000, share=0.0, seed=1)
    customer = soak_records.FIRST
    proxy.wrong_of = {customer: soak_wrong.Wrong(soak_wrong.TWICE, 1), customer + 1: None}.__getitem__
    listening = await loop.create_server(lambda: soak_proxy._Connection(proxy, loop), "127.0.0.1", 0)
    async with listening:
        reader, writer = await asyncio.open_connection("127.0.0.1", listening.sockets[0].getsockname()[1])
        for each in (customer, customer + 1):
            writer.write(f"GET /x?entity_id={each}&page=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        came = await read_all(reader)
        writer.close()
    one, two = soak_records.page_body(customer, 1), soak_records.page_body(customer + 1, 1)
    assert came == soak_server.answer(one) * 2 + soak_server.answer(two)


@pytest.mark.parametrize("kind", soak_wrong.KINDS)
def test_each_wrong_answer_is_whole_and_another_than_the_right_one(kind):
    """The head is that of its name, and the body has the announced length."""
    customer = soak_records.FIRST + 9
    head, _, body = soak_wrong.wrong_answer(kind, customer, 2).partition(b"\r\n\r\n")
    status = head.split(b"\r\n")[0].decode().removeprefix("HTTP/1.1 ")
    assert status == (kind if kind in soak_wrong.ODD else "404 Not Found" if kind.startswith("404") else "200 OK")
    assert (f"Content-Length: {len(body)}" in head.decode()) != kind.startswith("204")
    right = soak_records.page_body(customer, 2)
    assert (body == right) == (kind in {soak_wrong.TWICE, "099 Odd"})
