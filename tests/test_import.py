"""An import costs what is used: which modules are loaded when, asked of fresh interpreters."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pickle
import pydoc
import subprocess
import sys
import typing
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest

import capillary_async
from capillary_async import (
    ApiMessage,
    AttemptRecord,
    EventQuery,
    Identifier,
    LedgerInclude,
    Limits,
    Outcome,
    Paging,
    Position,
    Rate,
    RetryPolicy,
    Timeouts,
    _lazy,
    jobs,
    models,
    sandbox,
)

if TYPE_CHECKING:
    from types import ModuleType

FACES = [capillary_async, models]
HEAVY = ("aiohttp", "anyio", "asyncio", "attr", "cattrs", "msgspec", "ssl")


def loaded(code: str) -> set[str]:
    """The modules that a fresh interpreter holds after the code."""
    told = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True, timeout=30)
    return set(json.loads(done.stdout))


def test_the_import_alone_loads_nothing_heavy() -> None:
    """Not one of our dependencies, and of ours three files."""
    names = loaded("import capillary_async")
    assert {name for name in names if name.startswith("capillary_async")} == {
        "capillary_async",
        "capillary_async._lazy",
        "capillary_async._version",
    }
    assert not names & set(HEAVY)


def test_errors_and_settings_load_no_transport() -> None:
    """What a program names to catch and to configure."""
    names = loaded("from capillary_async import CapillaryError, Timeouts, PointsStatus")
    assert "attr" in names
    assert not names & {"aiohttp", "anyio", "asyncio", "cattrs", "msgspec", "capillary_async._session"}


def test_a_session_loads_neither_the_converter_nor_the_ledger() -> None:
    """What most programs import, and then read plain pages of points with."""
    names = loaded(
        "from capillary_async._codec import decode; from capillary_async import AsyncSession, PointsAllocation\n"
        """assert decode.rows(PointsAllocation, b'[{"id":1,"points_value":1.5,"status":"AVAILABLE"}]').received == 1"""
    )
    assert {"aiohttp", "msgspec", "capillary_async._codec.decode"} <= names
    assert "capillary_async._codec.converter" not in names
    assert "capillary_async.models.points_ledger" not in names
    assert not {name for name in names if name.split(".")[0] in {"cattrs", "pydantic", "cyclopts", "rich", "uvloop"}}


def test_loyalty_events_load_no_ledger() -> None:
    """The converter knows a model of ours without loading the others."""
    names = loaded(
        "from capillary_async._codec import decode as _decode; from capillary_async import LoyaltyEvent\n"
        """assert _decode.rows(LoyaltyEvent, b'[{"customerId":5}]').items[0].customer_id == 5"""
    )
    assert "cattrs" in names
    assert "capillary_async.models.points_ledger" not in names


def imported_for_checkers(face: ModuleType) -> dict[str, set[str]]:
    """The imports under `if TYPE_CHECKING:` of a package, by module below it."""
    assert face.__file__
    body = ast.parse(Path(face.__file__).read_text()).body
    (block,) = [node for node in body if isinstance(node, ast.If) and isinstance(node.test, ast.Name)]
    found = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert len(found) == len(block.body)
    return {
        (node.module or "").removeprefix(f"{face.__name__}."): {alias.name for alias in node.names} for node in found
    }


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.__name__)
def test_checkers_see_what_programs_get(face: ModuleType) -> None:
    """The three lists of a face say the same: those of checkers, of `__all__` and of what is loaded from where."""
    told = imported_for_checkers(face)
    assert {name for names in told.values() for name in names} == set(face.__all__) - {"__version__"}
    for module, names in told.items():
        source = importlib.import_module(f"{face.__name__}.{module}")
        for name in names:
            assert getattr(face, name) is getattr(source, name)
            assert name in vars(face), "kept, so that the next look is an ordinary one"


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.__name__)
def test_a_name_that_is_not_there(face: ModuleType) -> None:
    """As any module says it, with the name that was meant."""
    with pytest.raises(AttributeError, match=f"module '{face.__name__}' has no attribute 'Nothing'") as caught:
        _ = face.Nothing
    assert (caught.value.name, caught.value.obj) == ("Nothing", face)
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        exec(f"from {face.__name__} import Nothing", {})  # noqa: S102
    assert not hasattr(face, "__path_that_is_not__")


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.__name__)
def test_dir_shows_all_without_loading(face: ModuleType) -> None:
    """For completion and `help()`."""
    assert set(face.__all__) <= set(dir(face))
    assert dir(face) == sorted(set(dir(face)))
    assert not set(face.__all__) - {"__version__"} - set(
        json.loads(
            subprocess.run(
                [sys.executable, "-c", f"import json, {face.__name__} as f; print(json.dumps(dir(f)))"],
                capture_output=True, text=True, check=True, timeout=30,
            ).stdout
        )
    )  # fmt: skip


def test_star_import_and_help_and_submodules_in_a_fresh_interpreter() -> None:
    """The ways in that do not name what they want."""
    names = loaded(
        "from capillary_async import *\n"
        "assert AsyncSession.__module__ == 'capillary_async' and LedgerEvent() == LedgerEvent()\n"
        "import capillary_async\n"
        "assert capillary_async.models.points_ledger.LedgerEvent is LedgerEvent\n"
        "assert capillary_async.errors.APIError is APIError and capillary_async.auth.BasicAuth is BasicAuth\n"
    )
    assert "capillary_async.models.points_ledger" in names
    assert "class AsyncSession" in pydoc.plain(pydoc.render_doc(capillary_async))
    assert "class LedgerEvent" in pydoc.plain(pydoc.render_doc(models))


PUBLIC = [
    (face, name)
    for face in (capillary_async, models, jobs, sandbox)
    for name in face.__all__
    if name != "__version__" and not (face is capillary_async and name in models.__all__)
]


@pytest.mark.parametrize(("face", "name"), PUBLIC, ids=lambda each: getattr(each, "__name__", each))
def test_a_public_name_says_where_users_import_it(face: ModuleType, name: str) -> None:
    """Pickles name no private file; hints resolve; a class is found by its path, and its methods by their source."""
    value = getattr(face, name)
    assert (value.__module__, value.__qualname__) == (face.__name__, name)
    pickled = pickle.dumps(value)
    assert face.__name__.encode() in pickled
    assert b"._" not in pickled
    assert pickle.loads(pickled) is value  # noqa: S301 - made above
    assert not [hint for hint in typing.get_type_hints(value).values() if isinstance(hint, str)]
    if isinstance(value, type):
        if attrs.has(value):
            attrs.resolve_types(value)
        with pytest.raises(OSError, match=r"could not find class|source code not available"):
            inspect.getsource(value)
        methods = [one for one in vars(value).values() if inspect.isfunction(one) and one.__name__.isalpha()]
        assert all(one.__name__ in inspect.getsource(one) for one in methods)


def test_instances_pickle_by_public_paths() -> None:
    """Both ways, for those that a program makes or is given."""
    kinds = [getattr(capillary_async, name) for name in capillary_async.__all__ if name.endswith("Error")]
    errors = [kind("m") for kind in kinds]
    settings = [Timeouts(), Limits(), Rate(2, 1), RetryPolicy(), Paging()]
    queries = [EventQuery(1, 2, 3), Identifier.email("a@b.c"), LedgerInclude(), Position(1, 0, 10)]
    records = [getattr(models, name)() for name in models.__all__ if attrs.has(getattr(models, name))]
    enums = [one for name in models.__all__ if issubclass(kind := getattr(models, name), Enum) for one in kind]
    given = [Outcome(7, (models.PointsAwarded(id=1),)), ApiMessage(1, "m"), AttemptRecord(1, "status", 503)]
    for value in [*errors, *settings, *queries, *records, *enums, *given]:
        pickled = pickle.dumps(value)
        again = pickle.loads(pickled)  # noqa: S301 - made above
        assert type(again) is type(value)
        assert repr(again) == repr(value)
        assert b"capillary_async._" not in pickled


def test_what_a_session_loads_is_public_though_no_name_of_it_was_used() -> None:
    """The instances that users get are of these classes."""
    loaded(
        "from capillary_async import AsyncSession\n"
        "from capillary_async._fanout.outcome import Outcome; from capillary_async._paging.page import Page\n"
        "from capillary_async.errors import APIError\n"
        "from capillary_async.endpoints._history_join import HistoryEntry\n"
        "for kind in (Outcome, Page, APIError, HistoryEntry):\n"
        "    assert kind.__module__ == 'capillary_async', kind\n"
    )


def test_records_unpickle_where_nothing_was_loaded() -> None:
    """In a worker process, which has only the bytes."""
    record = models.LedgerEvent(event_log_id=7, event_details=models.EventDetails(till_id=1))
    names = loaded(
        f"import pickle\nrecord = pickle.loads({pickle.dumps(record)!r})\n"
        "from capillary_async import LedgerEvent\n"
        "assert type(record) is LedgerEvent and record.event_details.till_id == 1"
    )
    assert "capillary_async.models.points_ledger" in names


def test_threads_may_touch_and_decode_first_at_the_same_time() -> None:
    """The face, the ledger's models and the converter, each loaded by sixteen threads at once."""
    loaded(
        "import sys, threading\n"
        "import capillary_async\n"
        "sys.setswitchinterval(1e-5)\n"
        "start, got, faults = threading.Barrier(16), [], []\n"
        "def work(number):\n"
        "    start.wait()\n"
        "    try:\n"
        "        if number % 2:\n"
        "            from capillary_async._codec import decode as _decode; from capillary_async import LedgerEvent\n"
        "        else:\n"
        "            from capillary_async._codec import decode as _decode; from capillary_async import AsyncSession\n"
        "            LedgerEvent = capillary_async.models.LedgerEvent\n"
        "        event = {'eventLogId': 1, 'eventDetails': {'tillId': 2}, 'new': 3}\n"
        "        got.append(_decode.structure_rows(LedgerEvent, [event]).items)\n"
        "    except BaseException as error:\n"
        "        faults.append(error)\n"
        "threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]\n"
        "[one.start() for one in threads]\n"
        "[one.join() for one in threads]\n"
        "assert not faults, faults\n"
        "assert len(got) == 16 and all(one == got[0] for one in got), got\n"
    )


def test_a_module_that_cannot_be_loaded_says_so_itself() -> None:
    """Not as an attribute that is missing."""
    look, _ = _lazy.lazily("capillary_async", {"_not_there": ("Gone",)})
    with pytest.raises(ModuleNotFoundError, match="_not_there"):
        look("Gone")
