"""The benchmarks run: every question at a tiny size through the real command, what is missing, what is left behind."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path

import pytest
from support.paths import ROOT
from support.processes import processes_of

from benchmarks import __main__ as command
from benchmarks import clients, pages, table
from benchmarks.processes import BenchmarkError, Children
from benchmarks.results import Row, Sample, Section, Target, paired
from benchmarks.server import COUNTS, RawServer
from benchmarks.serving import nginx_version, raw_server, recorded_server

pytestmark = pytest.mark.long

TINY = ("--runs", "1", "--scale", "0.002")
LINUX = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")


def run(*arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=55,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", [*"abcdefghi"])
def test_every_question_runs_and_gives_figures(letter, tmp_path):
    out = tmp_path / "run.json"
    few = ("--clients", "ours,pages,floor,kept-floor,int-floor")
    code, said, complaints = run(letter, *TINY, *few, "--json", str(out))
    assert (code, complaints) == (0, "")
    told = json.loads(out.read_text())
    (question,) = told["questions"]
    assert question["letter"] == letter
    assert question["rows"]
    faults = [row["note"] for row in question["rows"] if row["cpu"] is None and "not installed" not in row["note"]]
    assert faults == []
    assert told["versions"]["aiohttp"] in said
    for target in question["targets"]:
        if not any(peer in target["text"] for peer in ("httpx", "dlt", "generated")):
            assert target["value"] is not None
            assert target["text"] in said


@pytest.mark.parametrize("names", [("orjson", "httpx", "openai"), ("dlt", "requests", "generated")])
def test_each_installed_peer_reads_the_same_records(names, tmp_path):
    """Which ones are installed depends on the environment: each of them gives figures, each other one a line."""
    out = tmp_path / "run.json"
    code, said, _ = run("c", *TINY, "--server", "raw", "--clients", ",".join(names), "--json", str(out))
    assert code == 0
    rows = {row["client"]: row for row in json.loads(out.read_text())["questions"][0]["rows"]}
    for peer in clients.find(names):
        if peer.missing():
            assert peer.title not in rows
            assert f"left out: {peer.name} (" in said
        else:
            assert rows[peer.title]["cpu"] is not None, rows[peer.title]["note"]


def test_a_peer_that_is_not_installed_is_left_out_with_a_line(monkeypatch, capsys):
    absent = clients.Peer("nobody", "nobody's client", "nobody:Reader", ("no_such_package",), "no-such-package")
    monkeypatch.setitem(clients.PEERS, "nobody", absent)
    assert command.main(["a", *TINY, "--clients", "floor,nobody", "--server", "raw"]) == 0
    said = capsys.readouterr().out
    assert "left out: nobody (no_such_package not installed): pip install no-such-package" in said
    assert "'capillary-async[bench]'" in said
    assert "nobody's client" not in said
    assert "not measured: (a) CPU a record" in said


def test_a_peer_that_fails_is_a_row_with_its_complaint(monkeypatch, capsys):
    broken = clients.Peer("broken", "a broken client", "bare:NoSuchClass")
    monkeypatch.setitem(clients.PEERS, "broken", broken)
    assert command.main(["a", *TINY, "--clients", "floor,broken", "--server", "raw"]) == 0
    said = capsys.readouterr().out
    assert "a broken client" in said
    assert "NoSuchClass" in said


def test_a_port_in_use_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for server in ("raw", "nginx") if nginx_version() else ("raw",):
            code, said, complaint = run("a", *TINY, "--clients", "floor", "--server", server, "--port", str(port))
            assert (code, said) == (1, "")
            assert complaint.startswith(f"benchmarks: port {port} cannot be used: ")
            assert complaint.count("\n") == 1


def test_nginx_asked_for_but_missing_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(command, "nginx_version", lambda: None)
    assert command.main(["a", *TINY, "--server", "nginx"]) == 1
    assert "nginx is not installed: install it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["z"], "no question 'z': choose of a b c d e f g h i"),
        (["--clients", "ours,curl"], "no client 'curl'"),
        (["--runs", "0"], "at least 1"),
        (["--scale", "-1"], "above 0"),
        (["--json", "/no/such/folder/out.json"], "no folder for"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments, says, capsys):
    with pytest.raises(SystemExit) as refused:
        command.main(arguments)
    assert refused.value.code == 2
    assert says in capsys.readouterr().err


@LINUX
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_process_behind(how, tmp_path):
    """Ctrl-C and TERM are told in a line; after KILL nobody is left to tell, and still nothing runs on."""
    mark = f"{os.getpid()}-{how}-{time.monotonic_ns()}"
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks", "a", "--runs", "1000", "--clients", "floor"],
        cwd=ROOT, env={**os.environ, "BENCHMARK_MARK": mark, "TMPDIR": str(tmp_path)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    until(lambda: any("benchmarks.runner" in line for line in processes_of(f"BENCHMARK_MARK={mark}")))
    assert len(processes_of(f"BENCHMARK_MARK={mark}")) >= 3  # the command, its server and a client
    child.send_signal(how)
    _, complaint = child.communicate(timeout=10)
    until(lambda: not processes_of(f"BENCHMARK_MARK={mark}"))
    if how != signal.SIGKILL:
        assert child.returncode == 130
        assert complaint.strip() == "benchmarks: interrupted; its servers and clients are stopped"
        assert list(tmp_path.iterdir()) == []


def test_the_plot_needs_a_question_that_it_draws(capsys, tmp_path):
    assert command.main(["d", "--svg", str(tmp_path / "plot.svg")]) == 1
    assert "--svg draws questions a, b and c" in capsys.readouterr().err


def test_the_plot_is_the_same_for_the_same_figures(tmp_path):
    pytest.importorskip("matplotlib")
    from benchmarks.plot import draw

    rows = (Row("capillary-async", cpu=4.0, wall=0.7), Row("floor", cpu=3.9, wall=5.2), Row("absent", note="failed"))
    sections = [Section(letter, "a question", "µs a record", "ratio", rows) for letter in "abd"]
    for name in ("one", "two"):
        draw(tmp_path / name, sections, "today, a machine")
    text = (tmp_path / "one").read_text()
    assert text == (tmp_path / "two").read_text()
    assert "capillary-async" in text
    assert "today, a machine" in text
    assert "absent" not in text


# --- figures ----------------------------------------------------------------------------------------------------------


def test_a_target_says_whether_it_is_met():
    assert Target("most", 1.0, at_most=1.1).told() == "met: most: 1x"
    assert Target("most", 1.2, at_most=1.1).told() == "missed: most: 1.2x"
    assert Target("least", 2.0, at_least=2.7).met is False
    assert Target("least", None, at_least=2.7).told() == "not measured: least"


def test_ratios_are_of_neighbours_in_a_round():
    quiet, busy = {"cpu": 1.0}, {"cpu": 4.0}
    ours, floor = Sample((busy, quiet, quiet)), Sample((busy, quiet, busy))
    assert paired(ours, floor, "cpu") == 1.0
    assert paired(ours, floor, "cpu", 2) == 2.0
    assert paired(ours, Sample((), "failed: no luck"), "cpu") is None
    assert paired(ours, None, "cpu") is None


def test_figures_of_a_client_at_fault_do_not_count():
    runs = ({"cpu": 1.0}, {"cpu": 3.0}, {"cpu": 2.0, "requests": None})
    assert Sample(runs).median("cpu") == 2.0
    assert Sample(runs).median("requests") is None
    assert Sample(runs, fault="gave other records").median("cpu") is None


def test_the_table_needs_no_rich(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    target = Target("(a) at most twice the floor", 1.5, at_most=2)
    rows = (Row("ours", cpu=4.0, wall=1234.5, memory=40.0, ratio=1.5, note="5 requests"), Row("floor"))
    table.show(["today"], [Section("a", "a list", "µs", "by the floor's", rows, (target,))], ["left out: nobody"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "today"
    assert lines[3].split() == ["ours", "4.00", "1,234", "40.0", "1.50", "5", "requests"]
    assert lines[4] == "floor"
    assert lines[5:] == ["left out: nobody", "met: (a) at most twice the floor: 1.5x"]


# --- pages and servers ------------------------------------------------------------------------------------------------


def test_the_recorded_pages_hold_what_their_ids_say():
    first, last = (json.loads(pages.list_page(pages.list_id(100), number)) for number in (1, 100))
    assert [row["id"] for row in (*first, *last)] == [*pages.list_ids(100)[:100], *pages.list_ids(100)[-100:]]
    assert len(first[0]) == 27
    assert {row["customer_id"] for row in (*first, *last)} == {pages.list_id(100)}
    for digit in range(10):
        entity_id = pages.CUSTOMERS + digit
        read = [
            json.loads(pages.customer_page(entity_id, number)) for number in range(1, pages.pages_of(entity_id) + 1)
        ]
        ids = [row["id"] for page in read for row in page]
        assert {row["customer_id"] for page in read for row in page} == {entity_id}
        assert len(ids) == len(set(ids)) == pages.rows_of(entity_id) == pages.KINDS[digit]
        assert len(read[-1]) < pages.SIZE


def ask(connection, entity_id, page):
    connection.request("GET", f"{pages.PATH}?page={page}&count=100&entity_id={entity_id}")
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


@pytest.mark.parametrize("kind", ["raw", "nginx"])
def test_both_servers_give_the_same_pages_and_count(kind):
    if kind == "nginx" and nginx_version() is None:
        pytest.skip("nginx is not installed")
    with Children() as children, recorded_server(children, 2, nginx=kind == "nginx") as server:
        connection = HTTPConnection(server.url.removeprefix("http://"))
        before = server.requests()
        listed = [ask(connection, pages.list_id(2), page) for page in (1, 2, 3)]
        assert [len(rows) for _, rows in listed] == [100, 100, 0]
        assert listed[1] == (200, json.loads(pages.list_page(pages.list_id(2), 2)))
        counted = server.requests()
        assert counted is None or counted - before == 3
        if kind == "raw":
            assert ask(connection, pages.CUSTOMERS + 19, 3) == (
                200,
                json.loads(pages.customer_page(pages.CUSTOMERS + 19, 3)),
            )
            assert server.beyond == 1
        connection.close()


async def test_the_raw_server_answers_requests_that_come_in_pieces_or_together():
    raw = RawServer()
    listener = await raw.listen(0)
    reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
    target = f"{pages.PATH}?entity_id={pages.CUSTOMERS}&page=1&count=100"
    whole = f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    writer.write(whole + whole[:20])
    body = pages.customer_page(pages.CUSTOMERS, 1)
    await reader.readuntil(b"\r\n\r\n")
    assert await reader.readexactly(len(body)) == body
    writer.write(whole[20:] + f"GET {COUNTS} HTTP/1.1\r\n\r\nGET /other HTTP/1.1\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    assert await reader.readexactly(len(body)) == body
    await reader.readuntil(b"\r\n\r\n")
    assert json.loads(await reader.readuntil(b"}")) == {"requests": 2, "beyond": 0}
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 404")
    writer.close()
    await writer.wait_closed()
    listener.close()
    await listener.wait_closed()


def test_the_raw_server_adds_latency_to_each_answer_not_to_their_sum():
    with Children() as children, raw_server(children, latency=0.2) as server:
        host = server.url.removeprefix("http://")
        connections = [HTTPConnection(host) for _ in range(5)]
        began = time.monotonic()
        for connection in connections:
            connection.request("GET", f"{pages.PATH}?page=1&entity_id={pages.CUSTOMERS}")
        for connection in connections:
            connection.getresponse().read()
            connection.close()
        assert 0.2 <= time.monotonic() - began < 0.8


@LINUX
def test_the_raw_server_ends_with_its_standard_input():
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.server"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        assert "port" in json.loads(child.stdout.readline())
        child.stdin.close()
        assert child.wait(10) == 0


def test_a_process_that_fails_says_why_and_is_gone():
    with Children() as children:
        child = children.start(sys.executable, "-c", "import sys; sys.exit('no luck')")
        with pytest.raises(BenchmarkError, match="no luck"):
            children.said(child)
        sleeper = children.start(shutil.which("sleep") or "sleep", "1000")
    assert sleeper.returncode == -signal.SIGKILL
