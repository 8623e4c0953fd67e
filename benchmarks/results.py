"""What a question comes to: rows of medians, and targets met or not.

Values only: made by the questions, printed by `table.py`, drawn by `plot.py`.
"""

from __future__ import annotations

from statistics import median
from typing import Any

from attrs import asdict, field, frozen

__all__ = ["Row", "Sample", "Section", "Target", "paired", "ratio"]


@frozen
class Sample:
    """The runs of one client on one piece of work.

    Attributes:
        runs: What each run printed: `cpu`, `wall`, `requests`, `beyond`, `peak_mib`.
        fault: Why its figures do not count, None where all is well.
    """

    runs: tuple[dict[str, Any], ...]
    fault: str | None = None

    def median(self, name: str) -> float | None:
        """Of one figure over the runs; None where a run has none."""
        values = [run.get(name) for run in self.runs]
        known = [value for value in values if value is not None]
        return median(known) if known and self.fault is None else None

    def most(self, name: str) -> float | None:
        """The largest of one figure."""
        values = [value for run in self.runs if (value := run.get(name)) is not None]
        return max(values) if values and self.fault is None else None


def ratio(value: float | None, to: float | None) -> float | None:
    """One figure by another; None where either is missing."""
    return None if value is None or not to else value / to


def paired(of: Sample | None, to: Sample | None, name: str, scale: float = 1.0) -> float | None:
    """The median over the rounds of one client's figure by another's of the same round, times `scale`.

    What the machine does beside comes and goes: two neighbours in a round feel it alike, two medians may not.
    """
    if of is None or to is None or of.fault or to.fault:
        return None
    rounds = zip(of.runs, to.runs, strict=False)
    ratios = [one[name] / other[name] * scale for one, other in rounds if other[name]]
    return median(ratios) if ratios else None


@frozen
class Row:
    """A line of the table.

    Attributes:
        client: Who.
        cpu: CPU of the client, in the section's unit.
        wall: Time on the wall, in the section's unit.
        memory: Peak memory of the process, MiB.
        ratio: As the section's `ratio` says.
        note: What else is to be said.
        runs: The figures of each run.
    """

    client: str
    cpu: float | None = None
    wall: float | None = None
    memory: float | None = None
    ratio: float | None = None
    note: str = ""
    runs: tuple[dict[str, Any], ...] = ()


@frozen
class Target:
    """What should be reached, and what was.

    Attributes:
        text: In words.
        value: What was measured; None where a client was missing.
        at_most: The largest value that meets it, or None.
        at_least: The smallest, or None.
        unit: Behind the numbers.
    """

    text: str
    value: float | None
    at_most: float | None = None
    at_least: float | None = None
    unit: str = "x"

    @property
    def met(self) -> bool | None:
        """Whether it is; None where it was not measured."""
        if self.value is None:
            return None
        if self.at_most is not None:
            return self.value <= self.at_most
        return self.at_least is not None and self.value >= self.at_least

    def told(self) -> str:
        """`met: CPU per record at most 1.1x the floor: 1.05x`."""
        word = {True: "met", False: "missed", None: "not measured"}[self.met]
        return f"{word}: {self.text}" + ("" if self.value is None else f": {self.value:.4g}{self.unit}")


@frozen
class Section:
    """The answer to one question.

    Attributes:
        letter: Of the question.
        title: What was asked.
        unit: Of `cpu` and `wall`.
        ratio: What the column of ratios divides.
        rows: A line for each client or size.
        targets: What was to be reached.
    """

    letter: str
    title: str
    unit: str
    ratio: str
    rows: tuple[Row, ...]
    targets: tuple[Target, ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        """All of it, each run included."""
        told = asdict(self)
        told["targets"] = [{**asdict(target), "met": target.met} for target in self.targets]
        return told
