"""docs/reference.md lists every kind of event: those that are logged, and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirage_hooks.boot import severity

ROOT = Path(__file__).parents[1]
SECTION = (ROOT / "docs" / "reference.md").read_text().partition("\n## Events\n")[2]
TABLE = SECTION.partition("\n## ")[0]

# What logs an event: its first argument is the kind, its keywords are fields.
LOGGING = {"event", "_event", "_say", "make_event"}
# Some kinds are handed on to where they are logged.
KIND = re.compile(r"(converge|guest|network|repository|state|collect|notify)[.][a-z]+(-[a-z]+)*")
# What is in every event, or in every one that is about a guest or a boot of it.
COMMON = {"guest", "generation"}


def calls() -> Iterator[tuple[str, set[str]]]:
    """Yield, for each place in the code that logs an event, its kind and its own fields."""
    for layer in ("boot", "hooks", "installer"):
        for path in (ROOT / layer).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and (kind := kind_of(node)) is not None:
                    yield kind, {word.arg for word in node.keywords if word.arg} - COMMON


def kind_of(call: ast.Call) -> str | None:
    """Return the kind of event that a call logs, None for one that logs none."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name == "_end":
        return "converge.finished"
    match call.args:
        case [ast.Constant(value=str(kind)), *_] if name in LOGGING:
            return kind
    return None


def documented() -> dict[str, tuple[set[str], str]]:
    """Return each kind of event in the table, its fields, and when it is told."""
    found = {}
    for kind, row in re.findall(r"^\| `([^`]+)` \|(.*)\|$", TABLE, re.MULTILINE):
        _, fields, told = row.split("|")
        found[kind] = (set(re.findall(r"`([a-z_]+)`", fields)), told.strip())
    return found


def named() -> Iterator[str]:
    """Yield the kinds of events that the code names, but for its tables of them."""
    for layer in ("boot", "hooks", "installer"):
        for path in (ROOT / layer).rglob("*.py"):
            if path.name in {"severity.py", "journal.py"}:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Constant(value=str(text)) if KIND.fullmatch(text):
                        yield text


CALLS = [*calls()]
LOGGED = sorted({*named()})
DOCUMENTED = documented()


def test_the_table_lists_the_kinds_of_events_that_are_logged() -> None:
    assert sorted(DOCUMENTED) == LOGGED


@pytest.mark.parametrize("kind", LOGGED)
def test_the_table_lists_the_fields_of_an_event(kind: str) -> None:
    logged = set[str]().union(*(fields for one, fields in CALLS if one == kind))
    assert DOCUMENTED[kind][0] == logged


@pytest.mark.parametrize("kind", LOGGED)
def test_the_table_says_which_events_are_told(kind: str) -> None:
    told = severity.outcome({"event": kind, "verb": "roll back"}) is not None
    assert bool(DOCUMENTED[kind][1]) == told


@pytest.mark.parametrize("verb", ["keep", "start", "replace", "stop", "skip"])
def test_of_what_is_planned_only_a_roll_back_is_told(verb: str) -> None:
    assert severity.outcome({"event": "guest.planned", "verb": verb}) is None


def test_a_deploy_that_succeeds_is_not_told() -> None:
    assert severity.outcome({"event": "converge.finished", "exit_code": 0}) is None


@pytest.mark.parametrize("code", [1, 3, 4, 5, 6, 70])
def test_a_deploy_that_fails_is_told(code: int) -> None:
    assert severity.outcome({"event": "converge.finished", "exit_code": code}) is not None
