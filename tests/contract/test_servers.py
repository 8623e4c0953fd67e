"""The servers' own care: what is missing is said, what was started is ended."""

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import servers

pytestmark = pytest.mark.skipif(os.name == "nt", reason="servers are ended by their process group")

HERE = Path(__file__).parent
ANSWERING = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1"]
# Starts a server on a leash, says so, and waits to be killed.
HOLDER = f"""
import subprocess, sys
leash = subprocess.Popen([sys.executable, {str(HERE / "leash.py")!r}, *sys.argv[1:]], stdin=subprocess.PIPE)
print(leash.pid, flush=True)
leash.wait()
"""


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        httpx.get(f"http://127.0.0.1:{port}/", trust_env=False, timeout=2)
    except httpx.TransportError:
        return False
    return True


def within(seconds: float, port: int, *, up: bool) -> bool:
    """Whether it is so in time."""
    end = time.monotonic() + seconds
    while answers(port) is not up and time.monotonic() < end:
        time.sleep(0.05)
    return answers(port) is up


def test_a_server_runs_as_long_as_its_block() -> None:
    """Also when the block raises, as on Ctrl-C."""
    ports: list[int] = []

    def interrupted() -> None:
        with servers.serving(lambda port: [*ANSWERING, str(port)], "/") as url:
            ports.append(int(url.rpartition(":")[2]))
            assert answers(ports[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not answers(ports[0])


def test_a_killed_test_run_takes_its_servers_along() -> None:
    """SIGKILL leaves no time for any fixture."""
    port = servers.free_port()
    command = [sys.executable, "-c", HOLDER, *ANSWERING, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as holder:
        assert within(20, port, up=True)
        holder.kill()
    assert within(20, port, up=False)


def test_a_server_that_does_not_heed_sigterm_is_killed() -> None:
    """After two seconds."""
    port = servers.free_port()
    deaf = (
        "import signal, http.server as serving; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"serving.HTTPServer(('127.0.0.1', {port}), serving.SimpleHTTPRequestHandler).serve_forever()"
    )
    with leashed(deaf) as leash:
        assert within(20, port, up=True)
        servers.end(leash)
    assert not answers(port)


def leashed(code: str) -> "subprocess.Popen[bytes]":
    """Python code on a leash."""
    command = [sys.executable, str(HERE / "leash.py"), sys.executable, "-c", code]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)


def test_a_server_that_does_not_start_says_its_last_words() -> None:
    """A port in use, another version of Node: its own words tell."""
    command = [sys.executable, "-c", "print('no luck', flush=True); exit(3)"]
    with (
        pytest.raises(pytest.fail.Exception, match=r"ended with 3; its last words: no luck"),
        servers.serving(lambda _: command, "/"),
    ):
        pass


@pytest.mark.parametrize("name", ["node", "java"])
def test_a_missing_program_is_a_skip_that_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Locally."""
    monkeypatch.delenv("CAPILLARY_CONTRACT", raising=False)
    monkeypatch.setattr(servers, "MISSED", set())
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(pytest.skip.Exception, match=rf"needs {name}, .*npm install"):
        servers.program(name, "A server")


def test_a_missing_package_is_a_failure_in_ci(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Else nobody would notice that nothing was tested."""
    monkeypatch.setenv("CAPILLARY_CONTRACT", "required")
    monkeypatch.setenv("CAPILLARY_CONTRACT_MODULES", str(tmp_path))
    with pytest.raises(pytest.fail.Exception, match="npm install"):
        servers.package("wiremock", "build", "wiremock-standalone-*.jar")
