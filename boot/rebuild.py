"""Make the records whole where some were lost or damaged: from what is alive, and said so.

What cannot be read is set aside. A monitor that runs and is not recorded is found by its socket, or
else as a process, and asked what it is: the record that it was given comes back. One that cannot
say is stopped, so that no second guest is ever booted beside the first.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec
import psutil

from mirage_hooks.boot import control, runtime, survey
from mirage_hooks.boot.control import MonitorState
from mirage_hooks.boot.generation import Generation, Phase
from mirage_hooks.boot.intent import HELD, Intent
from mirage_hooks.boot.journal import Journal
from mirage_hooks.boot.process import ProcessId, identify
from mirage_hooks.boot.record import DamagedError, State

_MODULE = "mirage_hooks.boot.monitor"
# How long a monitor may take to listen again, seconds.
_LISTEN_SECONDS = 5.0
_PAUSE = 0.02


def rebuild(state: State, journal: Journal) -> None:
    """Leave no record that cannot be read, and no monitor that is not recorded.

    The caller holds the lock.
    """
    monitors, lost = survey.read_all(state)
    for error in lost:
        _set_aside(journal, error)
    for guest in (error.guest for error in lost if error.is_intent):
        _hold_again(state, journal, guest)
    recorded = {monitor.socket for monitor in monitors}
    for path in sorted(runtime.folder(state.folder.parent).iterdir()):
        if str(path) not in recorded:
            _take_over(state, journal, str(path))
    # The stamp that all is well is missing where a record is: then it is worth a look at /proc.
    if lost or not state.settled.exists() or _missing(state, monitors):
        for folder, process in _strangers(state):
            _ask_back(state, journal, folder, process)


def _set_aside(journal: Journal, error: DamagedError) -> None:
    aside = error.path.with_name(f"{error.path.name}.damaged")
    error.path.rename(aside)
    journal.event("state.damaged", f"{error.message}; set aside as {aside.name}", path=str(aside))


def _hold_again(state: State, journal: Journal, guest: str) -> None:
    """Hold a guest whose intent is lost, if it was: its newest generation says so."""
    newest = next(reversed(state.generations(guest)), None)
    if newest is not None and newest.reason == HELD:
        state.set_intent(guest, Intent("held", newest.ended_at or time.time()))
        text = f"{guest}: {HELD}, as its last generation was: the word on it was lost"
    else:
        text = f"{guest}: it follows the repository: the word on it is lost"
    journal.event("state.rebuilt", text, guest=guest)


def _missing(state: State, monitors: Iterable[MonitorState]) -> bool:
    """Whether a monitor lives that was there when all was well, and that no record names."""
    recorded = {monitor.monitor.pid for monitor in monitors}
    with contextlib.suppress(OSError, ValueError):
        for line in state.monitors.read_text().splitlines():
            pid, start = map(int, line.split())
            if pid not in recorded and identify(pid).start == start:
                return True
    return False


def _strangers(state: State) -> list[tuple[Path, ProcessId]]:
    """Return this user's monitors of this state folder that are not recorded, by their folders."""
    monitors, _ = survey.read_all(state)
    recorded = {monitor.monitor for monitor in monitors}
    found = {}
    for process in psutil.process_iter(["cmdline", "uids", "ppid"]):
        arguments, uids = process.info["cmdline"] or [], process.info["uids"]
        if _MODULE not in arguments[:-1] or uids is None or uids.real != os.geteuid():
            continue
        folder = Path(arguments[arguments.index(_MODULE) + 1])
        if folder.parent.parent == state.folder / "guests" and folder.name.isdecimal():
            found[process.pid] = (folder, process.info["ppid"])
    strangers = []
    for pid, (folder, parent) in found.items():
        # A tender that was not fired yet is a fork of its monitor.
        if parent not in found:
            with contextlib.suppress(ProcessLookupError):
                if (identity := identify(pid)) not in recorded:
                    strangers.append((folder, identity))
    return strangers


def _ask_back(state: State, journal: Journal, folder: Path, process: ProcessId) -> None:
    """Have a monitor listen again, and take it over; or end it."""
    guest, number = folder.parent.name, int(folder.name)
    known = state.generation(guest, number)
    if known is not None and known.phase is Phase.PREPARING:
        return  # it is on its way up, and will find nobody who lets it go
    if _catches(process.pid, signal.SIGHUP):
        process.kill(signal.SIGHUP)
        deadline = time.monotonic() + _LISTEN_SECONDS
        while process.alive and time.monotonic() < deadline:
            # Not where this user's sockets would be now: where its own is.
            said = state.monitor_of(guest, number)
            mine = said is not None and said.monitor == process
            if said is not None and mine and _take_over(state, journal, said.socket):
                return
            time.sleep(_PAUSE)
    process.kill(signal.SIGTERM)
    if not process.wait_gone(control.GRACE + 2):
        process.kill()
        process.wait_gone(control.GRACE)
    _say_stopped(journal, guest, number)


def _catches(pid: int, signum: int) -> bool:
    """Whether a process has a handler for a signal (SigCgt of proc_pid_status(5))."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (signum - 1) & 1)
    return False


def _take_over(state: State, journal: Journal, path: str) -> bool:
    """Record anew who listens on a socket, or stop what cannot say; whether anybody does."""
    try:
        monitor, record = control.describe(path)
    except (OSError, ValueError, TypeError, KeyError):
        return False  # nobody: its monitor was killed
    if monitor.phase in control.ENDED or monitor.phase == "armed":
        return True  # it is about to be gone: whoever could let its guest go is
    if (generation := _generation(state, path, record)) is None:
        control.stop(monitor)
        _say_stopped(journal, "a guest", int(path.rpartition("-")[2]))
        return True
    if generation.unjudged:  # it was given its record when it was made
        generation = generation.become(Phase.FIRED)
    folder = state.generation_folder(generation.guest, generation.number)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if state.generation(generation.guest, generation.number) is None:
        state.save(generation)
    if state.monitor_state(generation) is None:  # it could not do so itself
        control.write_json(str(folder / control.STATE), control.state_to(monitor))
    journal.event(
        "state.rebuilt",
        f"{generation.guest}: generation {generation.number} runs, and what was recorded of it is "
        "lost: recorded anew as its monitor describes it",
        guest=generation.guest,
        generation=generation.number,
    )
    return True


def _generation(state: State, path: str, record: dict[str, object]) -> Generation | None:
    """Return the generation of a socket: by its monitor's record, or if that has none by ours."""
    with contextlib.suppress(msgspec.ValidationError):
        return msgspec.convert(record, Generation)
    for guest in state.guest_names():
        for generation in state.generations(guest):
            if runtime.socket_path(state.folder.parent, guest, generation.number) == path:
                return generation
    return None


def _say_stopped(journal: Journal, guest: str, number: int) -> None:
    journal.event(
        "state.rebuilt",
        f"{guest}: generation {number} ran, what was recorded of it is lost, and its monitor "
        "cannot say what it is: stopped, to be booted anew",
    )
