"""Exports in processes that tests kill, and what is in their folders then."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from support.job_server import QUERY, UNKNOWN
from support.paths import SUPPORT

IDS = [*range(1, 91), UNKNOWN + 1, "no id", *range(91, 100), 7, UNKNOWN + 2]  # 7 comes twice
RECOVERED = (5, 66, 67, 89)  # answered in a later round alone
SHARD_KEYS = 12
# What an export that was disturbed may say otherwise: when, and how much was asked.
VOLATILE = ("read", "started", "finished", "requests", "retries", "throttles", "duplicates", "conflicts", "warnings")


class Runner:
    """Starts exports, and kills them."""

    def __init__(self, url: str) -> None:
        self._asked = {"url": url, "query": QUERY, "ids": IDS, "shard_keys": SHARD_KEYS}
        self._process = subprocess.Popen(
            [sys.executable, str(SUPPORT / "job_runner.py")],
            # Without the dev mode, whose remarks on slow steps are no faults of the job.
            env={name: value for name, value in os.environ.items() if name != "PYTHONDEVMODE"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def start(self, out: Path, **options: Any) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({**self._asked, "out": str(out), **options}) + "\n")
        self._process.stdin.flush()
        return int(self._said()["pid"])

    def _said(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def ended(self) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._said()["code"])

    def run(self, out: Path, **options: Any) -> int:
        self.start(out, **options)
        return self.ended()

    def killed(self, out: Path, after: float, **options: Any) -> int:
        pid = self.start(out, **options)
        time.sleep(after)
        os.kill(pid, signal.SIGKILL)
        return self.ended()

    def killed_at_work(self, out: Path, **options: Any) -> int:
        """Kill it as soon as it has put a shard on the disk."""
        pid = self.start(out, **options)
        ends = time.monotonic() + 60
        while not any((out / "shards").glob("*")) and time.monotonic() < ends:
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)
        return self.ended()

    def close(self) -> str:
        _, err = self._process.communicate(timeout=10)
        return err


def contents(out: Path) -> dict[str, Any]:
    """Every file byte for byte; the manifest without what may differ, the database by its rows."""
    held: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_file() and name != ".lock" and not name.startswith("state.sqlite"):
            held[name] = path.read_bytes()
    if "failures.jsonl" in held:
        # How long it took, and how often it was asked for: a run after a kill asks once more, and counts that too.
        lines = map(json.loads, held["failures.jsonl"].splitlines())
        held["failures.jsonl"] = [
            {**line, "message": without_attempts(line["message"]), "attempts": 0} for line in lines
        ]
    if "manifest.json" in held:
        manifest = json.loads(held["manifest.json"])
        held["manifest.json"] = json.dumps({name: manifest[name] for name in manifest if name not in VOLATILE})
    with sqlite3.connect(out / "state.sqlite") as database:
        for table in ("keys", "shards", "failures"):
            held[table] = database.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
    database.close()
    held["failures"] = [row[:2] for row in held["failures"]]  # the rest is in failures.jsonl
    return held


def without_attempts(message: str) -> str:
    message = re.sub(r"\(\d+ attempts? in [0-9.]+ s", "(attempts", message)
    return re.sub(r" \(\d+ attempts in all, with those of earlier calls\)|; request id r-?\d+", "", message)
