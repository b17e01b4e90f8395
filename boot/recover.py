"""Finish, in the records, what a converge that was cut short had begun."""

import contextlib
import time

from mirage_hooks.boot import control, survey, wiring
from mirage_hooks.boot.control import MonitorState
from mirage_hooks.boot.generation import Generation, Phase
from mirage_hooks.boot.journal import Journal
from mirage_hooks.boot.judge import judge
from mirage_hooks.boot.plan import Known
from mirage_hooks.boot.record import State
from mirage_hooks.boot.switch import fire_seconds
from mirage_hooks.boot.watch import Watch

_PAUSE = 0.02


def recover(state: State, journal: Journal) -> dict[str, Known]:
    """Recover every guest, and return what is known of each.

    The caller holds the lock, so no other converger is at work.
    """
    return {guest: recover_guest(state, journal, guest) for guest in state.guest_names()}


def recover_guest(state: State, journal: Journal, guest: str) -> Known:
    """Leave every generation of a guest judged, and at most one of them alive; return what is."""
    for generation in state.generations(guest):
        if generation.unjudged:
            _conclude(state, journal, generation)
    known = survey.look(state, guest)
    others = [one for one in known.generations if one != known.live]
    changed = [one for one in others if _lay_to_rest(state, one)]
    return survey.look(state, guest) if changed else known


def _lay_to_rest(state: State, generation: Generation) -> bool:
    """End what is left of a generation that is not the live one; return whether that changed it."""
    monitor = state.monitor_state(generation)
    left = monitor is not None and (monitor.monitor.alive or monitor.alive)
    if monitor is not None and left:
        control.stop(monitor)
    lost = False
    if generation.phase is Phase.FAILED and generation.ended_at is None:
        reason = generation.reason
    elif generation.phase is not Phase.HEALTHY:
        return False
    elif not left and (monitor is None or monitor.phase in control.LIVE):
        reason, lost = survey.how_lost(monitor), True
    elif (successor := _successor(state, generation)) is not None:
        reason = f"replaced by generation {successor}"
    else:
        return False  # it ended by itself, and nothing came after it
    state.save(generation.end(reason, lost))
    return True


def _conclude(state: State, journal: Journal, generation: Generation) -> None:
    """Judge a generation that was left behind, or give it up."""
    monitor = _come_to_rest(state, generation)
    if monitor is not None and monitor.started is not None:
        if monitor.monitor.alive:
            watch = Watch(generation.boot, wiring.taps_of(state, generation), late=True)
            with contextlib.closing(watch):
                judge(state, journal, generation, watch)
            return
        if monitor.exit is not None and monitor.phase != "stopped":
            reason = f"the guest {monitor.exit}"
            state.save(generation.become(Phase.FAILED, reason=reason, ended_at=time.time()))
            return
    reason = "the converge that began it was cut short"
    if monitor is not None and monitor.started is not None and monitor.phase in control.LIVE:
        reason = f"{survey.how_lost(monitor)}, before its check was over"
    state.save(generation.become(Phase.ABANDONED, ended_at=time.time(), reason=reason))
    journal.event(
        "guest.abandoned",
        f"{generation.guest}: generation {generation.number} is given up: {reason}",
        guest=generation.guest,
        generation=generation.number,
    )


def _come_to_rest(state: State, generation: Generation) -> MonitorState | None:
    """Wait until the monitor of an unjudged generation has disarmed, or booted its guest."""
    deadline = time.monotonic() + fire_seconds(generation.boot)
    while True:
        monitor = state.monitor_state(generation)
        if monitor is None or not monitor.monitor.alive:
            return monitor
        if monitor.phase not in {"armed", "switching"} or time.monotonic() > deadline:
            return monitor
        time.sleep(_PAUSE)


def _successor(state: State, generation: Generation) -> int | None:
    """Return the first later generation that was really booted."""
    for later in state.generations(generation.guest):
        monitor = state.monitor_state(later)
        if later.number > generation.number and monitor is not None and monitor.started is not None:
            return later.number
    return None
