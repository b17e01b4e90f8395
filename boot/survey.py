"""What is recorded of a guest, and what of it is really alive."""

from collections.abc import Callable, Mapping
from functools import partial

from mirage_hooks.boot.control import MonitorState
from mirage_hooks.boot.generation import Generation, Phase
from mirage_hooks.boot.plan import Known
from mirage_hooks.boot.process import boot_id
from mirage_hooks.boot.record import DamagedError, State

_BY_ITSELF = {"finished": "", "given-up": "; its monitor has given it up"}
_RUNNING = frozenset({"running", "backing-off"})

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


def damaged(state: State) -> list[DamagedError]:
    """Return what cannot be read of the records of guests."""
    found = []
    for guest in state.guest_names():
        numbers = state.numbers(guest)
        reads: list[Callable[[], object]] = [
            partial(state.intent, guest),
            partial(state.fault, guest),
            *(partial(state.generation, guest, number) for number in numbers),
            *(partial(state.monitor_of, guest, number) for number in numbers),
        ]
        for read in reads:
            try:
                read()
            except DamagedError as error:
                found.append(error)
    return found


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
