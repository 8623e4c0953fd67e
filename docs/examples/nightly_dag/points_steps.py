"""The four steps of a night, as functions without a scheduler: export, verify, reconcile, publish.

Each is safe to run again: the export goes on where it stopped, the others change nothing that is right. Files are below
`POINTS_HOME`; the export is published below `POINTS_URL`.
"""

import asyncio
import csv
import os
import sys
from datetime import date
from pathlib import Path

from capillary_async import AsyncSession, jobs


class IncompleteError(Exception):
    """A retry can help: customers failed, or the service did not answer. What is there is kept."""


class DifferentError(Exception):
    """A retry changes nothing: files or books differ, and a person looks."""


def home() -> Path:
    return Path(os.environ.get("POINTS_HOME", "."))


def folder_of(day: str) -> Path:
    return home() / "points" / date.fromisoformat(day).isoformat()


def export(day: str) -> None:
    """Read all customers of ids.csv; once the reading has begun, the folder keeps their ids."""
    folder = folder_of(day)
    ids = None
    if not any(folder.glob("shards/part-*")):
        with open(home() / "ids.csv", newline="", encoding="utf-8") as file:
            ids = [row["customer_id"] for row in csv.DictReader(file)]

    async def run() -> jobs.ExportResult:
        async with AsyncSession.from_env() as capillary:
            return await jobs.export(
                "allocations",
                ids,
                folder,
                session=capillary,
                program_id=2282,
                point_category_id=17383,
                expiry_date_start="2025-06-01",
                expiry_date_end="2027-06-01",
            )

    result = asyncio.run(run())
    if not result.complete:
        raise IncompleteError(f"{result.failed} customers failed, see {folder / 'failures.jsonl'}")


def verify(day: str) -> None:
    """Check the files, and a sample of them with the service."""

    async def run() -> jobs.VerifyResult:
        async with AsyncSession.from_env() as capillary:
            return await jobs.verify(folder_of(day), session=capillary, sample=100)

    proof = asyncio.run(run())
    if proof.faults:
        raise DifferentError(f"{proof.out}: {proof.faults[0]}")
    if proof.unanswered:
        raise IncompleteError(f"{proof.out} is whole, and the service did not answer: {proof.unanswered[0]}")


def reconcile(day: str) -> None:
    """Compare with the books; the report and the differences are beside the export."""
    report = home() / f"report-{day}.html"
    found = asyncio.run(
        jobs.reconcile(
            folder_of(day),
            home() / "books.csv",
            key={"id": "award_id"},
            compare={"remaining": "points", "status": "status"},
            tolerance="0.001",
            out=home() / f"differences-{day}.parquet",
            report=report,
        )
    )
    if not found.equal:
        raise DifferentError(f"{found.verdict}, see {report}")


def publish(day: str) -> str:
    """Send the export to the object store, a folder per day; returns where it is."""
    url = os.environ.get("POINTS_URL", (home() / "lake").resolve().as_uri())
    result = asyncio.run(jobs.publish(folder_of(day), f"{url}/points/{day}"))
    print(*result.lines(), sep="\n")
    return result.url


if __name__ == "__main__":
    for step in (export, verify, reconcile, publish):
        step(sys.argv[1])
