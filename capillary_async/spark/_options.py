"""The options of the data source: their names, how each is read, and the settings that they make.

Invariant: every option is known, and an unknown, missing or contradictory one is an error that names it; settings hold
no secret, so that they may be pickled into plans. Used by `_source.py` and `_doors.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from capillary_async._files import near
from capillary_async._validation import base_url, seconds
from capillary_async.errors import InvalidRequestError
from capillary_async.spark._credentials import FROM_ENV, SECRET_NAMES, check_limiter, check_reference
from capillary_async.spark._resources import RESOURCES, Resource, flag, number, several, text

__all__ = ["ID_OPTIONS", "IdSource", "Settings", "settings_of"]

PARTITIONS = 8
IDS_PER_BATCH = 10_000
MAX_WAIT = 900.0  # seconds, as of an export
ID_OPTIONS = ("ids", "ids_path", "ids_manifest")


def _least_one(name: str, value: Any) -> int:
    found = number(name, value)
    if not found:
        raise InvalidRequestError(f"option {name} takes a whole number from 1 on, got 0", argument=name)
    return found


def _amount(name: str, value: Any) -> float:
    try:
        return seconds(f"option {name}", float(str(value)))
    except ValueError:
        raise InvalidRequestError(f"option {name} takes a number above 0, got {value!r:.100}", argument=name) from None


def _on_error(name: str, value: Any) -> str:
    found = text(name, value).lower()
    if found not in ("failfast", "permissive"):
        raise InvalidRequestError(f"option {name} takes failfast or permissive, got {value!r:.100}", argument=name)
    return found


def _reference(_: str, value: Any) -> str:
    return check_reference(str(value).strip())


def _limiter(_: str, value: Any) -> str:
    return check_limiter(str(value).strip())


def _url(_: str, value: Any) -> str:
    return base_url(str(value).strip())


def _same(_: str, value: Any) -> Any:
    return value


COMMON: dict[str, Callable[[str, Any], Any]] = {
    "resource": text,
    "base_url": _url,
    "credential": _reference,
    "username": text,
    "client_key": text,
    "ids": _same,
    "ids_path": text,
    "ids_column": several,
    "ids_manifest": text,
    "ids_per_batch": _least_one,
    "num_partitions": _least_one,
    "slots": _least_one,
    "max_requests_per_second": _amount,
    "limiter": _limiter,
    "concurrency": _least_one,
    "page_size": _least_one,
    "verify": flag,
    "max_wait": _amount,
    "on_error": _on_error,
    "pushdown": flag,
}


@frozen
class IdSource:
    """Where the ids come from; one of the first three.

    Attributes:
        ids: The ids themselves.
        path: A file of them.
        manifest: The folder of an export.
        columns: The columns of the file that hold them; empty for the usual ones.
    """

    ids: Any
    path: str | None
    manifest: str | None
    columns: tuple[str, ...]


@frozen
class Settings:
    """What a reading needs beside its ids.

    Attributes:
        name: The resource.
        query: The arguments of its call.
        base_url: None for `CAPILLARY_BASE_URL` of each task.
        rate: Maximum requests per second of all tasks together; None for no maximum.
        limiter: The Redis that keeps this rate, or a reference to it; None to split the rate.
        partitions: The number of tasks, if there are as many ids.
        slots: The maximum number of tasks at a time; None where it is not known.
    """

    name: str
    query: Mapping[str, Any]
    base_url: str | None
    credential: str
    username: str | None
    client_key: str | None
    permissive: bool
    pushdown: bool
    partitions: int
    slots: int | None
    rate: float | None
    limiter: str | None
    concurrency: int | None
    page_size: int | None
    verify: bool
    max_wait: float
    ids_per_batch: int

    @property
    def resource(self) -> Resource:
        """What is read."""
        return RESOURCES[self.name]

    @property
    def rate_per_task(self) -> float | None:
        """The rate of one task: all that run at a time share the whole, in Redis or in equal parts."""
        if self.rate is None or self.limiter is not None:
            return self.rate
        return self.rate / min(self.partitions, self.slots or self.partitions)


def settings_of(given: Mapping[str, Any], *, partitions: int | None = None) -> tuple[Settings, IdSource]:
    """The settings that options make.

    Args:
        given: The options, in camelCase, snake_case or lower case.
        partitions: The number of tasks where no option says it.

    Raises:
        InvalidRequestError: An option is unknown, missing or invalid; the message names it.
    """
    resource = _resource(given)
    read = {**COMMON, **resource.options}
    options = _read(given, read, resource)
    _check_together(options, resource)
    query = {name: options[name] for name in resource.options if name in options}
    resource.check(query)
    settings = Settings(
        name=resource.name,
        query=query,
        base_url=options.get("base_url"),
        credential=options.get("credential", FROM_ENV),
        username=options.get("username"),
        client_key=options.get("client_key"),
        permissive=options.get("on_error") == "permissive",
        pushdown=options.get("pushdown", False),
        partitions=options.get("num_partitions", partitions or PARTITIONS),
        slots=options.get("slots"),
        rate=options.get("max_requests_per_second"),
        limiter=options.get("limiter"),
        concurrency=options.get("concurrency"),
        page_size=options.get("page_size"),
        verify=options.get("verify", False),
        max_wait=options.get("max_wait", MAX_WAIT),
        ids_per_batch=options.get("ids_per_batch", IDS_PER_BATCH),
    )
    given_ids, path, manifest = map(options.get, ID_OPTIONS)
    ids = IdSource(given_ids, path, manifest, options.get("ids_column", ()))
    return settings, ids


def _resource(given: Mapping[str, Any]) -> Resource:
    names = ", ".join(RESOURCES)
    named = [value for name, value in given.items() if _folded(name) == "resource"]
    if not named:
        raise InvalidRequestError(f"option resource is missing: it takes one of {names}", argument="resource")
    wanted = str(named[0]).strip()
    if wanted not in RESOURCES:
        hint = near(wanted, RESOURCES)
        raise InvalidRequestError(
            f"option resource takes one of {names}, got {wanted!r:.100}{hint}", argument="resource"
        )
    return RESOURCES[wanted]


def _read(
    given: Mapping[str, Any], known: Mapping[str, Callable[[str, Any], Any]], resource: Resource
) -> dict[str, Any]:
    by_folded = {_folded(name): name for name in known}
    options: dict[str, Any] = {}
    for each, value in given.items():
        name = by_folded.get(_folded(each))
        if name is None:
            raise _unknown(each, [camel(one) for one in known], resource)
        if name in options:
            raise InvalidRequestError(f"option {camel(name)} is given twice, in two spellings", argument=camel(name))
        options[name] = known[name](camel(name), value)
    return options


def _unknown(name: str, known: list[str], resource: Resource) -> InvalidRequestError:
    if _folded(name) in SECRET_NAMES:
        return InvalidRequestError(
            f"option {name} is refused: a secret is never an option, since Spark Connect writes options into its event "
            "log. Change the secret that was given, and give a reference to the new one: "
            "credential=env:NAME, file:/path or secret:SCOPE/KEY",
            argument=name,
        )
    hint = ". Give the file of ids as idsPath" if _folded(name) == "path" else near(name, known)
    listed = ", ".join(known)
    return InvalidRequestError(f"{resource.name} has no option {name!r:.100}{hint}. It has {listed}", argument=name)


def _check_together(options: Mapping[str, Any], resource: Resource) -> None:
    missing = [camel(name) for name in resource.needed if name not in options]
    if missing:
        raise InvalidRequestError(
            f"option {missing[0]} is missing: {resource.name} needs {', '.join(map(camel, resource.needed))}",
            argument=missing[0],
        )
    owners = [name for name in ("username", "client_key") if name in options]
    from_env = options.get("credential", FROM_ENV) == FROM_ENV
    if from_env == bool(owners) or len(owners) > 1:
        raise InvalidRequestError(
            "give credential=env:NAME, file:/path or secret:SCOPE/KEY together with username (a till) or clientKey "
            "(an OAuth client), or neither of them to have each task read the variables of AsyncSession.from_env",
            argument="credential",
        )
    if "limiter" in options and "max_requests_per_second" not in options:
        raise InvalidRequestError("option limiter needs maxRequestsPerSecond, the rate it keeps", argument="limiter")
    if "ids_column" in options and len(options["ids_column"]) != len(resource.parts):
        raise InvalidRequestError(
            f"option idsColumn takes {len(resource.parts)} names for {resource.name}: those of "
            f"{', '.join(resource.parts)}",
            argument="idsColumn",
        )


def camel(name: str) -> str:
    """The name as options are written: `program_id` → `programId`."""
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)


def _folded(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()
