"""The command line: what it writes, what it says, and how it ends; the main paths as real processes."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
from concurrent.futures import Future
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from support.environment import name_cluster

from capillary_async import (
    AsyncSession,
    BasicAuth,
    CapillaryError,
    ConnectError,
    PointsAllocation,
    RetryPolicy,
    ServerError,
    __version__,
)
from capillary_async.cli import main
from capillary_async.cli._io import io_thread as _blocking
from capillary_async.cli._io import options as _options
from capillary_async.cli._io import progress as _report
from capillary_async.cli._io import rows as _rows
from capillary_async.cli._io import run as _run
from capillary_async.cli._io import stall_notice
from capillary_async.cli._io import words as _words
from capillary_async.cli._io import writer as _write
from capillary_async.sandbox import ErrorEnvelope, NullEntries, Sandbox, ServerFailure, SlowFirstByte

if TYPE_CHECKING:
    from collections.abc import Iterator

HELD = Sandbox(customers=20)
IDS = list(HELD.customer_ids)
SMALL = ("--sandbox", "--customers", "20")
BASH = shutil.which("bash") or "bash"
COMMAND = (sys.executable, "-m", "capillary_async.cli")
POINTS = ("--program-id", "2282", "--point-category-id", "17383")
DAYS = ("--expiry-date-start", "2020-01-01", "--expiry-date-end", "2030-12-31")
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and pipes as POSIX has them")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("CAPILLARY_")]:
        monkeypatch.delenv(name)
    # In processes warnings are errors too; the development mode would write to stderr what asyncio thinks slow.
    monkeypatch.delenv("PYTHONDEVMODE", raising=False)
    monkeypatch.setenv("PYTHONWARNINGS", "error")


@pytest.fixture
def capillary_sandbox_options() -> dict[str, Any]:
    return {"customers": 20}


@pytest.fixture
def cluster(capillary_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """A sandbox that the environment names, as a real cluster would be."""
    name_cluster(monkeypatch, capillary_sandbox.url, capillary_sandbox.username, capillary_sandbox.password)
    return capillary_sandbox


def rows_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=18, check=False, **{"input": "", **options}
    )


# -- rows


def same(row: dict[str, Any], wire: dict[str, Any]) -> bool:
    """Whether a row says what the wire said, quantities by their digits."""
    for name, value in wire.items():
        kept = row[name]
        if isinstance(value, Decimal):
            assert isinstance(kept, str)
            assert Decimal(kept) == value
            assert len(kept) == len(str(value)), "digits as they came"
        else:
            assert str(kept) == str(value), name
    return True


def test_allocations_as_json_lines(capfd: pytest.CaptureFixture[str]) -> None:
    """Every row the sandbox holds, each quantity as text, times in ISO form, what remains beside them."""
    assert main(["allocations", *SMALL, "--ordered"]) == 0
    out, err = capfd.readouterr()
    rows = rows_of(out)
    held = [row for customer in IDS for row in HELD.allocations(customer)]
    assert len(rows) == len(held)
    assert all(same(row, wire) for row, wire in zip(rows, held, strict=True))
    assert set(rows[0]) == {"asked_id", "awarded_at", "expires_at", "updated_at", "remaining", *held[0]}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", rows[0]["expires_at"])
    assert err.startswith(f"allocations: 20 answered, 0 failed, {len(held)} records;")


def test_awarded_as_csv(capfd: pytest.CaptureFixture[str]) -> None:
    """A header, then the rows of the one status that was asked for."""
    assert main(["awarded", *SMALL, "--status", "EXPIRED", "--format", "csv", "--ordered", "--quiet"]) == 0
    out, err = capfd.readouterr()
    rows = list(csv.DictReader(io.StringIO(out)))
    held = [row for customer in IDS for row in HELD.awarded(customer, "EXPIRED")]
    assert all(same(row, wire) for row, wire in zip(rows, held, strict=True))
    assert out.partition("\n")[0].startswith("asked_id,asked_status,")
    assert {row["asked_status"] for row in rows} == {"EXPIRED"}
    assert err == ""


def test_events_with_their_filters(capfd: pytest.CaptureFixture[str]) -> None:
    """Ids from arguments, each asked once; the endpoint's own filters."""
    middle = HELD.events(IDS[0])[9]
    day, name = middle["date"][:10], middle["eventName"]
    asked = ("--event-type", name, "--from-date", day, "--to-date", day)
    assert main(["events", *SMALL, str(IDS[0]), str(IDS[0]), *asked]) == 0
    rows = rows_of(capfd.readouterr().out)
    held = [row for row in HELD.events(IDS[0]) if row["date"].startswith(day) and row["eventName"] == name]
    assert [row["id"] for row in rows] == [row["id"] for row in held]
    assert rows[0]["asked_id"] == IDS[0]
    assert rows[0]["date"] == middle["date"]


def test_allocations_of_one_event(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """--event-id asks the other endpoint, with ids at hand or from a file."""
    wire = HELD.allocations(IDS[0])[0]
    event = ("--event-id", str(wire["points_source_id"]), "--event-type-id", str(wire["event_type_id"]))
    held = [row["id"] for row in HELD.allocations(IDS[0]) if row["event_log_id"] == wire["event_log_id"]]
    assert main(["allocations", *SMALL, str(IDS[0]), *event]) == 0
    rows = rows_of(capfd.readouterr().out)
    assert [row["id"] for row in rows] == held
    assert {row["asked_id"] for row in rows} == {IDS[0]}
    (tmp_path / "ids").write_text(f"{IDS[0]}\n")
    assert main(["allocations", *SMALL, "--ids", str(tmp_path / "ids"), *event]) == 0
    assert [row["id"] for row in rows_of(capfd.readouterr().out)] == held


def test_a_user_group_and_an_organisation(capfd: pytest.CaptureFixture[str]) -> None:
    """The rows of a group are its members', beside the id that was asked for."""
    group = HELD.group_ids[0]
    assert main(["awarded", *SMALL, str(group), "--batch-size", "1", "--org-id", "50914"]) == 0
    rows = rows_of(capfd.readouterr().out)
    assert {row["asked_id"] for row in rows} == {group}
    assert {row["customer_id"] for row in rows} <= set(HELD.members(group))
    assert main(["awarded", *SMALL, str(group), "--batch-size", "1", "--org-id", "1"]) == 0
    assert capfd.readouterr().out == ""


def test_a_time_beyond_the_calendar_is_an_empty_cell() -> None:
    """The milliseconds stay; nothing fails."""
    row = _rows.ALLOCATION.row(PointsAllocation(expiry_date=10**17))
    assert row["expires_at"] is None
    assert row["expiry_date"] == 10**17


def test_cells() -> None:
    """Nothing is an empty cell, a bool is a word, what is nested is JSON."""
    table = _rows.Table(("a", "b", "c", "d"), dict)
    text = _write._Csv(table).line({"a": None, "b": True, "c": False, "d": {"x": ["1.50", "é"]}})
    assert text.decode() == ',true,false,"{""x"":[""1.50"",""é""]}"\n'


# -- the ledger


def test_ledger_as_json_lines(capfd: pytest.CaptureFixture[str]) -> None:
    """What is empty is left out; quantities inside nested values are text too."""
    bill = HELD.allocations(IDS[0])[0]["event_log_id"]
    assert main(["ledger", *SMALL, "--customer-id", str(IDS[0]), "--bill-details", str(bill)]) == 0
    (row,) = rows_of(capfd.readouterr().out)
    assert row["event_log_id"] == bill
    assert None not in row.values()
    assert isinstance(row["bill_details"]["line_items"][0]["amount"], str)


def test_ledger_as_csv(capfd: pytest.CaptureFixture[str]) -> None:
    """All events of the sandbox's first customer, one column for each field of the model."""
    assert main(["ledger", *SMALL, "--format", "csv"]) == 0
    out, err = capfd.readouterr()
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [int(row["event_log_id"]) for row in rows] == HELD.event_log_ids(IDS[0])
    assert set(rows[0]) == {field.name for field in attrs.fields(type(_ledger_event()))}
    assert json.loads(rows[0]["event_details"])["event_time_iso"].endswith("Z")
    assert rows[0]["bill_details"] == ""
    assert err.startswith(f"ledger: {len(rows)} answered, 0 failed,")


def _ledger_event() -> Any:
    from capillary_async import LedgerEvent

    return LedgerEvent()


def test_ledger_goes_on_behind_refused_ids(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Each refused id is told and counted; the pages behind are read all the same."""
    known = HELD.event_log_ids(IDS[0])
    asked = [*known[:3], 1, *known[3:12], 2, 3, *known[12:]]
    (tmp_path / "ids").write_text("\n".join(map(str, asked)))
    assert main(["ledger", *SMALL, "--ids", str(tmp_path / "ids"), "--id", str(IDS[0])]) == 2
    out, err = capfd.readouterr()
    assert [row["event_log_id"] for row in rows_of(out)] == known
    assert re.findall(r"^failed (\d+): LedgerRequestError:", err, re.MULTILINE) == ["1", "2", "3"]
    assert f"ledger: {len(known)} answered, 3 failed, {len(known)} records" in err


def test_ledger_by_reference(capfd: pytest.CaptureFixture[str]) -> None:
    """--event-name makes references of the ids."""
    bill = next(row for row in HELD.allocations(IDS[0]) if row["event_type_id"] == 15)
    options = ("--event-name", "TransactionAdd", "--source", "ALL", "--alternate-currency-name", "Coins")
    assert main(["ledger", *SMALL, str(bill["points_source_id"]), *options]) == 0
    assert [row["event_log_id"] for row in rows_of(capfd.readouterr().out)] == [bill["event_log_id"]]


def test_ledger_tells_warnings(cluster: Sandbox, capfd: pytest.CaptureFixture[str]) -> None:
    """A null entry is dropped by the SDK with a warning, which is told."""
    cluster.add_faults(NullEntries())
    assert main(["ledger", "--customer-id", str(IDS[0]), str(HELD.event_log_ids(IDS[0])[0])]) == 0
    assert "\nwarning page 1: " in "\n" + capfd.readouterr().err


def test_ledger_of_an_unknown_owner_cannot_run(capfd: pytest.CaptureFixture[str]) -> None:
    """A refusal that is not about ids concerns the whole command."""
    assert main(["ledger", *SMALL, "--customer-id", str(HELD.unknown_id), "632700001"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("capillary-async: ")


def test_ledger_of_a_refused_kind_cannot_run(cluster: Sandbox, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither does one whose identifier the ledger refuses."""
    cluster.add_faults(ErrorEnvelope(9003, "type", times=None))
    assert main(["ledger", "--id", str(IDS[0]), "632700001", "--type", "NONE"]) == 1
    assert "code 9003" in capfd.readouterr().err


# -- ids


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("{0}\n{1}\n", None),
        ("\ufeff{0}\r\n\r\n  {1}  ", None),
        ("name,customer id\nann,{0}\n\nbob,{1}", "customer id"),
        ('"customer id" ,note\r\n"{0}","two\nlines, ""quoted"""\r\n{1},x\r\n', "customer id"),
    ],
)
@pytest.mark.parametrize("piece", [3, 65_536])
def test_ids_from_a_file(  # noqa: PLR0917 - fixtures
    text: str,
    column: str | None,
    piece: int,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One a line or a column of a CSV, with or without BOM, CR and quotes, however the file is cut into pieces."""
    monkeypatch.setattr("capillary_async.cli._io.id_input._PIECE", piece)
    path = tmp_path / "ids.txt"
    path.write_bytes(text.format(*IDS[:2]).encode())
    columns = ("--ids-column", column) if column else ()
    assert main(["events", *SMALL, "--ordered", "--ids", str(path), *columns]) == 0
    assert list(dict.fromkeys(row["asked_id"] for row in rows_of(capfd.readouterr().out))) == IDS[:2]


@pytest.mark.long
@pytest.mark.parametrize("arguments", [["-"], ["--ids", "-"]])
def test_ids_from_stdin(arguments: list[str]) -> None:
    """A bad one among them is a failure of its own."""
    ended = run("events", *SMALL, *arguments, input=f"{IDS[0]}\nx12\n{HELD.unknown_id}\n{HELD.merged_ids[0]}\n")
    assert ended.returncode == 2
    assert {row["asked_id"] for row in rows_of(ended.stdout)} == {IDS[0]}
    assert dict(re.findall(r"^failed (\S+): (\w+):", ended.stderr, re.MULTILINE)) == {
        "x12": "InvalidRequestError",
        str(HELD.unknown_id): "CustomerNotFoundError",
        str(HELD.merged_ids[0]): "MergedCustomerError",
    }
    assert "events: 1 answered, 3 failed," in ended.stderr


def test_a_bad_id_is_told_in_short_and_escaped(capfd: pytest.CaptureFixture[str]) -> None:
    """What a terminal would obey does not reach it."""
    report = _report.Report("events", quiet=False, total=None, shared=False)
    report.refused("\x1b[31m7\n" * 50, CapillaryError("no\x07 [b]such[/b]"))
    err = capfd.readouterr().err
    assert err.startswith("failed \\x1b[31m7 \\x1b[31m7 ")
    assert err.endswith("...: CapillaryError: no\\x07 [b]such[/b]\n")
    assert len(err) < 130


@pytest.mark.parametrize(("number", "said"), [(0, "0 requests"), (1, "1 request"), (1234, "1,234 requests")])
def test_numbers_and_their_nouns(number: int, said: str) -> None:
    """One is no plural."""
    assert _words.count(number, "request") == said


def test_no_ids_at_all_are_no_failure(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """An empty file: a header in CSV, nothing else."""
    (tmp_path / "none").touch()
    assert main(["events", *SMALL, "--ids", str(tmp_path / "none"), "--format", "csv"]) == 0
    assert capfd.readouterr().out == "asked_id,id,customer_id,date,event_name,org_id,status,unique_id\n"


def test_a_short_csv_line_is_a_bad_id(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It does not take the place of another column."""
    (tmp_path / "ids").write_text(f"a,id\nx,{IDS[0]}\ny\n")
    assert main(["events", *SMALL, "--ids", str(tmp_path / "ids"), "--ids-column", "id"]) == 2
    assert "InvalidRequestError" in capfd.readouterr().err


# -- what cannot run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nope"], 'Unknown command "nope"'),
        (["events", "--nope"], "Unknown option: --nope"),
        (["events", *SMALL, "--format", "xml"], "xml"),
        (["allocations", *SMALL, "--program-id", "x"], "--program-id"),
        (["events", *SMALL, "x12"], "customer_ids takes a positive whole number"),
        (["events", *SMALL, "0"], "got '0'"),
        (["events", *SMALL, "--from-date", "2025-02-30"], ": --from-date takes"),
        (["events", "5", "--base-url", ""], "--base-url takes a URL, got ''"),
        (["events", *SMALL, "--ids", "/no/such/file"], "/no/such/file"),
        (["events", *SMALL, "--ids", str(Path(__file__).parent)], f"{Path(__file__).parent} is a directory"),
        (["events", *SMALL, "1", "--ids", "x"], "not both"),
        (["events", *SMALL, "1", "-"], "is used alone"),
        (["events", *SMALL, "--ids", __file__, "--ids-column", "id"], "no column"),
        (["events", *SMALL, "--ids", sys.executable], "no UTF-8"),
        (["events", *SMALL, "--out", "/no/such/dir/file"], "cannot write /no/such/dir/file"),
        (["events", *SMALL, "--page-size", "0"], ": --page-size takes"),
        (["allocations", *SMALL, "--page-size", "101"], "--page-size takes"),
        (["events", *SMALL, "--concurrency", "0"], ": --concurrency takes"),
        (["events", *SMALL, "--rate", "100"], "--rate takes requests/seconds"),
        (["events", *SMALL, "--server-timezone", "Nowhere"], ": --server-timezone takes"),
        (["events", "--sandbox", "--customers", "-1"], "customers takes a whole number of at least 0"),
        (["awarded", *SMALL, "--batch-size", "0"], "--batch-size takes"),
        (["awarded", *SMALL, "--status", ""], "status"),
        (["allocations", *SMALL, "--event-id", "5"], "go together"),
        (["allocations", *SMALL, "--event-id", "5", "--event-type-id", "15", "--program-id", "3"], "do not go"),
        (["allocations", *SMALL, "x", "--event-id", "5", "--event-type-id", "15"], "customer_id"),
        (["ledger", *SMALL, "--mobile", "1", "--email", "a@b"], "whose ledger: give one of --mobile, --email"),
        (["ledger", "--sandbox", "--customers", "0"], "whose ledger"),
        (["demo", "--customers", "-1"], "customers takes a whole number of at least 0"),
        (["sandbox", "--port", "99999"], ": --port takes 0 to 65535"),
        (["sandbox", "--latency", "slow"], "--latency takes seconds or least-most, e.g. 0.02-0.2, got 'slow'"),
        (["sandbox", "--latency", "nan"], "--latency takes a finite number of seconds, zero or more, got nan"),
        (["sandbox", "--rate", "3"], "--rate takes requests/seconds, e.g. 100/60, got '3'"),
        (["sandbox", "--rate", "0/1"], "--rate takes at least one permit"),
        (["sandbox", "--port", "x"], "--port"),
    ],
)
def test_it_says_in_one_line_why_it_cannot_run(
    arguments: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, nothing on stdout, one line on stderr; the signals of a program that goes on are its own again."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert main(arguments) == 1
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("capillary-async: ")
    assert err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize(
    ("environment", "arguments", "said"),
    [
        ({}, [], "CAPILLARY_BASE_URL"),
        ({"CAPILLARY_BASE_URL": "https://x.test"}, [], "CAPILLARY_USERNAME"),
        ({}, ["--base-url", "http://x.test", "--username", "t", "--password-file", "{secret}"], "https://"),
        ({}, ["--base-url", "https://x.test", "--username", "t"], "--password-file or the environment variable"),
        ({}, ["--base-url", "https://x.test", "--client-key", "k"], "CAPILLARY_CLIENT_SECRET"),
        ({}, ["--username", "t", "--client-key", "k"], "not both"),
        ({}, ["--username", "t", "--password-file", "/no/such"], "cannot read /no/such"),
        ({"CAPILLARY_PASSWORD_MD5": "s3cret"}, ["--base-url", "https://x.test", "--username", "t"], "32 hex digits"),
    ],
)
def test_it_names_what_is_missing_of_the_credentials(  # noqa: PLR0917 - fixtures
    environment: dict[str, str],
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """And never shows a secret."""
    (tmp_path / "secret").write_text("s3cret\n")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["events", "5", *(argument.format(secret=tmp_path / "secret") for argument in arguments)]) == 1
    err = capfd.readouterr().err
    assert said in err
    assert "s3cret" not in err


def test_points_are_needed_without_a_sandbox(cluster: Sandbox, capfd: pytest.CaptureFixture[str]) -> None:
    """What a sandbox has defaults for is asked for by name; so are the ids."""
    for given, missing in (((), "--program-id"), (POINTS, "--expiry-date-start"), ((*POINTS, *DAYS), "--status")):
        assert main(["awarded", "5", *given]) == 1
        assert f"{missing} is missing" in capfd.readouterr().err
    assert main(["events"]) == 1
    assert "no ids: give them as arguments" in capfd.readouterr().err
    assert main(["ledger", "5"]) == 1
    assert "whose ledger" in capfd.readouterr().err
    assert cluster.requests == 0


# -- a real cluster


def test_credentials_from_the_environment(cluster: Sandbox, capfd: pytest.CaptureFixture[str]) -> None:
    """As `AsyncSession.from_env` reads them; both spellings of the dates."""
    first = ("--start-expiry-date", "2020-01-01", "--end-expiry-date", "2030-12-31")
    assert main(["allocations", str(IDS[0]), *POINTS, *first, "--rate", "1000/1", "--verify"]) == 0
    assert len(rows_of(capfd.readouterr().out)) == len(HELD.allocations(IDS[0]))
    assert cluster.journal[0].headers["x-cap-neo-dag-scope"] == "global"


@pytest.mark.parametrize(
    "way", ["file", "environment", "md5", "md5 beside an empty password", "oauth file", "oauth environment"]
)
def test_credentials_from_options(
    way: str,
    capillary_sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The secret from a file or the environment; the rest as options."""
    secret = tmp_path / "secret"
    secret.write_text((capillary_sandbox.secret if "oauth" in way else capillary_sandbox.password) + "\n")
    name, variable = ("--client-key", "CLIENT_SECRET") if "oauth" in way else ("--username", "PASSWORD")
    arguments = [name, capillary_sandbox.key if "oauth" in way else capillary_sandbox.username]
    if "file" in way:
        arguments += [{"file": "--password-file"}.get(way, "--client-secret-file"), str(secret)]
    elif "md5" in way:
        if "empty" in way:
            monkeypatch.setenv("CAPILLARY_PASSWORD", "")
        monkeypatch.setenv("CAPILLARY_PASSWORD_MD5", capillary_sandbox.auth._wire_password())
    else:
        monkeypatch.setenv(f"CAPILLARY_{variable}", secret.read_text().strip())
    assert main(["events", str(IDS[0]), "--base-url", capillary_sandbox.url, *arguments]) == 0
    assert rows_of(capfd.readouterr().out)


def test_wrong_credentials_concern_everybody(
    cluster: Sandbox, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Exit code 1 after the first answer, no file, and the password is not shown."""
    monkeypatch.setenv("CAPILLARY_PASSWORD", "s3cret")
    assert main(["events", *map(str, IDS), "--concurrency", "2", "--out", str(tmp_path / "out")]) == 1
    err = capfd.readouterr().err
    assert "HTTP 401" in err
    assert "s3cret" not in err
    assert list(tmp_path.iterdir()) == []
    assert cluster.requests < 20


# -- the file


def test_a_file_appears_when_it_is_whole(cluster: Sandbox, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Behind an error that concerns everybody, the old file is still there, and nothing beside it."""
    out = tmp_path / "out.jsonl"
    out.write_text("old")
    out.chmod(0o640)
    cluster.add_faults(ErrorEnvelope(401, "no", path=str(IDS[-1]), times=None))
    assert main(["events", *map(str, IDS), "--out", str(out)]) == 1
    assert out.read_text() == "old"
    assert main(["events", *map(str, IDS[:-1]), "--out", str(out)]) == 0
    assert len(rows_of(out.read_text())) == sum(len(HELD.events(customer)) for customer in IDS[:-1])
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
    if os.name == "posix":
        assert out.stat().st_mode & 0o777 == 0o640


@POSIX
def test_a_link_stays_a_link_and_a_device_a_device(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The file behind the link is replaced; a device is written as it is."""
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert main(["events", *SMALL, str(IDS[0]), "--out", str(tmp_path / "link")]) == 0
    assert (tmp_path / "link").is_symlink()
    assert rows_of((tmp_path / "file").read_text())
    assert main(["events", *SMALL, "--out", os.devnull]) == 0
    assert not Path(os.devnull).is_file()


def test_it_does_not_wait_for_much_before_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Rows go out in pieces while others are still being read."""
    sizes: list[int] = []
    write = _write._write_all
    monkeypatch.setattr(_write, "_PIECE", 2_000)
    monkeypatch.setattr(_write, "_write_all", lambda fd, data: (sizes.append(len(data)), write(fd, data)))
    assert main(["events", *SMALL, "--out", str(tmp_path / "out")]) == 0
    assert len(sizes) > 5
    assert sum(sizes) == (tmp_path / "out").stat().st_size


# -- processes


def test_the_installed_command() -> None:
    """The entry point is there and ends well."""
    script = Path(sysconfig.get_path("scripts")) / "capillary-async"
    ended = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=18, check=False)
    assert (ended.returncode, ended.stdout.strip(), ended.stderr) == (0, __version__, "")


@pytest.mark.parametrize("missing", ["cyclopts", "rich"])
def test_without_the_extra(missing: str) -> None:
    """One line that says what to install."""
    code = (
        f"import sys; sys.modules[{missing!r}] = None; from capillary_async.cli import main; sys.exit(main(['demo']))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=18, check=False)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert 'pip install "capillary-async[cli]"' in ended.stderr


def test_ctrl_c_while_it_starts() -> None:
    """The imports take a while; the code is that of an interruption, without a traceback."""
    code = (
        "import builtins, sys; from capillary_async.cli import main\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'cyclopts': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Finder()); sys.exit(main(['demo']))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=18, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


def test_another_missing_module_is_a_bug_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not blamed on the extra."""
    for name in [name for name in sys.modules if name.startswith("capillary_async.cli._app")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "capillary_async.cli._demo.demo", None)
    with pytest.raises(ModuleNotFoundError, match="_demo"):
        main(["--version"])


@pytest.mark.long
@POSIX
def test_head_ends_it_quietly() -> None:
    """Nothing on stderr but what `head` says; the code is that of a broken pipe."""
    line = f"{' '.join(COMMAND)} allocations --sandbox --customers 300 | head -n 1; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run([BASH, "-c", line], capture_output=True, text=True, timeout=18, check=False)
    assert ended.returncode == 141
    assert len(rows_of(ended.stdout)) == 1
    assert ended.stderr == ""
    line = f"{' '.join(COMMAND)} demo --customers 3 --no-faults | true; exit ${{PIPESTATUS[0]}}"
    # Its first line is the verdict, after all of it has run.
    ended = subprocess.run([BASH, "-c", line], capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (141, "")


@pytest.mark.long
@POSIX
def test_closed_standard_streams() -> None:
    """Rows have nowhere to go without stdout; the other two are not needed."""
    line = f"{' '.join(COMMAND)} events {' '.join(SMALL)}"
    ended = subprocess.run([BASH, "-c", f"{line} >&-"], capture_output=True, text=True, timeout=18, check=False)
    assert (ended.returncode, ended.stderr) == (1, "capillary-async: stdout is closed\n")
    ended = subprocess.run([BASH, "-c", f"{line} - <&-"], capture_output=True, text=True, timeout=18, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "capillary-async: cannot read ids: stdin is closed\n"
    ended = subprocess.run([BASH, "-c", f"{line} <&- 2>&-"], capture_output=True, text=True, timeout=18, check=False)
    assert ended.returncode == 0
    assert len(rows_of(ended.stdout)) == sum(len(HELD.events(customer)) for customer in IDS)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a full device")
def test_a_full_disk(tmp_path: Path) -> None:
    """What could not be written is told, and the code is not that of success."""
    line = f"{' '.join(COMMAND)} events {' '.join(SMALL)} --quiet > /dev/full"
    ended = subprocess.run([BASH, "-c", line], capture_output=True, text=True, timeout=18, check=False)
    assert ended.returncode == 1
    assert "No space left" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.fixture
def _children() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def start(_children: list[subprocess.Popen[str]]) -> Any:
    """Start the command; it is killed at the end of the test at the latest."""

    def started(*arguments: str, **options: Any) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        _children.append(subprocess.Popen([*COMMAND, *arguments], text=True, **{**pipes, **options}))
        return _children[-1]

    return started


@pytest.mark.long
@POSIX
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_and_leave_no_part_of_a_file(
    number: signal.Signals, code: int, start: Any, tmp_path: Path
) -> None:
    """Sent when the unfinished file is there; no traceback."""
    process = start("allocations", "--sandbox", "--customers", "100000", "--out", str(tmp_path / "out"))
    while not list(tmp_path.iterdir()):
        assert process.poll() is None
    process.send_signal(number)
    _, err = process.communicate(timeout=15)
    assert process.returncode == code
    assert err.startswith("capillary-async: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@POSIX
def test_ctrl_c_ends_it_though_nobody_reads_or_writes(start: Any) -> None:
    """Neither a full pipe on stdout nor a silent one on stdin keeps the process."""
    full = start("allocations", "--sandbox", "--customers", "300")
    assert full.stdout.read(1) == "{"
    full.send_signal(signal.SIGINT)
    assert full.wait(15) == 130
    read, write = os.pipe()
    silent = start("events", *SMALL, "--ids", "-", stdin=read)
    os.write(write, f"{IDS[0]}\n".encode())
    assert silent.stdout.read(1) == "{"
    silent.send_signal(signal.SIGINT)
    assert silent.wait(15) == 130
    os.close(read)
    os.close(write)


@POSIX
def test_progress_on_a_terminal(start: Any) -> None:
    """A bar while it works, the closing line when it is done; rows on stdout are not touched."""
    import pty

    ours, theirs = pty.openpty()
    process = start("events", *SMALL, stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"})
    os.close(theirs)
    out, shown = process.stdout.read(), b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # Linux says so at the end of a terminal
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert process.wait(15) == 0
    assert len(rows_of(out)) == sum(len(HELD.events(customer)) for customer in IDS)
    assert b"\x1b[" in shown
    assert b"20/20" in shown
    assert b"events: 20 answered" in shown


# -- the sandbox


@pytest.mark.long
@POSIX
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_sandbox_serves_what_it_prints(number: signal.Signals, start: Any) -> None:
    """The curl line and the Python snippet work as they stand; a signal ends it with 0."""
    process = start("sandbox", "--port", "0", "--customers", "30", "--latency", "0-0.01", "--rate", "1000/1")
    text = ""
    while "OAuth:" not in text:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        text += line
    curl = re.search(r"^curl(?:.*\\\n)*.*", text, re.MULTILINE)
    snippet = re.search(r"^import asyncio.*^asyncio\.run\(main\(\)\)$", text, re.MULTILINE | re.DOTALL)
    assert curl
    assert snippet
    held = Sandbox(customers=30).allocations(IDS[0])
    asked = subprocess.run([BASH, "-c", curl[0]], capture_output=True, text=True, timeout=15, check=True)
    assert [row["id"] for row in json.loads(asked.stdout)] == [row["id"] for row in held][:10]
    ran = subprocess.run([sys.executable, "-c", snippet[0]], capture_output=True, text=True, timeout=15, check=True)
    assert len(ran.stdout.splitlines()) == len(held)
    (export,) = re.findall(r"^export CAPILLARY_.*$", text, re.MULTILINE)
    line = f"{export}; {' '.join(COMMAND)} events {IDS[0]}"
    read = subprocess.run([BASH, "-c", line], capture_output=True, text=True, timeout=15, check=True)
    assert len(rows_of(read.stdout)) == len(Sandbox(customers=30).events(IDS[0]))
    process.send_signal(number)
    out, err = process.communicate(timeout=15)
    assert (process.returncode, err) == (0, "")
    assert re.search(r"stopped after \d+ requests", out)


def test_sandbox_says_that_its_port_is_taken(capillary_sandbox: Sandbox, capfd: pytest.CaptureFixture[str]) -> None:
    """And what to do."""
    assert main(["sandbox", "--port", capillary_sandbox.url.rpartition(":")[2]]) == 1
    err = capfd.readouterr().err
    assert "cannot listen on 127.0.0.1" in err
    assert "give another port" in err


# -- silence


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stall_notice, "_LIMIT", 0.2)
    monkeypatch.setattr(stall_notice, "_TICK", 0.02)


@pytest.mark.usefixtures("_impatient")
async def test_a_server_that_cannot_be_reached_is_told_with_the_error() -> None:
    """Once, with the time until when it is tried; nothing is told while nothing is asked."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    monitor, told = stall_notice.StallMonitor(), asyncio.Queue[str]()
    auth, retry = BasicAuth("till", password="p"), RetryPolicy(attempts=1)
    async with (
        AsyncSession(url, auth=auth, retry=retry, middlewares=[monitor]) as session,
        monitor.reporting(session, told.put_nowait),
    ):
        await asyncio.sleep(0.3)
        assert told.empty()
        with pytest.raises(ConnectError):
            await session.loyalty_events.list(5).collect()
        text = await asyncio.wait_for(told.get(), 5)
        await asyncio.sleep(0.1)
        assert told.empty()
    ends = r"trying on until about \d\d:\d\d:\d\d"
    assert re.fullmatch(rf"no answer from {url} for \d+ s \(ConnectError: .*\); {ends}", text)


@pytest.mark.usefixtures("_impatient")
async def test_a_server_that_fails_is_told_until_it_answers(cluster: Sandbox) -> None:
    """With its status; once it answers, nothing more is told."""
    cluster.add_faults(ServerFailure(503))
    monitor, told = stall_notice.StallMonitor(), asyncio.Queue[str]()
    async with (
        AsyncSession.from_env(retry=RetryPolicy(attempts=1), middlewares=[monitor]) as session,
        monitor.reporting(session, told.put_nowait),
    ):
        with pytest.raises(ServerError):
            await session.loyalty_events.list(IDS[0]).collect()
        assert "(ServerError: HTTP 503); trying on" in await asyncio.wait_for(told.get(), 5)
        assert await session.loyalty_events.list(IDS[0]).collect()
        await asyncio.sleep(0.3)
        assert told.empty()


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("command", [["events", "5"], ["ledger", "--customer-id", str(IDS[0]), "632700001"]])
def test_quiet_keeps_silence_back(command: list[str], cluster: Sandbox, capfd: pytest.CaptureFixture[str]) -> None:
    """It says nothing but failures."""
    cluster.add_faults(SlowFirstByte(0.5))
    main([*command, "--quiet"])
    assert "no answer" not in capfd.readouterr().err
    cluster.add_faults(SlowFirstByte(0.5))
    main(command)
    assert "no answer" in capfd.readouterr().err


# -- what stands beneath


def test_without_uvloop(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """The loop of asyncio itself does."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert _run._loop_factory() is None
    assert main(["events", *SMALL, str(IDS[0])]) == 0


def test_with_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loop is taken where it is installed."""
    uvloop = pytest.importorskip("uvloop")
    assert _run._loop_factory() is uvloop.new_event_loop


async def test_a_call_that_nobody_waits_for_any_more_is_not_made() -> None:
    """Its future was cancelled before its turn came; what a call raises is raised where it was made."""
    blocking = _blocking.IOThread()
    with pytest.raises(ZeroDivisionError):
        await blocking.call(lambda: 1 // 0)
    made: list[int] = []
    gate = threading.Event()
    first = asyncio.ensure_future(blocking.call(gate.wait))
    second = asyncio.ensure_future(blocking.call(made.append, 1))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    gate.set()
    await first
    await blocking.call(made.append, 2)
    assert made == [2]
    blocking.end(lambda: made.append(3))
    blocking._thread.join(5)
    assert made == [2, 3]


def test_a_report_that_cannot_be_told_does_not_change_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also stderr may be closed."""

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "gone")

    def fails() -> int:
        raise _run.UnusableError("no")

    monkeypatch.setattr(sys, "stderr", Closed())
    assert _run.ending(fails) == 1


def test_the_bar_is_hidden_where_it_would_be_in_the_way() -> None:
    """No terminal, or --quiet."""
    report = _report.Report("events", quiet=True, total=None, shared=False)
    assert report._progress.disable


@POSIX
async def test_an_unfinished_file_goes_though_its_thread_is_slow(tmp_path: Path) -> None:
    """Nobody waits for the thread that writes, so the process may end before it."""
    goes_on = threading.Event()
    with contextlib.suppress(KeyboardInterrupt):
        table = _rows.Table(columns=("a",), row=lambda row: row)
        async with _write.Writer(_options.Output(out=str(tmp_path / "out")), table) as writer:
            writer._blocking._calls.put((Future(), goes_on.wait))
            raise KeyboardInterrupt
    left = list(tmp_path.iterdir())
    goes_on.set()
    assert left == []
