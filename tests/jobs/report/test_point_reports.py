"""The two reports: who loses what by when, and what is owed, against sums made by plain Python."""

from __future__ import annotations

import csv
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.export_folder import write_export

from capillary_async.cli import main
from capillary_async.jobs import JobError, expiry_report, liability_report

READ = "2026-01-15T02:17:00+00:00"
KOLKATA = ZoneInfo("Asia/Kolkata")


def ms(text: str) -> int:
    """Epoch milliseconds of a time in India."""
    return int(datetime.fromisoformat(text).replace(tzinfo=KOLKATA).timestamp() * 1000)


def allocation(number: int, points: Any = "10", **more: Any) -> dict[str, Any]:
    zeros = {f"{what}_exclusive_value": "0" for what in ("redeemed", "returned", "expired")}
    which = {"program_id": 2282, "point_category_id": 17383, "expiry_date": ms("2026-12-31T23:59:59")}
    return zeros | which | {"id": number, "customer_id": 1, "status": "AVAILABLE", "points_exclusive": points} | more


def export_of(path: Path, rows: list[dict[str, Any]], **manifest: Any) -> Path:
    return write_export(path, "allocations", rows, finished=READ, **manifest)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


async def expiring(folder: Path, **arguments: Any) -> list[tuple[str, str, str]]:
    out = folder.parent / "campaign.csv"
    await expiry_report(folder, out, **{"timezone": "Asia/Kolkata"} | arguments)
    return [(row["customer"], row["points"], row["last_day"]) for row in rows_of(out)]


async def test_one_row_per_customer_and_last_day(tmp_path: Path) -> None:
    folder = export_of(
        tmp_path / "e",
        [
            allocation(1, "100.001"),
            allocation(2, "50", redeemed_exclusive_value="20.5", expiry_date=ms("2026-12-31T10:00:00")),
            allocation(3, "7", expiry_date=ms("2027-01-01T00:00:00")),  # ends with the last day of the year
            allocation(4, "5", expiry_date=ms("2027-01-01T00:00:01")),
            allocation(5, "9", customer_id=2),
            allocation(6, "9", customer_id=2, status="REDEEMED"),
            allocation(7, "3", customer_id=3, redeemed_exclusive_value="3"),  # nothing is left
        ],
    )
    assert await expiring(folder) == [
        ("1", "136.501", "2026-12-31"), ("1", "5.000", "2027-01-01"), ("2", "9.000", "2026-12-31"),
    ]  # fmt: skip
    assert await expiring(folder, by="2026-12-31") == await expiring(folder, by=date(2026, 12, 31))
    assert await expiring(folder, by="2026-12-31") == [("1", "136.501", "2026-12-31"), ("2", "9.000", "2026-12-31")]


async def test_json_lines_give_the_same(tmp_path: Path) -> None:
    folder = export_of(tmp_path / "e", [allocation(1, "100.001"), allocation(2, "50")], jsonl=True)
    assert await expiring(folder) == [("1", "150.001", "2026-12-31")]


async def test_the_day_is_the_servers(tmp_path: Path) -> None:
    folder = export_of(tmp_path / "e", [allocation(1)])  # 23:59:59 in India is 18:29:59 UTC
    assert [day for _, _, day in await expiring(folder, timezone="Asia/Tokyo")] == ["2027-01-01"]
    assert [day for _, _, day in await expiring(folder, timezone=timezone(timedelta(hours=5, minutes=30)))] == [
        "2026-12-31"
    ]


async def test_the_zone_of_the_export_counts_where_none_is_given(tmp_path: Path) -> None:
    folder = export_of(tmp_path / "e", [allocation(1)], server_timezone="Asia/Tokyo")
    report = await expiry_report(folder, tmp_path / "c.csv")
    assert rows_of(tmp_path / "c.csv")[0]["last_day"] == "2027-01-01"
    assert report.timezone == "Asia/Tokyo (the zone that the export was made with)"
    other = export_of(tmp_path / "o", [allocation(2)], server_timezone="UTC")
    with pytest.raises(JobError, match="different time zones, Asia/Tokyo, UTC"):
        await expiry_report([folder, other], tmp_path / "c.csv")
    plain = await expiry_report(export_of(tmp_path / "p", [allocation(1)]), tmp_path / "c.csv")
    assert plain.timezone.startswith("UTC (no --timezone was given")


async def test_what_expired_before_the_reading_is_left_out_and_said(tmp_path: Path) -> None:
    folder = export_of(tmp_path / "e", [allocation(1, expiry_date=ms("2026-01-10T23:59:59")), allocation(2)])
    report = await expiry_report(folder, tmp_path / "c.csv", timezone="Asia/Kolkata")
    assert report.as_of == datetime.fromisoformat(READ)
    assert (report.rows, report.customers, report.points) == (1, 1, Decimal(10))
    assert any(
        note == "AVAILABLE allocations that expired before 2026-01-15 02:17 UTC, left out: 1" for note in report.notes
    )
    assert len(await expiring(folder, as_of=date(2026, 1, 1))) == 2


async def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    folder = export_of(
        tmp_path / "e",
        [
            allocation(1, expired_exclusive_value=None),
            allocation(2, expiry_date=None),
            allocation(3, status=None),
        ],
        ids={"asked": 2, "found": 1, "empty": 0, "failed": 1, "digest": ""},
    )
    report = await expiry_report(folder, tmp_path / "c.csv", timezone="UTC")
    said = " | ".join(report.notes)
    assert "without one of the four columns that the rest is computed from, counted as 0: 1" in said
    assert "AVAILABLE allocations without an expiry date: 1" in said
    assert "allocations without a status, not counted as AVAILABLE: 1" in said
    assert f"customers of {folder} that failed, whose points are missing here: 1" in said
    assert "one of five award tables" in said
    assert report.failed == 1


async def test_an_allocation_in_two_lists_counts_once_and_in_two_exports_is_refused(tmp_path: Path) -> None:
    rows = [allocation(1, asked_key=2), allocation(1, asked_key=1), allocation(None, "1"), allocation(None, "1")]
    folder = export_of(tmp_path / "e", rows)
    report = await expiry_report(folder, tmp_path / "c.csv", timezone="UTC")
    assert [(row["customer"], row["points"]) for row in rows_of(tmp_path / "c.csv")] == [("1", "12.000")]
    assert any(note.endswith("counted once: 1") for note in report.notes)
    other = export_of(tmp_path / "o", [allocation(1)])
    with pytest.raises(JobError, match=r"allocation 1 is in .* and would count twice"):
        await liability_report([folder, other], tmp_path / "l.csv")


async def test_control_characters_in_a_status_part_no_row(tmp_path: Path) -> None:
    out = tmp_path / "owed.csv"
    await liability_report(export_of(tmp_path / "a", [allocation(1, status="A\rB\x1b[2J")]), out, timezone="UTC")
    assert len(out.read_bytes().splitlines()) == 2
    assert [row["status"] for row in rows_of(out)] == [r"A\rB\x1b[2J"]


async def test_what_is_owed_by_month_status_and_category(tmp_path: Path) -> None:
    december, january = ms("2026-12-31T23:59:59"), ms("2027-01-31T23:59:59")
    first = export_of(
        tmp_path / "a",
        [
            allocation(1, "100", redeemed_exclusive_value="30"),
            allocation(2, "1.005", expiry_date=january),
            allocation(3, "40", status="REDEEMED", redeemed_exclusive_value="40", expiry_date=december),
            allocation(4, "2", expiry_date=None),
        ],
    )
    second = export_of(tmp_path / "b", [allocation(5, "8", point_category_id=9)])
    out = tmp_path / "owed.csv"
    report = await liability_report([first, second], out, timezone="Asia/Kolkata", currency_rate="0.333")
    assert [tuple(row.values()) for row in rows_of(out)] == [
        ("2026-12", "AVAILABLE", "2282", "9", "1", "8.000", "8.000", "2.664000"),
        ("2026-12", "AVAILABLE", "2282", "17383", "1", "100.000", "70.000", "23.310000"),
        ("2026-12", "REDEEMED", "2282", "17383", "1", "40.000", "0.000", ""),
        ("2027-01", "AVAILABLE", "2282", "17383", "1", "1.005", "1.005", "0.334665"),
        ("", "AVAILABLE", "2282", "17383", "1", "2.000", "2.000", "0.666000"),
    ]
    assert report.points == Decimal("81.005")
    assert report.value == Decimal("81.005") * Decimal("0.333")
    assert (await liability_report(first, out)).value is None
    assert {row["value"] for row in rows_of(out)} == {""}


amounts = st.decimals(0, 10**9, places=3).map(str)
times = st.integers(ms("2025-01-01T00:00:00"), ms("2029-01-01T00:00:00"))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    drawn=st.lists(
        st.tuples(st.integers(1, 4), amounts, st.integers(0, 1000), times, st.sampled_from(["AVAILABLE", "EXPIRED"])),
        max_size=30,
    ),
    zone=st.sampled_from(["UTC", "Asia/Kolkata", "America/St_Johns", "Pacific/Chatham", "Australia/Lord_Howe"]),
)
async def test_against_plain_python(tmp_path_factory: pytest.TempPathFactory, drawn: list[Any], zone: str) -> None:
    folder = tmp_path_factory.mktemp("report")
    rows = [
        allocation(
            number, points, customer_id=customer, expired_exclusive_value=str(gone), expiry_date=at, status=status
        )
        for number, (customer, points, gone, at, status) in enumerate(drawn, start=1)
    ]
    export_of(folder / "e", rows)
    days: defaultdict[tuple[str, str], Decimal] = defaultdict(Decimal)
    months: defaultdict[tuple[str, str], Decimal] = defaultdict(Decimal)
    read = datetime.fromisoformat(READ).timestamp() * 1000
    for customer, points, gone, at, status in drawn:
        last = datetime.fromtimestamp((at - 1) // 1000, UTC).astimezone(ZoneInfo(zone)).date()
        months[f"{last:%Y-%m}", status] += Decimal(points) - gone
        if status == "AVAILABLE" and at > read:
            days[str(customer), last.isoformat()] += Decimal(points) - gone
    await expiry_report(folder / "e", folder / "c.csv", timezone=zone)
    found = {(row["customer"], row["last_day"]): Decimal(row["points"]) for row in rows_of(folder / "c.csv")}
    assert found == {each: points for each, points in days.items() if points}
    await liability_report(folder / "e", folder / "l.csv", timezone=zone)
    assert {
        (row["month"], row["status"]): Decimal(row["points_remaining"]) for row in rows_of(folder / "l.csv")
    } == dict(months)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"timezone": "Asia/Calcuta"}, "timezone takes the name of a time zone, e.g. Asia/Kolkata or UTC"),
        ({"timezone": "../../etc/passwd"}, "timezone takes the name"),
        ({"by": "31.12.2026"}, "by takes a date or YYYY-MM-DD"),
        ({"out": "campaign.txt"}, "must end in .csv"),
        ({"out": "e/campaign.csv"}, "within the export"),
        ({"folders": []}, "at least one folder"),
        ({"folders": ["e", "e"]}, "one folder twice"),
        ({"folders": ["nowhere"]}, "is no folder"),
        ({"memory_limit": "much"}, "memory_limit"),
    ],
)
async def test_arguments_that_are_invalid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    export_of(tmp_path / "e", [allocation(1)])
    with pytest.raises(JobError, match=said):
        await expiry_report(**{"folders": "e", "out": "campaign.csv"} | arguments)
    assert not Path("campaign.csv").exists()


@pytest.mark.parametrize("rate", [0.1, True, "nan", "inf", "-1", "1e9", "1e-19", "x", "", "1E-9999999"])
async def test_rates_that_are_invalid(tmp_path: Path, rate: Any) -> None:
    folder = export_of(tmp_path / "e", [allocation(1)])
    with pytest.raises(JobError, match="currency_rate takes a decimal number"):
        await liability_report(folder, tmp_path / "l.csv", currency_rate=rate)


async def test_other_exports_are_refused(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "e", "awarded", [{"id": 1, "source_table": "points_awarded", "customer_id": 1}])
    with pytest.raises(JobError, match="is an export of awarded; these reports are made of exports of allocations"):
        await expiry_report(folder, tmp_path / "c.csv")


async def test_an_empty_export_gives_a_header(tmp_path: Path) -> None:
    folder = export_of(tmp_path / "e", [])
    assert (await expiry_report(folder, tmp_path / "c.csv", timezone="UTC")).rows == 0
    assert (tmp_path / "c.csv").read_text() == "customer,points,last_day,program_id,point_category_id\n"


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = str(export_of(tmp_path / "e", [allocation(1)]))
    torn = str(export_of(tmp_path / "t", [], ids={"asked": 1, "found": 0, "empty": 0, "failed": 1, "digest": ""}))
    out = str(tmp_path / "c.csv")
    assert main(["report", "expiry", whole, "--out", out, "--timezone", "Asia/Kolkata"]) == 0
    said = capsys.readouterr().out
    assert "10.000 points of 1 customer that expire after 2026-01-15 02:17 UTC" in said
    assert "days and months: Asia/Kolkata" in said
    assert "one of five award tables" in said
    assert main(["report", "liability", whole, torn, "--out", out, "--currency-rate", "0.25"]) == 2
    assert "10.000 points, worth 2.50000" in capsys.readouterr().out
    assert main(["report", "expiry", whole, "--out", out, "--timezone", "Nowhere", "--quiet"]) == 1
    assert "timezone takes the name of a time zone" in capsys.readouterr().err
