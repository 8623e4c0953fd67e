"""`UnfitError`: a value that a column cannot hold.

Invariant: it names the key, the row and the field. Raised by the tables and the export; imports no pyarrow.
"""

from capillary_async.errors import CapillaryError

__all__ = ["UnfitError"]


class UnfitError(CapillaryError):
    """A value of a record does not fit its column, and nothing is rounded or cut to make it fit.

    Attributes:
        field: The column.
    """

    field: str

    def __init__(self, message: str = "", *, field: str = "") -> None:
        super().__init__(message)
        self.field = field
