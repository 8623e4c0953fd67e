"""`Route`: how requests reach the server, directly or through a proxy.

Invariant: no repr and no message shows the user name and the password of a proxy; what goes over it is the same as
without one. Made by `Pools`; read by `Wire` and `aiohttp_errors.py`.
"""

from __future__ import annotations

import base64
import os
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import proxy_bypass

from attrs import field, frozen

from capillary_async._transport.redaction import SecretStr

__all__ = ["Proxy", "Route"]

_AUTHORIZATION = "Proxy-Authorization"


@frozen(eq=False)
class Proxy:
    """A proxy: its URL without user name and password, and the header that has both; None without."""

    url: str
    authorization: SecretStr | None = None
    secrets: tuple[SecretStr, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, url: str | None) -> Proxy | None:
        """The proxy of a URL that `_validation.proxy` has checked."""
        if not url:
            return None
        parts = urlsplit(url)
        place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        if not parts.username:
            return cls(place)
        password = unquote(parts.password or "")
        pair = base64.b64encode(f"{unquote(parts.username)}:{password}".encode()).decode()
        return cls(place, SecretStr(f"Basic {pair}"), tuple(map(SecretStr, (password, parts.password or "", pair))))


@frozen(eq=False)
class Route:
    """The way to a server.

    Attributes:
        base_url: Of the server.
        proxy: The proxy; of a `client_session` its name alone, since it uses the proxy itself.
        unowned: Whether the caller's `client_session` connects.
    """

    base_url: str = ""
    proxy: Proxy | None = None
    unowned: bool = False

    @classmethod
    def of_client(cls, base_url: str, client: Any) -> Route:
        """The way of the caller's own client."""
        default: Any = getattr(client, "_default_proxy", None)
        return cls(base_url, Proxy.of(None if default is None else str(default)), unowned=True)

    @property
    def options(self) -> dict[str, Any]:
        """What aiohttp's `request` takes for it: through a tunnel, only the proxy sees its own header."""
        if self.proxy is None or self.unowned:
            return {}
        secret = self.proxy.authorization
        headers = {_AUTHORIZATION: secret} if secret is not None and self._tunnelled else None
        return {"proxy": self.proxy.url, "proxy_headers": headers}

    @property
    def headers(self) -> dict[str, str]:
        """The headers that a forwarding proxy takes off the request."""
        if self.proxy is None or self.proxy.authorization is None or self.unowned or self._tunnelled:
            return {}
        return {_AUTHORIZATION: self.proxy.authorization}

    @property
    def _tunnelled(self) -> bool:
        return self.base_url.startswith("https:")

    @property
    def hint(self) -> str:
        """What to check where there is no connection; with the variable of a proxy that is ignored."""
        if self.proxy is not None:
            return f"check proxy={self.proxy.url} and the network"
        name = "" if self.unowned else _variable(self.base_url)
        ignored = f"; {name} is set and ignored: to use a proxy, give proxy= or set CAPILLARY_PROXY" if name else ""
        return f"check base_url and the network{ignored}"


def _variable(base_url: str) -> str:
    """The variable of the environment that names a proxy for this server, empty if none does."""
    parts = urlsplit(base_url)
    if not parts.hostname or proxy_bypass(parts.netloc):
        return ""
    names = [f"{parts.scheme}_proxy", "all_proxy"]
    return next((name for plain in names for name in (plain, plain.upper()) if os.environ.get(name)), "")
