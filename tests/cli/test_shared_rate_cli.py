"""`--rate` with `--shared-rate` or `CAPILLARY_SHARED_RATE`: the rate of a command, kept by Redis."""

import pytest
from support import redis_server
from support.environment import name_cluster

from capillary_async.cli import main
from capillary_async.sandbox import Sandbox

SECRET = "s3kret-of-redis"


@pytest.fixture
def cluster(capillary_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """A cluster that the environment names."""
    monkeypatch.delenv("CAPILLARY_SHARED_RATE", raising=False)
    name_cluster(monkeypatch, capillary_sandbox.url, capillary_sandbox.username, capillary_sandbox.password)
    return capillary_sandbox


@pytest.mark.parametrize("way", ["option", "variable"])
def test_a_command_takes_turns(way: str, cluster: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password of the Redis is in the variable, where no list of processes shows it."""
    import redis

    words = [] if way == "option" else ["--requirepass", SECRET]
    with redis_server.running(0, *words) as port:
        if way == "variable":
            monkeypatch.setenv("CAPILLARY_SHARED_RATE", f"redis://:{SECRET}@127.0.0.1:{port}/0")
        options = ["--shared-rate", f"redis://127.0.0.1:{port}/0"] if way == "option" else []
        assert main(["events", "5", "--rate", "50/1", "--quiet", *options]) in (0, 2)
        with redis.Redis(port=port, password=None if way == "option" else SECRET) as client:
            assert len(client.keys("capillary-async:rate:127.0.0.1:*")) == 1
    assert cluster.requests


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--shared-rate", "redis://localhost"], "--shared-rate goes with --rate"),
        (["--rate", "9/1", "--shared-rate", "localhost:6379"], "--shared-rate takes the URL of a Redis"),
        (["--rate", "9/1", "--shared-rate", f"redis://:{SECRET}@h"], "set CAPILLARY_SHARED_RATE"),
        (["--rate", "0/1", "--shared-rate", "redis://h"], "--rate takes requests/seconds"),
        (["--rate", "9/1"], "CAPILLARY_SHARED_RATE takes the URL of a Redis"),
    ],
)
def test_invalid_options(
    options: list[str],
    text: str,
    cluster: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Each is refused by its own name, and nothing is sent."""
    monkeypatch.setenv("CAPILLARY_SHARED_RATE", f"redis://:{SECRET} @h")
    assert main(["events", "5", *options]) == 1
    _, err = capfd.readouterr()
    assert text in err
    assert SECRET not in err
    assert cluster.requests == 0


def test_a_sandbox_of_the_command_needs_no_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is of the cluster."""
    monkeypatch.setenv("CAPILLARY_SHARED_RATE", "redis://127.0.0.1:1/0")
    assert main(["events", "--sandbox", "--customers", "2", "--rate", "100/1", "--quiet"]) == 0
