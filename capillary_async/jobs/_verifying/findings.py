"""What a verification found, as sentences for a person.

Invariant: each difference is one sentence in `faults`. Written by the checks in this room, read by `_verify.py`.
"""

from __future__ import annotations

from typing import Any

__all__ = ["SHOWN", "Findings", "first_ones"]

SHOWN = 3  # examples per sentence


class Findings:
    """The sentences of one verification.

    Attributes:
        faults: Each difference from the manifest, the database or the service.
        notes: What was not checked, and why; and lists that a server may have cut.
        unanswered: Why keys of the sample could not be read again.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.notes: list[str] = []
        self.unanswered: list[str] = []

    def compare(self, where: str, name: str, computed: Any, said: Any) -> None:
        """Add a fault if the manifest says something else than was computed."""
        if computed != said:
            self.faults.append(f"{where}: {name} is {computed}, the manifest says {said}")


def first_ones(ones: list[str]) -> str:
    """The first few, and how many more there are."""
    return ", ".join(ones[:SHOWN]) + (f" and {len(ones) - SHOWN} more" if len(ones) > SHOWN else "")
