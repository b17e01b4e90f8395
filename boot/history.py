"""What is left of generations that were collected: a line each, in guests/GUEST/history.jsonl.

No converge reads it: its cost does not grow with what once ran.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from mirage_hooks.boot import journal
from mirage_hooks.boot.files import append_durably
from mirage_hooks.boot.generation import Generation
from mirage_hooks.boot.record import State

# Past this size a history is set aside (once: .1 is replaced): a thousand lines and more.
_ROTATE_BYTES = 1 << 20


class Past(msgspec.Struct, frozen=True):
    """A generation, and what its monitor has to say of its end."""

    generation: Generation
    exit: str | None = None
    restarts: int = 0
    collected: bool = False


def describe(state: State, generation: Generation, collected: bool = False) -> Past:
    """Return a recorded generation as history shows it. Raises HostError."""
    monitor = state.monitor_state(generation)
    if monitor is None:
        return Past(generation, collected=collected)
    return Past(generation, monitor.exit, monitor.restarts, collected)


def keep(state: State, guest: str, collected: Iterable[Past]) -> None:
    """Note, durably, generations that are about to be removed. Raises OSError."""
    lines = b"".join(msgspec.json.encode(past) + b"\n" for past in collected)
    if lines:
        path = state.history(guest)
        journal.rotate(str(path), _ROTATE_BYTES)
        append_durably(path, lines)


def collected(state: State, guest: str) -> list[Past]:
    """Return what is left of a guest's collected generations.

    Where a converge was killed, some may be there yet, and some be noted twice.
    """
    path = state.history(guest)
    return [past for part in (path.with_name(f"{path.name}.1"), path) for past in _read(part)]


def ever(state: State, guest: str) -> list[Past]:
    """Return every generation of a guest, collected or not, each of them once. Raises HostError."""
    # What is there is read first: what is collected meanwhile is found noted, then.
    there = [describe(state, generation) for generation in state.generations(guest)]
    found = {past.generation.number: past for past in [*collected(state, guest), *there]}
    return list(found.values())


def _read(path: Path) -> Iterator[Past]:
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    for line in lines:
        try:
            yield msgspec.json.decode(line, type=Past)
        except msgspec.DecodeError:
            continue  # a crash cut it short: what it was about was not removed then
