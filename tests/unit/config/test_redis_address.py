"""`Rate(shared=...)`: which addresses are one, and where their passwords never are."""

import copy
import pickle
import traceback
from typing import Any

import attrs
import pytest

from capillary_async import InvalidRequestError, Limits, Rate
from capillary_async._redis_address import RedisAddress
from capillary_async._transport.redis_rate import rate_key

SECRET = "s3kret/p@ss"
URL = "redis://ann:s3kret%2Fp%40ss@redis.internal:6380/2"


def options(url: str) -> dict[str, Any]:
    address = Rate(1, 1, url).shared
    assert isinstance(address, RedisAddress)
    return address.options()


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://localhost", "redis://localhost:6379/0"),
        ("redis://localhost/", "redis://localhost:6379/0"),
        ("rediss://r.example.com:7000/15", "rediss://r.example.com:7000/15"),
        ("redis://:pw@[::1]:6379/1", "redis://[::1]:6379/1"),
        (URL, "redis://redis.internal:6380/2"),
    ],
)
def test_an_address_is_shown_without_user_and_password(url: str, text: str) -> None:
    """With its port and database."""
    assert Rate(1, 1, shared=url).shared == text


def test_the_client_gets_the_password_as_it_is() -> None:
    """Unquoted."""
    found = options(URL)
    assert (found["username"], found["password"], found["host"], found["port"], found["db"], found["ssl"]) == (
        "ann", SECRET, "redis.internal", 6380, 2, False,
    )  # fmt: skip
    assert options("rediss://:x@h")["ssl"] is True
    assert options("redis://:x@h")["username"] is None


@pytest.mark.parametrize(
    "value",
    [
        "", "localhost:6379", "http://localhost", "redis://", "redis:///0", "redis://h:0", "redis://h:99999",
        "redis://h:x", "redis://h/one", "redis://h/0/1", "redis://h/-1", "redis://h/99999999999", "redis://h?db=1",
        "redis://h#1", "redis://ann@h", "redis://:p w@h", "redis://:pä@h", "redis://:%FF@h", "unix:///tmp/redis",
        "redis://h/\u0661", 6379, b"redis://h", ["redis://h"], True, object(), "redis://[::1", " redis://h",
    ],
)  # fmt: skip
def test_anything_else_is_refused_unseen(value: Any) -> None:
    """The message names the argument and shows nothing of the value."""
    with pytest.raises(InvalidRequestError, match=r"Rate\.shared takes the URL of a Redis") as caught:
        Rate(200, 1, shared=value)
    assert caught.value.argument == "shared"


def test_a_refused_address_is_in_no_frame_of_ours() -> None:
    """Tracebacks with locals end in log files."""
    with pytest.raises(InvalidRequestError) as caught:
        Rate(200, per=1, shared="redis://:s3kret@host:port")
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)][1:]
    assert frames
    assert not [frame for frame in frames if "s3kret" in repr(frame.f_locals)]
    assert "s3kret" not in "".join(traceback.format_exception(caught.value)).split("Traceback")[0] + str(caught.value)


def test_the_password_is_shown_nowhere() -> None:
    """Reprs, texts, attributes, dumps, and in no pickle."""
    rate = Rate(200, 1, URL)
    shown = [
        repr(rate),
        str(rate),
        repr(Limits(rate=rate)),
        str(attrs.asdict(rate)),
        f"{rate.shared}",
        repr(rate.shared),
    ]
    shown += [repr(attrs.astuple(Limits(rate=rate))), str(rate.shared) + "", f"{rate.shared!s}"]
    assert not [text for text in shown if "s3kret" in text or "ann" in text]
    for value in (rate, rate.shared, Limits(rate=rate)):
        with pytest.raises(TypeError, match="is not pickled"):
            pickle.dumps(value)


def test_copies_keep_the_password() -> None:
    """`attrs.evolve` and deep copies too."""
    rate = Rate(200, 1, URL)
    for made in (attrs.evolve(rate, permits=100), copy.copy(rate), copy.deepcopy(Limits(rate=rate)).rate):
        assert made is not None
        assert isinstance(made.shared, RedisAddress)
        assert made.shared.options()["password"] == SECRET
    assert attrs.evolve(rate, permits=100).permits == 100
    plain = Rate(200, 1, "redis://h/3")
    again = pickle.loads(pickle.dumps(plain))  # noqa: S301 - our own
    assert again == plain
    assert again.shared.options()["db"] == 3


def test_the_repr_of_a_plain_rate_stays() -> None:
    """Without `shared`."""
    assert repr(Rate(100, per=60)) == "Rate(permits=100, per=60)"
    assert repr(Rate(200, 1, URL)) == "Rate(permits=200, per=1, shared='redis://redis.internal:6380/2')"


def test_one_key_for_each_cluster_and_identity() -> None:
    """However the URL is written; the identity is in it as a digest."""
    key = rate_key("https://eu.api.example.com", "till.one")
    assert key.startswith("capillary-async:rate:eu.api.example.com:")
    assert "till" not in key
    same = ("https://EU.api.example.com", "https://eu.api.example.com:443", "https://eu.api.example.com./")
    assert {rate_key(url, "till.one") for url in same} == {key}
    others = (("https://eu.api.example.com", "till.two"), ("https://us.api.example.com", "till.one"))
    others += (("https://eu.api.example.com/v2", "till.one"), ("https://eu.api.example.com:8443", "till.one"))
    assert len({rate_key(*other) for other in others} | {key}) == 5
