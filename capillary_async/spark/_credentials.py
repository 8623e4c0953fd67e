"""References to credentials: which forms they have, and the credentials that a task makes of one.

Invariant: a secret is never an option, so that no plan, event log or pickled reader holds one; what was given in place
of a reference is not repeated in the error. Used by `_options.py`; resolved by `_task.py`.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from capillary_async._redis_address import RedisAddress
from capillary_async.auth import BasicAuth, OAuthClient, from_env
from capillary_async.errors import InvalidRequestError

__all__ = ["FROM_ENV", "SECRET_NAMES", "check_limiter", "check_reference", "credentials_of", "limiter_of"]

FROM_ENV = "env"
_FORMS = "env:NAME, file:/path or secret:SCOPE/KEY"
_REFERENCE = "a reference, never a secret, or env for the variables of AsyncSession.from_env"
_REDIS = ("redis://", "rediss://")
# Option names that people give secrets under.
SECRET_NAMES = frozenset(
    {"password", "passwordmd5", "token", "accesstoken", "secret", "clientsecret", "authorization", "apikey", "auth"}
)


def check_reference(given: str, option: str = "credential", takes: str = "") -> str:
    """The reference, if it is one.

    Raises:
        InvalidRequestError: It is none. The message does not repeat it.
    """
    kind, colon, place = given.partition(":")
    valid = {
        FROM_ENV: place.isidentifier() or not colon,
        "file": place.startswith("/"),
        "secret": len(place.split("/")) == 2 and all(place.split("/")),  # noqa: PLR2004 - scope and key
    }
    if not valid.get(kind, False):
        raise InvalidRequestError(
            f"option {option} takes {takes or _REFERENCE}: {_FORMS}. If this was a secret, change it: Spark Connect "
            "writes options into its event log",
            argument=option,
        )
    return given


def check_limiter(given: str) -> str:
    """The address of a Redis without a password, or a reference to one.

    Raises:
        InvalidRequestError: It is neither. The message does not repeat it.
    """
    if not given.startswith(_REDIS):
        if given == FROM_ENV:
            given = ""
        return check_reference(given, "limiter", "redis://HOST:6379/0, or a reference to an address with a password")
    address = RedisAddress.of(given)
    if isinstance(address, InvalidRequestError):
        raise address
    if address is None or address.options()["password"] is not None:
        raise InvalidRequestError(
            "option limiter has an address with a password, which is a secret: change it, and give a reference to the "
            f"new one: {_FORMS}",
            argument="limiter",
        )
    return given


def limiter_of(given: str) -> str:
    """The address of a Redis, in the process of a task."""
    return given if given.startswith(_REDIS) else _resolved(given)


def credentials_of(reference: str, *, username: str | None, client_key: str | None) -> BasicAuth | OAuthClient:
    """The credentials, in the process of a task.

    Raises:
        InvalidRequestError: The reference leads to nothing; the message names it.
    """
    if reference == FROM_ENV:
        return from_env()
    secret = _resolved(reference)
    if client_key is not None:
        return OAuthClient(client_key, secret)
    return BasicAuth(str(username), password=secret)


def _resolved(reference: str) -> str:
    kind, _, place = reference.partition(":")
    secret = {"env": _variable, "file": _file, "secret": _databricks}[kind](place).strip()
    if not secret:
        raise InvalidRequestError(f"the credential {reference} is empty", argument="credential")
    return secret


def _variable(name: str) -> str:
    found = os.environ.get(name)
    if found is None:
        raise InvalidRequestError(
            f"the credential env:{name} leads to nothing: a task has no environment variable {name}; set it where the "
            "executors start",
            argument="credential",
        )
    return found


def _file(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise InvalidRequestError(
            f"the credential file:{path} cannot be read by a task: {why}", argument="credential"
        ) from None


def _databricks(place: str) -> str:
    scope, _, key = place.partition("/")
    try:
        runtime: Any = importlib.import_module("databricks.sdk.runtime")
        return str(runtime.dbutils.secrets.get(scope=scope, key=key))
    except Exception as error:  # noqa: BLE001 - whatever another library raises, without its text
        raise InvalidRequestError(
            f"the credential secret:{place} could not be read by a task ({type(error).__name__}): secret scopes need "
            "databricks.sdk.runtime there. Else give the cluster an environment variable {{secrets/SCOPE/KEY}} and "
            "use env:NAME",
            argument="credential",
        ) from None
