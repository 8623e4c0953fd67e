"""`--help` of every command, as a terminal of 100 columns shows it."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import pytest
from support.words import banned_words

from capillary_async.cli import main
from capillary_async.cli._app import app

if TYPE_CHECKING:
    from cyclopts import App

READING = ("allocations", "awarded", "events", "ledger")
EXPORTS = tuple(f"export {name}" for name in READING)
REPORTS = ("report expiry", "report liability")
COMMANDS = (
    *("", "demo", "sandbox", *READING, "export", *EXPORTS, "verify", "replay", "reconcile", "publish", "report"),
    *REPORTS,
)


def commands(of: App, before: str = "") -> list[str]:
    """The names of all commands that an application has."""
    names = [name for name in of if not name.startswith("-")]
    return [each for name in names for each in (f"{before}{name}", *commands(of[name], f"{before}{name} "))]


@pytest.fixture(name="shown")
def shown_help(
    request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> str:
    """The help of the command in `request.param`."""
    monkeypatch.setenv("COLUMNS", "100")
    assert main([*request.param.split(), "--help"] if request.param else []) == 0
    return capfd.readouterr().out


def group(shown: str, title: str) -> set[str]:
    """The options of a group."""
    lines = shown.partition(f"\n{title}:\n")[2].splitlines()
    end = next((number for number, line in enumerate(lines) if not line.startswith("  ")), len(lines))
    names = [line.strip().partition("  ")[0] for line in lines[:end] if not line.startswith("   ")]
    return {word for name in names for word in re.findall(r"--[\w-]+", name) if not word.startswith("--no-")}


def test_all_commands_are_looked_at() -> None:
    """A new command is added to this test."""
    assert sorted(commands(app)) == sorted(COMMANDS[1:])


@pytest.mark.parametrize(("command", "shown"), [(each, each) for each in COMMANDS], indirect=["shown"])
def test_the_form(command: str, shown: str) -> None:
    """Each fits a screen, ends with its exit codes and an example, and has no default that means nothing."""
    lines = shown.splitlines()
    assert lines[0].startswith(f"Usage: capillary-async {command}".rstrip())
    assert len(lines) <= 40
    assert max(len(line.rstrip()) for line in lines) <= 100
    assert "\nExit codes: 0 " in shown
    assert lines[-1].startswith(f"Example: capillary-async {command}".rstrip())
    assert "[default: ()]" not in shown
    assert "None" not in shown
    assert list(banned_words(shown)) == []


@pytest.mark.parametrize(("command", "shown"), [(each, each) for each in COMMANDS], indirect=["shown"])
def test_the_example(command: str, shown: str) -> None:
    """It is parsed, by the command itself or, of a group of commands, by one of them."""
    tokens = shlex.split(shown.splitlines()[-1])[2:]
    found, _, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    name = (
        f"export_{tokens[1]}"
        if tokens[0] == "export"
        else f"report_{tokens[1]}"
        if tokens[0] == "report"
        else tokens[0]
    )
    assert found.__name__ == name
    assert " ".join(tokens).startswith(command)


@pytest.mark.parametrize(("command", "shown"), [(each, each) for each in COMMANDS], indirect=["shown"])
def test_the_groups(command: str, shown: str) -> None:
    """Connection and sandbox have groups of their own, in the commands that use them and in no other."""
    connects = command in (*READING, *EXPORTS, "verify")
    assert bool(group(shown, "Connection")) is connects
    assert bool(group(shown, "Sandbox")) is connects
    if connects:
        assert group(shown, "Connection") == {
            *("--base-url", "--username", "--password-file", "--client-key", "--client-secret-file"),
            *("--proxy", "--ca-file", "--client-cert"),
            *("--server-timezone", "--dag-scope", "--concurrency", "--rate", "--shared-rate", "--attempts"),
            *("--page-size", "--verify"),
        }
        assert group(shown, "Sandbox") == {"--sandbox", "--customers", "--seed"}
    if command in (*READING, *EXPORTS):
        assert {"--ids", "--ids-column"} <= group(shown, "Ids")
        assert {"--out", "--format", "--quiet"} <= group(shown, "Output")
    if command in EXPORTS:
        assert {"--paranoid", "--grace"} <= group(shown, "Output")


@pytest.mark.parametrize(("command", "shown"), [(each, each) for each in COMMANDS], indirect=["shown"])
def test_the_exit_codes(command: str, shown: str) -> None:
    """Each command has those that it ends with."""
    text = " ".join(shown.split())
    assert ("3 differences found" in text) is (command in ("", "verify", "reconcile"))
    assert ("141 SIGPIPE" in text) is (command in READING)
    assert ("130 SIGINT" in text) is (command != "sandbox")


@pytest.mark.parametrize("shown", ["export allocations"], indirect=True)
def test_options_that_belong_together_share_a_line(shown: str) -> None:
    """Each is named once, on the line whose text describes them all, with their defaults in order."""
    assert "  --concurrency, --attempts    Maximum requests at once; attempts per call. [default: 32, 5]\n" in shown
    assert not re.search(r"With --", shown)
    named = re.findall(r"^  (--[^ ]+(?:, --[^ ]+)*)", shown, flags=re.MULTILINE)
    options = [option for line in named for option in line.split(", ")]
    assert len(options) == len(set(options))


def test_every_shared_line_is_there() -> None:
    """An option that shares the line of another names one of its own group."""
    for command in COMMANDS[1:]:
        given = app[command.split()[0]]
        given = given[command.split()[1]] if " " in command else given
        if command in ("export", "report"):
            continue
        arguments = given.assemble_argument_collection()
        texts = {each.name: (each.parameter.help or "", each.parameter.group) for each in arguments}
        for text, group_of in texts.values():
            found = re.fullmatch(r"With (--[\w-]+)\.", " ".join(text.split()))
            assert found is None or texts[found[1]][1] == group_of
