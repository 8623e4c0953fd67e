"""A client that openapi-python-client makes of `openapi.yaml` during a run: httpx and attrs, points as float."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from benchmarks.clients._loops import AsyncLoop
from benchmarks.pages import AUTHORIZATION, QUERY, SCOPE, SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.processes import Children

__all__ = ["PACKAGE", "Reader", "generate"]

PACKAGE = "generated_capillary"
_DESCRIPTION = Path(__file__).parent.parent / "openapi.yaml"


def generate(children: Children, folder: Path) -> None:
    """Make the client below a folder.

    Raises:
        BenchmarkError: The generator failed.
    """
    settings = folder / "generator.yaml"
    settings.write_text("post_hooks: []\n")
    command = (
        "from openapi_python_client.cli import app; app(['generate', "
        f"'--path', {str(_DESCRIPTION)!r}, '--config', {str(settings)!r}, '--meta', 'none', "
        f"'--output-path', {str(folder / PACKAGE)!r}, '--fail-on-warning'], standalone_mode=False); print('true')"
    )
    children.said(children.start(sys.executable, "-c", command))


class Reader(AsyncLoop):
    """The generated function of the endpoint, called page by page."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        sys.path.insert(0, options["generated"])
        self._url = url
        self._client_class = import_module(f"{PACKAGE}.client").Client
        self._ask = import_module(f"{PACKAGE}.api.points_allocation.list_allocations_by_expiry").asyncio
        start, end = (self._day(QUERY[name]) for name in ("expiry_date_start", "expiry_date_end"))
        self._query: dict[str, Any] = {**QUERY, "expiry_date_start": start, "expiry_date_end": end}

    @staticmethod
    def _day(text: object) -> Any:
        from datetime import date  # noqa: PLC0415

        return date.fromisoformat(str(text))

    async def __aenter__(self) -> Self:
        headers = {"Authorization": AUTHORIZATION, **SCOPE}
        self._client = self._client_class(base_url=self._url, headers=headers, httpx_args={"trust_env": False})
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.__aexit__(None, None, None)

    async def page(self, entity_id: int, number: int) -> Sequence[Any]:
        """One page."""
        rows: list[Any] = await self._ask(
            client=self._client, entity_id=entity_id, page=number, count=SIZE, **self._query
        )
        return rows
