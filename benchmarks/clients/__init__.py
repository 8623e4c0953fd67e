"""The clients that read side by side, each in a module of its own: a missing package leaves out one of them alone.

Invariant: a client reads as its own documentation tells a user to, and gives out every record of the same pages.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["FLOOR", "HTTPX", "KEPT", "OURS", "PEERS", "Peer", "find", "left_out"]


@frozen
class Peer:
    """A client of the comparison.

    Attributes:
        name: On the command line.
        title: In the table.
        where: Module and class, below `benchmarks.clients`.
        packages: Importable names that it needs.
        install: What `pip install` takes for them.
        share: The part of the work it does in (a) and (c), since slow ones would keep the others waiting; figures are
            per record and per request.
        typed: Whether points come out as Decimal.
    """

    name: str
    title: str
    where: str
    packages: tuple[str, ...] = ()
    install: str = ""
    share: float = 1.0
    typed: bool = True

    def missing(self) -> tuple[str, ...]:
        """The packages that are not installed."""
        return tuple(package for package in self.packages if not _installed(package))


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False


OURS = Peer("ours", "capillary-async", "ours:Records")
FLOOR = Peer("floor", "floor: aiohttp + msgspec", "bare:Floor")
KEPT = Peer("kept-floor", "floor with kept buffers", "bare:KeptFloor")
HTTPX = Peer("httpx", "httpx + pydantic", "pydantic_httpx:Reader", ("httpx", "pydantic"), "httpx pydantic", share=0.25)
OPENAI = Peer("openai", "generated SDK's runtime (openai)", "openai_base:Reader", ("openai",), "openai", share=0.05)
DLT = Peer("dlt", "dlt REST client", "dlt_rest:Reader", ("dlt",), "dlt", share=0.1, typed=False)

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        OURS,
        Peer("pages", "capillary-async, .pages()", "ours:Pages"),
        FLOOR,
        KEPT,
        Peer("int-floor", "floor with int or float points", "bare:IntFloor", typed=False),
        Peer("orjson", "aiohttp + orjson dicts", "bare:Orjson", ("orjson",), "orjson", typed=False),
        HTTPX,
        OPENAI,
        DLT,
        Peer("requests", "requests, threads", "requests_threads:Reader", ("requests",), "requests", share=0.1),
        Peer(
            "generated", "openapi-python-client", "generated:Reader", ("openapi_python_client",),
            "openapi-python-client", share=0.1, typed=False,
        ),
    )
}  # fmt: skip


def find(names: Iterable[str]) -> list[Peer]:
    """The peers of these names, in the order of the table.

    Raises:
        KeyError: There is none of a name.
    """
    wanted = {PEERS[name].name for name in names}
    return [peer for peer in PEERS.values() if peer.name in wanted]


def left_out(peers: Iterable[Peer]) -> list[str]:
    """A line for each peer that is not installed: what is missing and how to install it."""
    return [
        f"left out: {peer.name} ({', '.join(missing)} not installed): pip install {peer.install}, "
        "or 'capillary-async[bench]' for all peers"
        for peer in peers
        if (missing := peer.missing())
    ]
