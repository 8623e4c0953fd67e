"""How messages are worded: on one line, with the right plural, and with options instead of arguments.

Invariant: pure, and whatever the text, a terminal shows it and obeys nothing of it. Used by all that print messages.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

__all__ = ["as_options", "count", "one_line", "span"]

# Arguments of the SDK and the sandbox that an option alone can have set.
_OPTIONS = (
    *("attempts", "batch_size", "concurrency", "customers", "dag_scope", "event_type", "event_type_id"),
    *("expiry_date_end", "expiry_date_start", "from_date", "latency", "org_id", "page_size", "point_category_id"),
    *("port", "program_id", "rate", "server_timezone", "status", "status_file"),
    *("compare", "key", "memory_limit", "threads", "to_date", "tolerance"),
)
_ARGUMENT = re.compile(rf"(?:[A-Z]\w+\.)?({'|'.join(_OPTIONS)})(?= takes )")


def as_options(message: str) -> str:
    """The message, where it begins with the name of an argument, with that of its option instead."""
    found = _ARGUMENT.match(message)
    return f"--{found[1].replace('_', '-')}{message[found.end() :]}" if found else message


def count(number: int, one: str, many: str = "") -> str:
    """`1 request`, `2,000 requests`."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def span(first: datetime, last: datetime) -> str:
    """`2026-11-20 02:17 UTC`, or both times where they are not of the same minute."""
    times = [each.astimezone(UTC).strftime("%Y-%m-%d %H:%M") for each in (first, last)]
    return f"{' to '.join(dict.fromkeys(times))} UTC"


def one_line(text: str) -> str:
    """The text on one line, with what a terminal would obey or cannot show escaped."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in " ".join(text.split()))
