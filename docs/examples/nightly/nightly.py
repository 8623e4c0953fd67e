# nightly.py
import asyncio
import csv
import sys
from pathlib import Path

from capillary_async import AsyncSession, jobs


class IncompleteError(Exception):
    """Try again: what is there is kept."""


class DifferentError(Exception):
    """A person looks; trying again changes nothing. In Airflow: AirflowFailException."""


async def nightly(day: str) -> None:
    folder, report = Path("points") / day, Path(f"report-{day}.html")
    ids = None  # once the reading has begun, the folder keeps them
    if not any(folder.glob("shards/part-*")):
        with open("ids.csv", newline="", encoding="utf-8") as file:
            ids = [row["customer_id"] for row in csv.DictReader(file)]
    async with AsyncSession.from_env() as capillary:
        exported = await jobs.export(
            "allocations",
            ids,
            folder,
            session=capillary,
            program_id=2282,
            point_category_id=17383,
            expiry_date_start="2025-06-01",
            expiry_date_end="2027-06-01",
        )
        if not exported.complete:
            raise IncompleteError(f"{exported.failed} customers failed, see {folder / 'failures.jsonl'}")
        proof = await jobs.verify(folder, session=capillary, sample=100)
    if proof.faults:
        raise DifferentError(f"{folder}: {proof.faults[0]}")
    if proof.unanswered:
        raise IncompleteError(f"{folder} is whole, and the service did not answer: {proof.unanswered[0]}")
    found = await jobs.reconcile(
        folder,
        "books.csv",
        key={"id": "award_id"},
        compare={"remaining": "points", "status": "status"},
        tolerance="0.001",
        out=f"differences-{day}.parquet",
        report=report,
    )
    print(*found.lines(), sep="\n")
    if not found.equal:
        raise DifferentError(f"{found.verdict}, see {report}")


if __name__ == "__main__":
    asyncio.run(nightly(sys.argv[1]))
