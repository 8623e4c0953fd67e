"""The address of the books: a path or a URL, whose password is for the driver alone.

Invariant: whatever shows an address, a message, a report or a traceback with locals, shows stars for its secrets. Made
by `_reconcile.py`, read by `_books/open.py`.
"""

from __future__ import annotations

import os
import re

from capillary_async._files.addresses import scheme_of, secrets_in, why_no_path, without_secrets

__all__ = ["Address", "without_password"]

_POSTGRES = re.compile(r"(?i)postgres(?:ql)?(?:\+\w+)?://")
_KEY_VALUES = re.compile(r"(?i)(?:^|\s)(?:host|hostaddr|dbname|user|service)\s*=")
_OTHERS = re.compile(
    r"(?i)(?:jdbc:)?(mysql|mariadb|mssql|sqlserver|oracle|snowflake|redshift|bigquery|databricks|sqlite|db2|clickhouse)\b"
)
_ODBC = re.compile(r"(?i)(?:^|;)\s*(?:driver|server|data source|dsn|provider)\s*=")


def without_password(url: str) -> str:
    """The URL with stars for its secrets, wherever they are."""
    return without_secrets(url)


class Address:
    """A path or URL that shows no password: `str(Address("postgresql://u:secret@h/d"))` has stars.

    Blanks and quotation marks around a URL are left out, and `postgresql+driver://` is read as `postgresql://`.
    """

    __slots__ = ("_given",)

    def __init__(self, given: str) -> None:
        plain = given.strip().strip("'\"").strip()
        self._given = _POSTGRES.sub("postgresql://", plain, count=1) if scheme_of(plain) else given

    def __str__(self) -> str:
        return without_secrets(self._given)

    def __repr__(self) -> str:
        return f"Address({str(self)!r})"

    @property
    def scheme(self) -> str | None:
        """The part before `://`, in lower case; None for a path."""
        return scheme_of(self._given)

    @property
    def is_file(self) -> bool:
        """Whether it is a path, of the books themselves or of a DuckDB database; no address with a secret is one."""
        if self.scheme is not None:
            return self.scheme == "duckdb"
        if self.hint is not None or why_no_path(self._given) is not None:
            return False
        return not secrets_in(self._given) or os.path.exists(self._given)  # noqa: PTH110 - any text

    @property
    def hint(self) -> str | None:
        """What to give instead of an address that no reader takes; None for a path, and without advice."""
        plain = self._given.strip().strip("'\"").strip()
        other = _OTHERS.match(plain)
        if re.match(r"(?i)jdbc:postgres", plain) or (_KEY_VALUES.search(plain) and not _ODBC.search(plain)):
            return "give postgresql://user@host:5432/database, with the password in PGPASSWORD or ~/.pgpass"
        if _ODBC.search(plain) or (other and (":" in plain)):
            named = other[1] if other else "this database"
            return f"no reader of {named} is built in: write the table to a Parquet or CSV file, and give that"
        return None

    def reveal(self) -> str:
        """All of it, for the driver; to be kept in no variable."""
        return self._given

    def scrubbed(self, text: str) -> str:
        """The text with stars for its secrets, in any form that a driver may give it."""
        for secret in secrets_in(self._given):
            text = text.replace(secret, "***")
        return without_secrets(text)
