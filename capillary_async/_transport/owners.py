"""The owners of the records of an answer: at least one record has to belong to a requested customer.

Invariant: an answer without a record of a requested customer is never accepted; one that has records of other customers
too has a warning. Pure functions of decoded records; called by `classify.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capillary_async._codec import faults
from capillary_async.errors import ApiMessage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from capillary_async.errors import DecodeError

__all__ = ["misdirected", "mixed", "unowned"]

_NAMED = 3  # customers that a text names


def unowned(records: Sequence[Any], owners: frozenset[int]) -> Sequence[Any]:
    """The records that say whose they are, and that no owner has.

    A record belongs to its `customer_id` and, behind a merge, to its `original_customer_id`; a ledger's event, which
    has neither, to the customer of its manual adjustment.
    """
    if records and not hasattr(records[0], "customer_id"):
        others = records
    elif len(owners) == 1:
        (owner,) = owners
        others = [record for record in records if record.customer_id != owner]  # none, nearly always
    else:
        others = [record for record in records if record.customer_id not in owners]
    return [record for record in others if (said := _said(record)) and said.isdisjoint(owners)]


def _said(record: Any) -> set[int]:
    """The customers that a record names."""
    adjusted = getattr(record, "manual_points_adjustment_details", None)
    named = (
        getattr(record, "customer_id", None),
        getattr(record, "original_customer_id", None),
        getattr(adjusted, "customer_id", None),
    )
    return {customer for customer in named if customer is not None}


def misdirected(records: Sequence[Any], others: Sequence[Any], owners: frozenset[int]) -> DecodeError | None:
    """The error for an answer none of whose records has an owner; None where one has."""
    if not others or len(others) < sum(bool(_said(record)) for record in records):
        return None
    theirs, asked = _customers(_all(others)), _customers(owners)
    return faults.misdirected(
        f"the answer holds records of {theirs} and none of {asked}, who was asked for; nothing of it was given",
        f"expected records of {asked}, got those of {theirs}",
    )


def mixed(records: Sequence[Any], others: Sequence[Any], owners: frozenset[int]) -> ApiMessage:
    """The warning of an answer that holds other customers' records among those asked for."""
    return ApiMessage(
        None,
        f"{len(others)} of {len(records)} records belong to {_customers(_all(others))}, not to {_customers(owners)}, "
        "asked for; they were given all the same: look at `customer_id` before you add them up",
    )


def _all(records: Iterable[Any]) -> set[int]:
    return {customer for record in records for customer in _said(record)}


def _customers(numbers: Iterable[int]) -> str:
    """Customers in words, the first few by number."""
    known = sorted(numbers)
    named = ", ".join(map(str, known[:_NAMED]))
    more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
    return f"customer{'s' if len(known) != 1 else ''} {named}{more}"
