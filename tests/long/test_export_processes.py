"""`export --processes` and shards on a cluster: kills and signals leave no process, and the same command goes on."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("pyarrow")

import yaml
from support.job_server import QUERY, Customers
from support.paths import ROOT
from support.processes import processes_of

from capillary_async import jobs

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.long, pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")]

COMMAND = [sys.executable, "-c", "from capillary_async.cli import main; raise SystemExit(main())"]
QUERY_OPTIONS = [word for name, value in QUERY.items() for word in (f"--{name.replace('_', '-')}", str(value))]
IDS = 400


class Export:
    """One export by two processes, whose parent a test starts again and again."""

    def __init__(self, server: Customers, folder: Path) -> None:
        self.server, self.folder, self.out = server, folder, folder / "out"
        self.mark = f"PROCESSES_TEST={folder.name}-{os.getpid()}"
        (folder / "ids.txt").write_text("".join(f"{customer}\n" for customer in range(1, IDS + 1)))
        name, _, value = self.mark.partition("=")
        own = {name: value, "CAPILLARY_BASE_URL": server.url, "CAPILLARY_USERNAME": "t", "CAPILLARY_PASSWORD": "p"}
        kept = {key: text for key, text in os.environ.items() if not key.startswith("CAPILLARY_")}
        self.environment = {**kept, **own}

    def start(self) -> subprocess.Popen[str]:
        words = ["export", "allocations", "--ids", str(self.folder / "ids.txt"), "--out", str(self.out)]
        words += [*QUERY_OPTIONS, "--processes", "2", "--shard-keys", "10", "--concurrency", "4", "--grace", "1"]
        return subprocess.Popen([*COMMAND, *words], env=self.environment, stderr=subprocess.PIPE, text=True)

    def children(self, parent: subprocess.Popen[str]) -> list[int]:
        """The processes that the parent started."""
        return list(map(int, Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()))

    def wait_for_files(self) -> None:
        """Until both processes have a shard on the disk."""
        ends = time.monotonic() + 60
        while len({path.parent for path in self.out.glob("shard-*/shards/part-*")}) < 2:
            assert time.monotonic() < ends
            time.sleep(0.02)

    def assert_nothing_runs(self) -> None:
        ends = time.monotonic() + 15
        while found := processes_of(self.mark):
            assert time.monotonic() < ends, found
            time.sleep(0.05)


@pytest.fixture
def export(tmp_path: Path) -> Iterator[Export]:
    with Customers(latency=0.02) as server:
        yield Export(server, tmp_path)


def ended(process: subprocess.Popen[str]) -> str:
    """What a process wrote to stderr until its end."""
    _, err = process.communicate(timeout=90)
    return err


def goes_on(export: Export) -> None:
    """The same command finishes; nothing is missing or there twice."""
    export.assert_nothing_runs()
    again = export.start()
    err = ended(again)
    assert again.returncode == 0, err
    found = asyncio.run(jobs.verify(export.out))
    assert (found.ok, found.asked, found.failed) == (True, IDS, 0), found.faults
    export.assert_nothing_runs()


def test_a_killed_child(export: Export) -> None:
    """The other one finishes; it is said which was killed."""
    parent = export.start()
    export.wait_for_files()
    os.kill(export.children(parent)[0], signal.SIGKILL)
    err = ended(parent)
    assert parent.returncode == 1, err
    assert re.search(r"process [12] was ended by signal 9; the same command goes on", err)
    goes_on(export)


def test_a_killed_parent(export: Export) -> None:
    """Its children end at once."""
    parent = export.start()
    export.wait_for_files()
    parent.kill()
    parent.wait()
    goes_on(export)
    assert parent.stderr is not None
    parent.stderr.close()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal(export: Export, number: int, code: int) -> None:
    """Shards under way are finished, and it says how to go on."""
    parent = export.start()
    export.wait_for_files()
    parent.send_signal(number)
    err = ended(parent)
    assert parent.returncode == code, err
    assert "give the same command again to go on" in err
    assert "Traceback" not in err
    goes_on(export)


def test_two_signals(export: Export) -> None:
    """End it at once."""
    parent = export.start()
    export.wait_for_files()
    parent.send_signal(signal.SIGINT)
    time.sleep(0.2)
    parent.send_signal(signal.SIGINT)
    err = ended(parent)
    assert parent.returncode == 130, err
    assert "Traceback" not in err
    goes_on(export)


def test_the_job_of_the_documentation(tmp_path: Path) -> None:
    """Each of its pods as a process, four at a time; one of them is killed and started again."""
    page = (ROOT / "docs" / "how_to" / "cluster.md").read_text()
    job = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0])
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (tmp_path / "ids.csv").write_text("customer_id\n" + "".join(f"{customer}\n" for customer in range(1, 200)))
    script = container["args"][0].replace("/data/", f"{tmp_path}/").replace("capillary-async ", '"$PYTHON" -c "$CLI" ')
    assert container["command"] == ["sh", "-c"]
    with Customers() as server:
        environment = {
            **{key: text for key, text in os.environ.items() if not key.startswith("CAPILLARY_")},
            "CAPILLARY_BASE_URL": server.url,
            "CAPILLARY_USERNAME": "till",
            "CAPILLARY_PASSWORD": "pass",
            "PYTHON": sys.executable,
            "CLI": COMMAND[-1],
        }

        def pod(index: int) -> int:
            own = {**environment, "JOB_COMPLETION_INDEX": str(index)}
            if index == 5:
                first = subprocess.Popen([*container["command"], script], env=own, stderr=subprocess.DEVNULL)
                time.sleep(1.0)
                first.kill()
                first.wait()
            return subprocess.run([*container["command"], script], env=own, capture_output=True, check=False).returncode

        with ThreadPoolExecutor(job["spec"]["parallelism"]) as pods:
            codes = list(pods.map(pod, range(job["spec"]["completions"])))
    assert codes == [0] * 16
    found = asyncio.run(jobs.verify(tmp_path / "points"))
    assert (found.ok, found.asked, len(found.folders)) == (True, 199, 16), found.faults
