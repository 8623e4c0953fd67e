"""Which server answers: nginx with the recorded pages where it is installed, else the raw server; both on loopback.

Invariant: a system's own nginx is never touched. Ours runs in the foreground, in one process, from a configuration of
its own in a temporary folder, and ends with the run.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, field

from benchmarks.pages import NO_ROWS, PATH, list_id, list_page
from benchmarks.processes import BenchmarkError
from benchmarks.server import COUNTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.processes import Children

__all__ = ["RAW", "Server", "nginx_version", "raw_server", "recorded_server"]

RAW = "raw asyncio server"
_TRIES = 5  # ports, where another process takes a free one first
_PATIENCE = 10.0  # seconds for a server to begin
_NGINX = """\
daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  default_type application/json; sendfile on; tcp_nodelay on; gzip off; etag off;
  keepalive_timeout 300s; keepalive_requests 100000000;
  open_file_cache max=20000 inactive=600s; open_file_cache_valid 600s;
  map $arg_entity_id $folder {{ "~^383(?<list>[0-9]+)$" lists/$list; default nobody; }}
  server {{
    listen 127.0.0.1:{port}; root {folder}; add_header X-CAP-REQUEST-ID benchmark;
    location = {path} {{ try_files /$folder/$arg_page.json /empty.json =404; }}
    location = {counts} {{ {status} }}
    location / {{ return 404; }}
  }}
}}
"""


@define
class Server:
    """A server under way.

    Attributes:
        url: Its base URL.
        name: What it is, with its version.
        beyond: Requests behind a last page so far, as of the last look; only the raw server counts them.
    """

    url: str
    name: str
    beyond: int = 0
    _looks: int = field(default=0, init=False)

    def requests(self) -> int | None:
        """Requests so far; None where an nginx without `stub_status` does not count them."""
        text = self._counts()
        if text.startswith("{"):
            counts = json.loads(text)
            self.beyond = counts["beyond"]
            return int(counts["requests"])
        self._looks += 1
        found = re.search(r"requests\s+\d+ \d+ (\d+)", text)
        return int(found[1]) - self._looks if found else None

    def _counts(self) -> str:
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=_PATIENCE)
        try:
            connection.request("GET", COUNTS)
            return connection.getresponse().read().decode()
        finally:
            connection.close()


def _nginx() -> str | None:
    return shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"]))


def nginx_version() -> str | None:
    """`nginx/1.27.0` where it is installed."""
    path = _nginx()
    if path is None:
        return None
    told = subprocess.run([path, "-v"], capture_output=True, text=True, check=False).stderr
    return told.strip().removeprefix("nginx version: ") or "nginx"


@contextmanager
def raw_server(children: Children, *, latency: float = 0.0, port: int = 0) -> Iterator[Server]:
    """The raw server, in its own process.

    Raises:
        BenchmarkError: The port is in use.
    """
    child = children.python("benchmarks.server", "--port", str(port), "--latency", str(latency))
    try:
        line = child.stdout.readline() if child.stdout is not None else ""
        told = json.loads(line or "{}")
        if "port" not in told:
            raise _in_use(port, told.get("error") or "the raw server did not start")
        yield Server(f"http://127.0.0.1:{told['port']}", RAW)
    finally:
        children.end(child)


def _in_use(port: int, why: str) -> BenchmarkError:
    if not port:
        return BenchmarkError(f"no server: {why}")
    return BenchmarkError(
        f"port {port} cannot be used: {why}; choose another with --port, or leave it out for a free one"
    )


@contextmanager
def recorded_server(children: Children, pages: int, *, nginx: bool, port: int = 0) -> Iterator[Server]:
    """An nginx over a list of `pages` pages; the raw server where `nginx` is false.

    Raises:
        BenchmarkError: The port is in use, or nginx does not start.
    """
    version, path = nginx_version(), _nginx()
    if not nginx or version is None or path is None:
        with raw_server(children, port=port) as server:
            yield server
        return
    with tempfile.TemporaryDirectory(prefix="capillary-bench-") as folder:
        _record(Path(folder), pages)
        status = "stub_status;" if _counts_requests(path) else "return 204;"
        with _nginx_at(children, path, Path(folder), status, port) as url:
            yield Server(url, version)


def _record(folder: Path, pages: int) -> None:
    """Write the pages where nginx finds them by the arguments of the query."""
    (folder / "empty.json").write_bytes(NO_ROWS)
    listed = folder / "lists" / f"{pages:06d}"
    listed.mkdir(parents=True)
    for number in range(1, pages + 1):
        (listed / f"{number}.json").write_bytes(list_page(list_id(pages), number))
    for path in (folder, *folder.rglob("*")):  # nginx may run its worker as another user
        path.chmod(0o755 if path.is_dir() else 0o644)


def _counts_requests(path: str) -> bool:
    told = subprocess.run([path, "-V"], capture_output=True, text=True, check=False).stderr
    return "stub_status" in told


@contextmanager
def _nginx_at(children: Children, path: str, folder: Path, status: str, port: int) -> Iterator[str]:
    """An nginx that answers, on the port given or on a free one."""
    why = ""
    for _ in range(1 if port else _TRIES):
        chosen = port or _free_port()
        text = _NGINX.format(folder=folder, port=chosen, path=PATH, counts=COUNTS, status=status)
        (folder / "nginx.conf").write_text(text)
        child = children.start(path, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf"))
        try:
            why = _complaint(child, chosen)
            if not why:
                yield f"http://127.0.0.1:{chosen}"
                return
        finally:
            children.end(child)
        if "in use" not in why:
            raise BenchmarkError(f"nginx does not start: {why}; use --server raw")
    raise _in_use(port, why)


def _complaint(child: subprocess.Popen[str], port: int) -> str:
    """Wait until our nginx answers: an empty text; or what it said when it ended."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if child.poll() is not None:
            said = child.stderr.read().strip() if child.stderr is not None else ""
            return next((line for line in said.splitlines() if "emerg" in line), said) or "it ended at once"
        if _is_ours(port):
            return ""
        time.sleep(0.02)
    return "it does not answer"


def _is_ours(port: int) -> bool:
    """Whether the answer bears our mark: while an nginx that cannot bind tries again, another server answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", COUNTS)
        return connection.getresponse().getheader("X-CAP-REQUEST-ID") == "benchmark"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
