"""The path of each fault in the tree of errors that cattrs raises.

Invariant: every fault has its path, in the order of the JSON. Called by the converter.
"""

from collections.abc import Iterator

from cattrs.errors import AttributeValidationNote, BaseValidationError, IterableValidationNote

from capillary_async._codec.wire_names import name_at

__all__ = ["faults_of"]


def faults_of(error: BaseException, path: str) -> Iterator[tuple[str, str]]:
    """Yield each fault in cattrs' tree of errors with its path, in order; without recursion, since JSON may be deep."""
    waiting = [(error, path)]
    while waiting:
        current, at = waiting.pop()
        if isinstance(current, BaseValidationError):
            waiting += [(inner, at + _step(current, inner)) for inner in reversed(current.exceptions)]
        else:
            yield _fault(current, at)


def _fault(error: BaseException, path: str) -> tuple[str, str]:
    if isinstance(error, KeyError) and getattr(error, "__notes__", None):
        return path, "is missing"  # a member without a default in a user's class
    if isinstance(error, ValueError):
        return path, str(error)
    return path, f"{type(error).__name__}: {error}"


def _step(group: BaseValidationError, error: BaseException) -> str:
    """The step from an object or array to the member or entry at fault, from the note that cattrs adds."""
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, IterableValidationNote):
            return f"[{note.index}]"
        if isinstance(note, AttributeValidationNote):
            return f".{name_at(group.cl, note.name)}"
    return ""
