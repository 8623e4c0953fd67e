"""Records as tables: the Arrow schema of a model, and what makes columns of it.

Invariant: one schema per model for tables and exports, and no value is rounded, cut or coerced to fit it. Needs the
extra `arrow`; pyarrow is loaded when a name of this package is first used.
Called by `Pager`, `FanOut` and the export; users call `schema`.
"""

from typing import TYPE_CHECKING

from capillary_async._lazy import lazily
from capillary_async.tables._errors import UnfitError

if TYPE_CHECKING:
    from capillary_async.tables._schema import schema

__all__ = ["UnfitError", "schema"]

__getattr__, __dir__ = lazily(__name__, {"_schema": ("schema",)})
