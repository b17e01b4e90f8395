"""A generation that was fired: its check tried, what it announces observed, and judged."""

import time
from functools import partial

import msgspec

from mirage_hooks.boot import console as consoles
from mirage_hooks.boot import control, health, network, sockets
from mirage_hooks.boot.control import MonitorState
from mirage_hooks.boot.errors import HostError
from mirage_hooks.boot.generation import Generation, Phase
from mirage_hooks.boot.health import Subject, Verdict
from mirage_hooks.boot.journal import Journal
from mirage_hooks.boot.record import State
from mirage_hooks.boot.watch import Watch

_CONSOLE_LINES = 10
# What a tender says on a host that cannot run the guest, and what there is to do about it.
_KNOWN_CAUSES = {
    "KVM: internal error": "this host's KVM lacks SSE: build the image for spt",
}


def judge(
    state: State, journal: Journal, generation: Generation, watch: Watch
) -> tuple[Verdict, Generation]:
    """Try the check of a generation that was fired; record and log the verdict."""
    console = str(state.console(generation))
    monitor = partial(_monitor, state, generation)
    ports = tuple(one.port for one in network.endpoints(generation.boot))
    subject = Subject(monitor, console, ports, partial(watch.reachable, console))
    verdict = health.examine(generation.check, subject)
    names: dict[str, object] = {"guest": generation.guest, "generation": generation.number}
    observed, warnings = _observe(journal, generation, monitor(), watch, console)
    seen: dict[str, object] = {"observed": observed, "warnings": warnings}
    if not verdict.healthy:
        said = consoles.said(console, _CONSOLE_LINES)
        known = (what for sign, what in _KNOWN_CAUSES.items() if any(sign in one for one in said))
        reason = "; ".join([verdict.reason, *known])
        ended = None if (left := monitor()).alive else time.time()
        generation = state.save(
            generation.become(Phase.FAILED, reason=reason, ended_at=ended, **seen)
        )
        if ended is None:
            control.remember(left, msgspec.to_builtins(generation))
        else:
            control.stop(left)  # or its restart policy would have it once we let go
        journal.event(
            "guest.unhealthy",
            f"{generation.guest}: generation {generation.number} is not healthy: {reason}"
            + "".join(f"\n    {line}" for line in said),
            reason=reason,
            console=said,
            **names,
        )
        return verdict, generation
    generation = state.save(
        generation.become(Phase.HEALTHY, healthy_at=time.time(), reason=verdict.reason, **seen)
    )
    control.remember(monitor(), msgspec.to_builtins(generation))
    journal.event(
        "guest.healthy",
        f"{generation.guest}: generation {generation.number} is healthy ({verdict.reason}) "
        f"after {verdict.seconds * 1000:.0f} ms",
        seconds=verdict.seconds,
        **names,
    )
    return verdict, generation


def _monitor(state: State, generation: Generation) -> MonitorState:
    found = state.monitor_state(generation)
    if found is None:
        raise HostError(
            f"{generation.guest}: generation {generation.number} lost its monitor's state"
        )
    return found


def _observe(
    journal: Journal, generation: Generation, monitor: MonitorState, watch: Watch, console: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Log what a guest was seen to use of the network; return that, and what differs."""
    names: dict[str, object] = {"guest": generation.guest, "generation": generation.number}
    if network.endpoints(generation.boot) or not generation.boot.nics:
        tender = monitor.tender
        found = [f"tcp {end}" for end in sockets.observed(tender.pid)] if tender else []
        seen = f"observed {', '.join(found)}" if found else "observed no listening socket"
        text = f"{generation.guest}: network: {seen}"
        if monitor.alive:
            journal.event("network.observed", text, observed=found, **names)
    else:
        found = []
    warnings = []
    for one in watch.observations(console, monitor.started or generation.created):
        text = f"{generation.guest}: network: {one.device}: {one.text}"
        journal.event("network.observed", text, observed=list(one.addresses), **names)
        found += one.addresses
        if one.warning is not None:
            warnings.append(f"{one.device}: {one.warning}")
            text = f"{generation.guest}: warning: network: {one.device}: {one.warning}"
            journal.event("network.differs", text, device=one.device, **names)
    return tuple(found), tuple(warnings)
