"""What is recorded of a guest, and what of it is really alive."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from mirage_hooks.boot.control import MonitorState
from mirage_hooks.boot.generation import Generation, Phase
from mirage_hooks.boot.plan import Known
from mirage_hooks.boot.process import boot_id
from mirage_hooks.boot.record import DamagedError, State

_BY_ITSELF = {"finished": "", "given-up": "; its monitor has given it up"}
_RUNNING = frozenset({"running", "backing-off"})

T = TypeVar("T")

# A generation that runs, and what its monitor says.
Running = tuple[Generation, MonitorState]


def look(state: State, guest: str) -> Known:
    """Return what is known of a guest. Raises HostError where the state folder is damaged."""
    generations = state.generations(guest)
    live, monitor = _live(state, generations) or (None, None)
    ended = None if live is not None else _ended_by_itself(state, generations)
    return Known(
        generations=tuple(generations),
        live=live,
        monitor=monitor,
        given_up=f"the guest {ended.exit}{_BY_ITSELF[ended.phase]}" if ended is not None else None,
        ended_well=ended is not None and ended.exit_code == 0,
        intent=state.intent(guest),
        fault=state.fault(guest),
    )


def look_at_all(state: State) -> dict[str, Known]:
    """Return what is known of every guest that ever was here."""
    return {guest: look(state, guest) for guest in state.guest_names()}


def read_all(state: State) -> tuple[list[MonitorState], list[DamagedError]]:
    """Return the monitors of all generations that are recorded, and what cannot be read."""
    monitors: list[MonitorState] = []
    damaged: list[DamagedError] = []

    def attempt(read: Callable[[], T]) -> T | None:
        try:
            return read()
        except DamagedError as error:
            damaged.append(error)
            return None

    for guest in state.guest_names():
        attempt(partial(state.intent, guest))
        attempt(partial(state.fault, guest))
        for number in state.numbers(guest):
            generation = attempt(partial(state.generation, guest, number))
            monitor = attempt(partial(state.monitor_of, guest, number))
            if generation is not None and monitor is not None:
                monitors.append(monitor)
    return monitors, damaged


def running(known: Mapping[str, Known]) -> dict[str, Running]:
    """Return every generation that runs, by its guest."""
    return {
        name: (one.live, one.monitor)
        for name, one in known.items()
        if one.live is not None and one.monitor is not None
    }


def _live(state: State, generations: list[Generation]) -> Running | None:
    for generation in reversed(generations):
        monitor = state.monitor_state(generation)
        if monitor is not None and is_live(monitor):
            return generation, monitor
    return None


def is_live(monitor: MonitorState | None) -> bool:
    """Whether a guest runs, or its monitor is about to restart it."""
    return monitor is not None and monitor.phase in _RUNNING and monitor.monitor.alive


def how_lost(monitor: MonitorState | None) -> str:
    """Return how a generation ended whose monitor had no time to say so."""
    if monitor is None:
        return "its monitor is gone, and what it said is lost"
    if monitor.monitor.boot != boot_id():
        return "the host went down"
    return "its monitor was killed, and the guest with it"


def _ended_by_itself(state: State, generations: list[Generation]) -> MonitorState | None:
    """Return the current generation's monitor, if it left its guest ended, in this boot."""
    current = next((one for one in reversed(generations) if one.phase is Phase.HEALTHY), None)
    monitor = state.monitor_state(current) if current is not None else None
    if monitor is None or monitor.phase not in _BY_ITSELF or monitor.monitor.boot != boot_id():
        return None
    return monitor
