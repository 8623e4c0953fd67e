"""`Outcome`, which a fan-out gives for each key, and the options and parameters of a run.

Invariant: data only; `FanOutRun` has no position, so that it can be run twice.
Called by `FanOut`, `FanOutIterator` and `WorkerPool`.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar, cast

from attrs import field, frozen

from capillary_async._config import Paging
from capillary_async._fanout.keys import KeySource
from capillary_async._fanout.work import Reader
from capillary_async._html import card
from capillary_async._paging.pager import Position
from capillary_async._priority import BULK_WORK, BulkWork
from capillary_async._repr import brief, brief_repr
from capillary_async.errors import ApiMessage, CapillaryError
from capillary_async.telemetry._observers import Observers

__all__ = ["FanOutOptions", "FanOutRun", "Outcome"]

K = TypeVar("K")
K_co = TypeVar("K_co", covariant=True)
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@frozen
class Outcome(Generic[K_co, T_co]):
    """The result of one key.

    Attributes:
        key: The key, as the endpoint understands it (a decimal string became an int); the raw input value if it was not
            a valid key.
        items: The records; empty when `error` is set.
        error: The error of the key, else None. Its `position` is the beginning, since no record was given.
        warnings: The warnings of all its pages.
        pages: Number of pages read.
    """

    key: K_co
    items: tuple[T_co, ...] = ()
    error: CapillaryError | None = None
    warnings: tuple[ApiMessage, ...] = ()
    pages: int = 0
    _drift: Any = field(default=None, repr=False, eq=False, alias="drift")  # for the jobs

    __repr__ = brief_repr

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """For pydantic and FastAPI, as a return type or a field; the error leaves as its text."""
        from capillary_async._pydantic import values_schema  # noqa: PLC0415 - loaded only when pydantic asks

        key, item = cast("Any", cls).__parameters__
        hints: dict[str, Any] = {
            "key": key,
            "items": cast("Any", tuple)[item, ...],
            "error": dict[str, str] | None,
            "warnings": tuple[dict[str, Any], ...],
            "pages": int,
        }
        return values_schema(cls, source, hints, handler)

    def _repr_html_(self) -> str:
        error = None if self.error is None else f"{type(self.error).__name__}: {self.error}"
        facts = {"error": error, "warnings": self.warnings or None, "pages": self.pages}
        return card(f"Outcome of {brief(self.key, 100)}", {"records": f"{len(self.items):,}", **facts}, self.items)

    @property
    def ok(self) -> bool:
        """Whether the key has no error."""
        return self.error is None

    def unwrap(self) -> tuple[T_co, ...]:
        """The items, or the error raised.

        Raises:
            CapillaryError: The error of this key, as itself.
        """
        if self.error is not None:
            raise self.error
        return self.items


@frozen
class FanOutOptions:
    """The options that `FanOut.options` sets."""

    concurrency: int
    paging: Paging
    unique: bool = True
    progress: bool = False

    __repr__ = brief_repr


@frozen(eq=False, repr=False)
class FanOutRun(Generic[K, T]):
    """The parameters of a run.

    Attributes:
        keys: The input.
        reader: How an endpoint reads keys.
        options: Workers, paging, and whether a repeated key is read once.
        whole: True where the loop takes one outcome per key, False where it takes pages as they come.
        ordered: Whether the outcomes are given in the order of the input.
        work: How its calls wait for a service that is down.
        endpoint: The name of the fan-out, for observers.
        observers: Of the session; None where a user gave none.
    """

    keys: KeySource[K]
    reader: Reader[K]
    options: FanOutOptions
    whole: bool = True
    ordered: bool = False
    work: BulkWork = BULK_WORK
    endpoint: str = ""
    observers: Observers | None = None

    @property
    def workers(self) -> int:
        """Number of workers that can have work."""
        length = self.keys.length
        if length is None:
            return self.options.concurrency
        return min(self.options.concurrency, -(-length // self.reader.batch))

    @property
    def reorder_window(self) -> int | None:
        """Maximum outcomes buffered until an earlier one comes; None where the loop takes them in any order."""
        return 2 * self.options.concurrency * self.reader.batch if self.ordered else None

    def with_key(self, error: CapillaryError, key: Any) -> CapillaryError:
        """The error with its key; its position is the beginning where the pages before it are not given to the loop."""
        error.key = key
        if self.whole and error.position is not None:
            error.position = Position(1)
        return error
