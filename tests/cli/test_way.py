"""`--proxy`, `--ca-file`, `--client-cert` and `CAPILLARY_PROXY`: the way from the command line to the server."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from support.cert_server import demanding
from support.environment import PASSWORD, USERNAME, name_cluster
from support.proxy import Proxy

from capillary_async.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from capillary_async.sandbox import Sandbox

SECRET = "pr0xy-p4ssword"


@contextmanager
def running(proxy: Proxy) -> Iterator[Proxy]:
    """The proxy in a thread, since the command has the loop of this one."""
    ready, stop = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        async with proxy:
            loops.append(asyncio.get_running_loop())
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    ready.wait(5)
    try:
        yield proxy
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(5)


@pytest.fixture
def cluster(capillary_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """A cluster that the environment names."""
    name_cluster(monkeypatch, capillary_sandbox.url, capillary_sandbox.username, capillary_sandbox.password)
    return capillary_sandbox


@pytest.mark.parametrize("way", ["option", "variable"])
def test_a_proxy(
    way: str, cluster: Sandbox, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A password of it is in the variable, where no list of processes shows it."""
    with running(Proxy("ann", SECRET if way == "variable" else "")) as proxy:
        if way == "variable":
            monkeypatch.setenv("CAPILLARY_PROXY", proxy.url.replace("//", f"//ann:{SECRET}@"))
        options = ["--proxy", proxy.url] if way == "option" else []
        assert main(["events", "5", *options]) in (0, 2)
        assert proxy.seen
        assert proxy.seen[0].startswith(f"GET {cluster.url}/v2/customers/5/")
    assert SECRET not in "".join(capfd.readouterr())


def test_a_wrong_password_of_a_proxy(
    cluster: Sandbox, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It names the proxy and not the password."""
    with running(Proxy("ann", "another")) as proxy:
        monkeypatch.setenv("CAPILLARY_PROXY", proxy.url.replace("//", f"//ann:{SECRET}@"))
        assert main(["events", "5", "6"]) != 0
    _, err = capfd.readouterr()
    assert f"the proxy {proxy.url} wants a user name and password" in err
    assert SECRET not in err
    assert cluster.requests == 0


def test_a_sandbox_needs_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(Proxy()) as proxy:
        monkeypatch.setenv("CAPILLARY_PROXY", proxy.url)
        assert main(["events", "--sandbox", "--customers", "2", "--quiet"]) == 0
        assert proxy.seen == []


def test_a_client_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Both options, and what is said without the second."""
    with demanding(drains=True) as server:
        name_cluster(monkeypatch, server.url, USERNAME, PASSWORD)
        (tmp_path / "ca.pem").write_bytes(server.authority.cert_pem.bytes())
        issued = server.clients.issue_cert("client@example.com")
        (tmp_path / "client.pem").write_bytes(issued.private_key_and_cert_chain_pem.bytes())
        options = ["--attempts", "1", "--ca-file", str(tmp_path / "ca.pem")]
        assert main(["events", "5", *options]) != 0
        assert "the client certificate of ssl_context=" in capfd.readouterr().err
        assert server.heads == []
        main(["events", "5", *options, "--client-cert", str(tmp_path / "client.pem")])
        assert len(server.heads) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--proxy", f"http://ann:{SECRET}@proxy:3128"], "--proxy takes a URL without user name and password"),
        (["--proxy", "proxy:3128"], "proxy takes a URL such as"),
        (["--ca-file", "/no/such"], "--ca-file: cannot read /no/such: FileNotFoundError"),
        (["--ca-file", "{text}"], "does not hold certificates in PEM"),
        (["--client-cert", "/no/such"], "--client-cert: cannot read /no/such"),
        (["--client-cert", "{text}"], "does not hold a certificate and its key in PEM, not encrypted"),
        (["--client-cert", "{locked}"], "not encrypted"),
    ],
)
@pytest.mark.usefixtures("cluster")
def test_what_is_wrong_is_named(
    options: list[str], words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """An encrypted key does not ask for its password on the terminal."""
    (tmp_path / "text").write_text("no certificate")
    (tmp_path / "locked").write_bytes(_locked())
    names = {name: str(tmp_path / name) for name in ("text", "locked")}
    assert main(["events", "5", *(option.format(**names) for option in options)]) == 1
    err = capfd.readouterr().err
    assert words in err
    assert SECRET not in err


def _locked() -> bytes:
    import trustme
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    issued = trustme.CA().issue_cert("client@example.com")
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"locked"))
    return locked + issued.cert_chain_pems[0].bytes()
