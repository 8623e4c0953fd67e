"""The values that `session.points_ledger.explode` and `explode_many` take: identifier, details and query.

Invariant: names and flags are those of the page 'Get Points Ledger Explode Info', checked when a value is made. Called
by users and by `points_ledger.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import field, frozen

from capillary_async._repr import brief_repr
from capillary_async._validation import flag, refuse, validator
from capillary_async.endpoints._arguments import choice_text, flag_text, identity, names, positive, positives, text
from capillary_async.errors import InvalidRequestError

__all__ = ["Identifier", "LedgerInclude", "LedgerQuery", "ledger_params"]

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

    bill_details: bool = field(default=False, validator=validator(flag))
    points_earned_breakup: bool = field(default=False, validator=validator(flag))
    custom_fields: bool = field(default=False, validator=validator(flag))
    extended_fields: bool = field(default=False, validator=validator(flag))
    max_conversion_details: bool = field(default=False, validator=validator(flag))
    payment_modes: bool = field(default=False, validator=validator(flag))
    alternate_currencies: bool = field(default=False, validator=validator(flag))

    __repr__ = brief_repr


def _include_params(include: LedgerInclude) -> dict[str, str | None]:
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


def _owner(query: Any, attribute: Any, value: Any) -> None:  # noqa: ARG001 - attrs hands it in
    if not isinstance(value, Identifier):
        raise refuse("identifier", "an Identifier, e.g. Identifier.mobile(...)", value)


def _details(query: Any, attribute: Any, value: Any) -> None:  # noqa: ARG001 - attrs hands it in
    if not isinstance(value, LedgerInclude):
        raise refuse("include", "a LedgerInclude", value)


def _source(value: str) -> str:
    return text("source", value)


def _event_ids(value: Iterable[int | str] | None) -> tuple[int, ...] | None:
    return None if value is None else positives("event_ids", value)


def _event_name(value: str | None) -> str | None:
    return choice_text("event_name", value)


def _references(value: Iterable[str | int] | None) -> tuple[str, ...] | None:
    return None if value is None else names("event_reference_ids", value)


def _account(value: str | int | None) -> str | None:
    return None if value is None else identity("account_id", value)


def _type(value: str | None) -> str | None:
    return choice_text("type", value)


def _primary(value: bool | None) -> bool | None:  # noqa: FBT001 - an argument of the API
    flag_text("is_primary_user", value)
    return value


def _currencies(value: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if value is None else names("alternate_currency_names", value)


@frozen(kw_only=True)
class LedgerQuery:
    """What `explode_many` reads for one ledger: the arguments of `explode`, checked.

    Attributes:
        identifier: Whose ledger.
        source: Where the identifier is known, e.g. `INSTORE`.
        event_ids: Event log ids, each once; or else `event_name` with `event_reference_ids`.
        event_name: An `EventName` or its text.
        event_reference_ids: Transaction ids of transactional events, request ids of behavioural ones, each once.
        account_id: The account, for sources with several.
        include: Details to add to the events.
        type: `CUSTOMER` or `USERGROUP2`.
        is_primary_user: For groups: the primary member's entries.
        alternate_currency_names: Only these alternate currencies.

    Raises:
        InvalidRequestError: A value is invalid, or both or neither way of naming events is used.

    Example:
        >>> LedgerQuery(identifier=Identifier.mobile("918088369835"), source="INSTORE", event_ids=[634510612]).event_ids
        (634510612,)
    """

    identifier: Identifier = field(validator=_owner)
    source: str = field(converter=_source)
    event_ids: tuple[int, ...] | None = field(default=None, converter=_event_ids)
    event_name: str | None = field(default=None, converter=_event_name)
    event_reference_ids: tuple[str, ...] | None = field(default=None, converter=_references)
    account_id: str | None = field(default=None, converter=_account)
    include: LedgerInclude = field(factory=LedgerInclude, validator=_details)
    type: str | None = field(default=None, converter=_type)
    is_primary_user: bool | None = field(default=None, converter=_primary)
    alternate_currency_names: tuple[str, ...] | None = field(default=None, converter=_currencies)

    __repr__ = brief_repr

    def __attrs_post_init__(self) -> None:
        """Refuse a query that names its events in both ways, in neither, or by half of one."""
        by_reference = self.event_name is not None or self.event_reference_ids is not None
        if (self.event_ids is not None) == by_reference:
            came = "both" if by_reference else "neither"
            raise InvalidRequestError(
                f"give either event_ids, or event_name with event_reference_ids; got {came}", argument="event_ids"
            )
        if by_reference and (self.event_name is None or self.event_reference_ids is None):
            missing = "event_name" if self.event_name is None else "event_reference_ids"
            raise InvalidRequestError(
                f"event_name and event_reference_ids go together; {missing} is missing", argument=missing
            )


def ledger_params(query: LedgerQuery) -> dict[str, str | None]:
    """Everything but the ids of events as the API spells it; what is None is not sent."""
    currencies = query.alternate_currency_names
    return {
        "identifierName": _KINDS[query.identifier.kind],
        "identifierValue": query.identifier.value,
        "source": query.source,
        "accountId": query.account_id,
        **_include_params(query.include),
        "type": query.type,
        "isPrimaryUser": flag_text("is_primary_user", query.is_primary_user),
        "alternateCurrencyNames": None if currencies is None else ",".join(currencies) or None,
        "eventName": query.event_name,
    }
