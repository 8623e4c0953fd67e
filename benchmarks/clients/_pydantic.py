"""The record as a pydantic model, for the clients that use pydantic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from capillary_async.models import PointsAllocation

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["allocation_model"]


def allocation_model(base: type[BaseModel]) -> Any:
    """All 27 members with the SDK's own types, points as Decimal, each of them optional."""
    from pydantic import create_model  # noqa: PLC0415 - one of several peers

    fields: dict[str, Any] = {one.name: (one.type, None) for one in attrs.fields(PointsAllocation)}
    return create_model("Allocation", __base__=base, **fields)
