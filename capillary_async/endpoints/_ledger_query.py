"""Whose ledger, and what of it: the two values that `session.points_ledger.explode` takes.

Invariant: names and flags as on the page 'Get Points Ledger Explode Info', checked when they are made. Made by
users.
"""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from capillary_async._repr import brief_repr
from capillary_async.endpoints._arguments import identity, positive, refuse

__all__ = ["Identifier", "LedgerInclude", "include_params", "wire_name"]

_KINDS = {
    "mobile": "mobile",
    "email": "email",
    "external_id": "EXTERNALID",
    "customer_id": "CustomerID",
    "id": "id",
    "primary_user_id": "primaryUserId",
}
_NUMBERS = frozenset({"customer_id", "id", "primary_user_id"})


def _kind(value: Any) -> str:
    if not isinstance(value, str) or value not in _KINDS:
        raise refuse("identifier", f"one of the kinds {', '.join(_KINDS)}", value)
    return value


def _identifier(value: Any) -> str:
    return identity("identifier", value)


def _fitting(owner: Identifier, attribute: Any, value: str) -> None:  # noqa: ARG001 - attrs hands it in
    if owner.kind in _NUMBERS:
        positive("identifier", value)


def _whole(value: Any) -> str:
    return str(positive("identifier", value))


@frozen
class Identifier:
    """Whose ledger: the name of an identifier and its value.

    Attributes:
        kind: `mobile`, `email`, `external_id`, `customer_id`, `id` or `primary_user_id`.
        value: As a text.

    Raises:
        InvalidRequestError: An unknown kind, or an empty value.

    Example:
        >>> Identifier.mobile("918088369835")
        Identifier(kind='mobile', value='918088369835')
    """

    kind: str = field(converter=_kind)
    value: str = field(converter=_identifier, validator=_fitting)

    __repr__ = brief_repr

    @classmethod
    def mobile(cls, value: str | int) -> Identifier:
        """By mobile number, with its country code."""
        return cls("mobile", value)

    @classmethod
    def email(cls, value: str) -> Identifier:
        """By e-mail address."""
        return cls("email", value)

    @classmethod
    def external_id(cls, value: str | int) -> Identifier:
        """By the brand's own id."""
        return cls("external_id", value)

    @classmethod
    def customer_id(cls, value: int | str) -> Identifier:
        """By Capillary's customer id."""
        return cls("customer_id", _whole(value))

    @classmethod
    def id(cls, value: int | str) -> Identifier:
        """By Capillary's id of a customer or user group."""
        return cls("id", _whole(value))

    @classmethod
    def primary_user_id(cls, value: int | str) -> Identifier:
        """By the id of a group's primary member."""
        return cls("primary_user_id", _whole(value))


def _wanted(owner: Any, attribute: Any, value: Any) -> None:  # noqa: ARG001 - attrs hands it in
    if not isinstance(value, bool):
        raise refuse(attribute.name, "True or False", value)


@frozen
class LedgerInclude:
    """Details to add to the events of a ledger.

    Attributes:
        bill_details: Bill number, amount, discount, line items.
        points_earned_breakup: Points by category, allocation and expiry strategy; needs a setting of the organisation.
        custom_fields: The brand's custom fields.
        extended_fields: The brand's extended fields.
        max_conversion_details: The latest conversion date of delayed accruals.
        payment_modes: How the bill was paid.
        alternate_currencies: All alternate currencies of the customer.

    Raises:
        InvalidRequestError: One of them is neither True nor False.
    """

    bill_details: bool = field(default=False, validator=_wanted)
    points_earned_breakup: bool = field(default=False, validator=_wanted)
    custom_fields: bool = field(default=False, validator=_wanted)
    extended_fields: bool = field(default=False, validator=_wanted)
    max_conversion_details: bool = field(default=False, validator=_wanted)
    payment_modes: bool = field(default=False, validator=_wanted)
    alternate_currencies: bool = field(default=False, validator=_wanted)

    __repr__ = brief_repr


def wire_name(identifier: Identifier) -> str:
    """The name of an identifier as the API spells it."""
    return _KINDS[identifier.kind]


def include_params(include: LedgerInclude) -> dict[str, str | None]:
    """The flags as the API spells them; only those that are set are sent."""
    wanted = {
        "getBillDetails": include.bill_details,
        "getPointsEarnedBreakup": include.points_earned_breakup,
        "getCustomFields": include.custom_fields,
        "getExtendedFields": include.extended_fields,
        "getMaxConversionDetails": include.max_conversion_details,
        "getPaymentModes": include.payment_modes,
        "includeAlternateCurrencies": include.alternate_currencies,
    }
    return {name: "true" if value else None for name, value in wanted.items()}
