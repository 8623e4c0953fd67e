"""Days and months as the server's clock counts them.

Invariant: a day or month is that of one named zone, the same for SQL and Python; a time that no calendar has counts as
the first or last one it has. Used by `reconcile` and the reports.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from attrs import field, frozen

from capillary_async.jobs._common.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from capillary_async.jobs._dataset.manifest import Manifest

__all__ = ["QUARTER", "ServerZone", "server_zone"]

QUARTER = 900_000  # milliseconds of a quarter of an hour: every offset in use is a multiple of it
_OFFSET = re.compile(r"(?:UTC)?([+-])([01][0-9]|2[0-3]):([0-5][0-9])", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = -30_610_224_000_000, 253_402_300_799_999  # milliseconds of the years 1000 to 9999


@frozen
class ServerZone:
    """A zone, its name, and where it was taken from.

    Attributes:
        zone: The zone.
        name: For people, e.g. `Asia/Kolkata`.
        origin: `given`, `export` or `default`.
    """

    zone: tzinfo
    name: str
    origin: str = "given"
    _days: dict[int, date] = field(factory=dict[int, date], init=False, repr=False, eq=False, hash=False)

    def day_of(self, milliseconds: int) -> date:
        """Return the local day of a time in epoch milliseconds."""
        quarter = min(max(milliseconds, _FIRST), _LAST) // QUARTER
        found = self._days.get(quarter)
        if found is None:
            try:
                found = (_EPOCH + timedelta(milliseconds=quarter * QUARTER)).astimezone(self.zone).date()
            except OverflowError:  # a zone ahead of UTC has left the calendar already
                found = date.max
            self._days[quarter] = found
        return found

    def last_day_of(self, expiry: int) -> date:
        """Return the last local day on which points with this expiry can be used.

        Servers set 23:59:59 of a day; for 00:00:00 sharp the last day is the one before.
        """
        return self.day_of(expiry - 1)

    def month_of(self, expiry: int) -> str:
        """Return the local month of an expiry, e.g. `2026-01`."""
        return f"{self.last_day_of(expiry):%Y-%m}"

    @property
    def note(self) -> str:
        """The zone in words."""
        origins = {
            "given": "",
            "export": " (the zone that the export was made with)",
            "default": " (no --timezone was given and the export has none: name the cluster's zone if it is another)",
        }
        return f"{self.name}{origins[self.origin]}"


def server_zone(given: tzinfo | str | None, manifests: Iterable[Manifest]) -> ServerZone:
    """Return the zone that was given, else that of the exports, else UTC.

    Raises:
        JobError: No such zone, or the exports were made with different ones.
    """
    if given is not None:
        return ServerZone(*_zone(given))
    names = {str(manifest.server_timezone) for manifest in manifests if manifest.server_timezone}
    if len(names) > 1:
        raise JobError(
            f"the exports were made with different time zones, {', '.join(sorted(names))}: say with timezone "
            "(--timezone) whose days and months are meant"
        )
    return ServerZone(*_zone(names.pop()), "export") if names else ServerZone(UTC, "UTC", "default")


def _zone(given: tzinfo | str) -> tuple[tzinfo, str]:
    if not isinstance(given, str):
        return given, str(given)
    offset = _OFFSET.fullmatch(given)
    if offset is not None:
        minutes = int(offset[2]) * 60 + int(offset[3])
        return timezone(timedelta(minutes=-minutes if offset[1] == "-" else minutes)), given
    try:
        return ZoneInfo(given), given
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise JobError(
            f"timezone takes the name of a time zone, e.g. Asia/Kolkata or UTC, got {given[:100]!r}"
        ) from None
