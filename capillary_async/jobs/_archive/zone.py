"""The server's time zone of an export, as its archive keeps it: a name, or an offset.

Invariant: a zone that is kept is read back as the same zone; any other is refused before anything is sent.
Used by `ExportRun` and by the replay.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from capillary_async import InvalidRequestError
from capillary_async.jobs._common.errors import JobError

if TYPE_CHECKING:
    from capillary_async.jobs._dataset.state import State

__all__ = ["zone_facts", "zone_of"]


def zone_facts(zone: tzinfo | None) -> dict[str, Any]:
    """What the state keeps beside the name of a zone: the seconds of one that has the same offset at all times.

    Raises:
        InvalidRequestError: It has neither an offset nor a name by which it is found again.
    """
    offset = None
    if zone is not None:
        with suppress(Exception):  # a class of the user's own may need a time
            offset = zone.utcoffset(None)
    if offset is not None:
        return {"zone_offset": offset.total_seconds()}
    if zone is not None and _named(str(zone)) is None:
        raise InvalidRequestError(
            f"with archive=, server_timezone takes a fixed offset or a zone's name such as 'Asia/Kolkata', got "
            f"{str(zone)[:100]!r}, which a replay does not find",
            argument="server_timezone",
        )
    return {}


def zone_of(state: State) -> tzinfo | None:
    """The zone that an export was made with.

    Raises:
        JobError: This machine has no zone of its name.
    """
    name, offset = state.get("server_timezone"), state.get("zone_offset")
    if offset is not None:
        return timezone(timedelta(seconds=offset))
    if name is None:
        return None
    zone = UTC if name == "UTC" else _named(name)
    if zone is None:
        raise JobError(f"this machine has no time zone {name[:100]!r}, which the export was made with: install tzdata")
    return zone


def _named(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
