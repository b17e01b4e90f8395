"""All that was logged of one deploy, from wherever it was logged, in time order."""

import re
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path

from mirage_hooks.boot import journal
from mirage_hooks.boot.console import date, tail
from mirage_hooks.boot.errors import ConfigError
from mirage_hooks.boot.generation import Generation
from mirage_hooks.boot.record import State

# As console.date has it: such dates sort as text.
_DATED = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (.*)")
_ALL = 1_000_000

# A line, after the time it was logged at.
Line = tuple[str, str]


def lines(state: State, converge: str) -> list[str]:
    """Return, dated, the events of a deploy, and what was printed in the generations it booted.

    A line without a time of its own stands behind the one that it was logged after. Raises
    ConfigError where nothing is logged of such a deploy.
    """
    found = [*_events(state, converge)]
    for guest in state.guest_names():
        for generation in state.generations(guest):
            if generation.converge == converge:
                found += _printed(state, generation)
    if not found:
        raise ConfigError(
            f"nothing is logged of a deploy {converge!r}",
            "the first line of a deploy names it, and so does: mirage-hooks history --json",
        )
    return [f"{when} {text}" for when, text in sorted(found, key=itemgetter(0))]


def _events(state: State, converge: str) -> Iterator[Line]:
    """Yield what the converger said, its last words too, and what monitors added later."""
    told, when = set(), ""
    for line in tail(str(state.runs / f"{Path(converge).name}.jsonl"), _ALL):
        event = journal.parse(line)
        if event is None:
            yield when, f"converger| {line}"
            continue
        when, text = _line(event)
        told.add(journal.encode(event))
        yield when, text
    for event in journal.read(str(state.events)):
        if event.get("converge") == converge and journal.encode(event) not in told:
            yield _line(event)


def _line(event: dict[str, object]) -> Line:
    when = event.get("time")
    return date(when) if isinstance(when, float) else "", str(event["message"])


def _printed(state: State, generation: Generation) -> Iterator[Line]:
    """Yield a generation's console, and its monitor's log."""
    console = state.console(generation)
    name = f"{generation.guest} {generation.number}"
    for path, who in ((console.with_name("monitor.log"), f"monitor of {name}"), (console, name)):
        when = date(generation.created)
        for line in tail(str(path), _ALL):
            dated = _DATED.match(line)
            when, text = dated.groups() if dated is not None else (when, line)
            yield when, f"{who}| {text}"
