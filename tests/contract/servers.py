"""Prism and WireMock as processes of the tests: found, started on a free port, waited for, and ended.

Invariant: a server that is missing is a skip that says how to install it, and a failure where
`CAPILLARY_CONTRACT=required` is set, as `.ci/run` does; a server that was started never outlives the tests. For the
fixtures of `contract_fixtures.py`.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx
import pytest
import yaml

HERE = Path(__file__).parent
CONTRACT = HERE / "openapi.yaml"
# Read once, and by libyaml where PyYAML has it: its own reader takes a second.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DOCUMENT: dict[str, Any] = yaml.load(CONTRACT.read_text(), _LOADER)  # noqa: S506 - both loaders are safe
INSTALL = "npm install --no-package-lock --prefix tests/contract"
PATIENCE = 40  # seconds to start
LAST_WORDS = 2_000
MISSED: set[str] = set()
"""Why tests were skipped, for the summary."""


def required() -> bool:
    """Whether a missing server is a failure."""
    return os.environ.get("CAPILLARY_CONTRACT") == "required"


def missing(text: str) -> None:
    """Skip the test, or fail it where nothing may be missing."""
    if required():
        pytest.fail(f"{text} (nothing may be skipped where CAPILLARY_CONTRACT=required is set)", pytrace=False)
    MISSED.add(text)
    pytest.skip(text)


def program(name: str, what: str) -> str:
    """The path of a program of this machine."""
    if os.name == "nt":
        missing(f"{what} is ended by its process group, which Windows does not have: use WSL")
    found = shutil.which(name)
    if found is None:
        missing(f"{what} needs {name}, which is not installed: install {what_to_install(name)}, then {INSTALL}")
    return str(found)


def what_to_install(name: str) -> str:
    """In words."""
    return {"node": "Node 18.20 or newer", "java": "a Java runtime from 11 on"}[name]


def package(*parts: str) -> Path:
    """A file of an npm package, below `CAPILLARY_CONTRACT_MODULES` or beside this file."""
    modules = Path(os.environ.get("CAPILLARY_CONTRACT_MODULES") or HERE / "node_modules")
    found = modules.joinpath(*parts[:-1])
    files = sorted(found.glob(parts[-1])) if found.is_dir() else []
    if not files:
        missing(f"{'/'.join(parts)} is not below {modules}: install it with {INSTALL}")
    return files[0]


def prism_command(port: int, *options: str, document: Path = CONTRACT) -> list[str]:
    """Prism, which validates requests and answers, on a port."""
    node = program("node", "Prism")
    cli = package("@stoplight", "prism-cli", "dist", "index.js")
    where = ["--host", "127.0.0.1", "--port", str(port), "--errors", "--verboseLevel", "warn", *options]
    return [node, str(cli), "mock", *where, str(document)]


def wiremock_command(port: int) -> list[str]:
    """WireMock on a port."""
    java = program("java", "WireMock")
    jar = package("wiremock", "build", "wiremock-standalone-*.jar")
    quick = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m"]
    where = ["--bind-address", "127.0.0.1", "--port", str(port), "--root-dir", "."]
    return [java, *quick, "-jar", str(jar), *where, "--disable-banner", "--disable-extensions-scanning"]


@contextmanager
def serving(make: Callable[[int], Sequence[str]], ready: str) -> Iterator[str]:
    """The URL of a server, for as long as the block runs.

    Args:
        make: The command for a port.
        ready: A path that is answered, however, once the server is ready.
    """
    port = free_port()
    command = make(port)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        leashed = [sys.executable, str(HERE / "leash.py"), *command]
        leash = subprocess.Popen(leashed, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=folder)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(url + ready, leash, lambda: last_words(log))
            yield url
        finally:
            end(leash)


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(url: str, process: "subprocess.Popen[bytes]", said: Callable[[], str]) -> None:
    """Return once the server answers; fail with its own words where it does not."""
    end_of_patience = time.monotonic() + PATIENCE
    with httpx.Client(trust_env=False, timeout=5) as client:
        while process.poll() is None and time.monotonic() < end_of_patience:
            with contextlib.suppress(httpx.TransportError):
                client.get(url)
                return
            time.sleep(0.1)
    ended = "" if process.poll() is None else f" and ended with {process.returncode}"
    pytest.fail(f"no answer at {url} within {PATIENCE} s{ended}; its last words: {said()}", pytrace=False)


def last_words(log: IO[bytes]) -> str:
    """The end of what the server printed."""
    log.seek(0)
    return log.read().decode(errors="replace")[-LAST_WORDS:]


def end(leash: "subprocess.Popen[bytes]") -> None:
    """Let go of the leash: the server ends, and by force when it does not."""
    assert leash.stdin is not None
    leash.stdin.close()
    try:
        leash.wait(10)
    except subprocess.TimeoutExpired:
        leash.kill()
        leash.wait()
