"""A sample of an export, read again from the service and compared record by record.

Invariant: a service that does not answer is no difference. Called by `_verify.py`.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from capillary_async import CapillaryError
from capillary_async._files.threads import in_thread
from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._dataset.folder import is_own_file
from capillary_async.jobs._dataset.state import State
from capillary_async.jobs._verifying.findings import first_ones

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence

    from capillary_async import AsyncSession
    from capillary_async.jobs._verifying.verification import Verification

__all__ = ["Sample"]

_Rows = list["Mapping[str, Any]"]


class Sample:
    """The sample of one verification, whose findings it adds to.

    Attributes:
        size: Keys that were read again.
    """

    def __init__(self, verification: Verification) -> None:
        self.size = 0
        self._folder, self._manifest = verification.folder, verification.manifest
        self._source, self._format = verification.source, verification.format
        self._findings = verification.findings

    async def check(self, session: AsyncSession, keys: int, random_: random.Random) -> None:
        """Read at most so many keys again and compare them.

        Raises:
            CapillaryError: The service refuses all keys, e.g. for wrong credentials, and the files have no faults.
        """
        try:
            await self._check(session, keys, random_)
        except CapillaryError as error:
            text = f"the sample could not be read again: {error}"
            if error.outage or (error.lacks_answer and not error.concerns_all_keys):
                self._findings.unanswered.append(text)
            elif self._findings.faults:
                self._findings.faults.append(text)  # what was found is kept
            else:
                raise

    async def _check(self, session: AsyncSession, keys: int, random_: random.Random) -> None:
        verify = self._manifest.consistency == "verified"
        reading = self._source.reading(session, self._manifest.query, verify=verify)
        drawn = await in_thread(self._drawn, keys, random_)
        exported = await in_thread(self._exported, drawn)
        outcomes = reading.outcomes([key for key in drawn if key in exported])
        try:
            async for outcome in outcomes:
                if outcome.error is not None and outcome.error.lacks_answer and not outcome.error.concerns_all_keys:
                    self._findings.unanswered.append(f"key {outcome.key} could not be read again: {outcome.error}")
                    continue
                self.size += 1
                self._compare(outcome.key, exported[outcome.key], outcome)
        finally:
            await outcomes.aclose()

    def _drawn(self, keys: int, random_: random.Random) -> dict[Any, int]:
        """Random keys that did not fail, each with its shard, in the order of the ids."""
        if not is_own_file(self._folder.state):
            raise JobError(f"{self._folder.path} has no state.sqlite, so that there are no ids to draw a sample from")
        try:
            state = State.read_only(self._folder.state)
            try:
                asked, failed, drawn = state.get("asked"), state.failed_places(), dict[Any, int]()
                places = random_.sample(range(1, asked + 1), min(asked, keys + len(failed)))
                for place in sorted([place for place in places if place not in failed][:keys]):
                    (key,) = state.keys(place, place).values()
                    drawn[key] = (place - 1) // state.get("shard_keys")
            finally:
                state.close()
        except (sqlite3.Error, ValueError, TypeError, ArithmeticError) as error:
            raise JobError(f"no sample can be drawn: state.sqlite cannot be read: {error}") from None
        return drawn

    def _exported(self, drawn: Mapping[Any, int]) -> dict[Any, _Rows]:
        """The rows of each key in the files; without the keys of a shard that cannot be read."""
        exported: dict[Any, _Rows] = {}
        for number in sorted(set(drawn.values())):
            keys = {key for key, shard in drawn.items() if shard == number}
            path = self._folder.shard(number, self._format.ending)
            try:
                rows = list(self._format.records(path, keys))
            except Exception as error:  # noqa: BLE001 - whatever a damaged file makes of its reader
                text = str(error).partition("\n")[0]
                self._findings.faults.append(
                    f"shards/{path.name} cannot be read: {text}; {len(keys)} keys of the sample were not read again"
                )
                continue
            exported.update((key, []) for key in keys)
            for key, row in rows:
                exported[key].append(row)
        return exported

    def _compare(self, key: Any, exported: Sequence[Mapping[str, Any]], outcome: Any) -> None:
        faults = self._findings.faults
        if outcome.error is not None:
            faults.append(f"key {key}: the service refuses it now: {outcome.error}")
            return
        try:
            now = self._format.plain(key, outcome.items) if outcome.items else []
        except CapillaryError as error:
            faults.append(str(error))
            return
        if sorted(map(repr, now)) == sorted(map(repr, exported)):
            return
        before, after = ({repr(self._identity(row)): row for row in rows} for rows in (exported, now))
        faults.append(
            f"key {key}: the files hold {len(exported)} records, the service has {len(now)} "
            f"({_changes(before, after)}); it may have changed since the export"
        )

    def _identity(self, row: Mapping[str, Any]) -> Any:
        parts = tuple(row[name] for name in self._source.key)
        return parts[0] if len(parts) == 1 else parts


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Which records are gone, new or changed, by their identities."""
    parts = {
        "gone": [one for one in before if one not in after],
        "new": [one for one in after if one not in before],
        "changed": [one for one in after if one in before and repr(after[one]) != repr(before[one])],
    }
    return (
        ", ".join(f"{word}: {first_ones(ones)}" for word, ones in parts.items() if ones) or "some come more than once"
    )
