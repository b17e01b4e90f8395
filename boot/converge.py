"""Make what runs equal the desired state and the intents: the one operation behind everything.

Run as `python -m mirage_hooks.boot.converge COMMON_DIR ID REQUEST`, by follow.py, detached.
"""

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from mirage_hooks.boot import (
    control,
    host,
    journal,
    lock,
    manifest,
    network,
    recover,
    request,
    settled,
    survey,
)
from mirage_hooks.boot.control import MonitorState
from mirage_hooks.boot.errors import Error, HostError
from mirage_hooks.boot.guest import short
from mirage_hooks.boot.host import Host
from mirage_hooks.boot.journal import Journal
from mirage_hooks.boot.manifest import DesiredState
from mirage_hooks.boot.plan import Action, Launch, Verb, Wish, decide, pin_holds, plan
from mirage_hooks.boot.record import Generation, Intent, Phase, State
from mirage_hooks.boot.repository import Repository, Revision, clean_environment
from mirage_hooks.boot.request import Request
from mirage_hooks.boot.store import Store
from mirage_hooks.boot.switch import Switch

T = TypeVar("T")
R = TypeVar("R")

# Guests that are prepared, switched and checked at once.
_SIDE_BY_SIDE = 8
_KEPT_RUNS = 50
_BUG_EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h


# A generation that runs, and what its monitor says.
Running = tuple[Generation, MonitorState]


class Converger:
    """One converge of one repository."""

    def __init__(self, repository: Repository, asked: Request, log: Journal) -> None:
        self._repository = repository
        self._request = asked
        self._journal = log
        self._state = State(repository.common_dir)
        self._faults: dict[str, Error] = {}
        self._unarmed: set[str] = set()

    def run(self) -> int:
        """Converge, once the lock is ours; return the exit code. Raises Error."""
        self._state.check_access()
        host.load(self._state.host_file)
        with lock.hold(self._state.lock, self._request.origin, self._wait):
            # Read after the lock is held: whoever waited converges to the newest state.
            bound, host_text = host.load(self._state.host_file)
            self._bound = bound
            self._store = Store(self._state.store, bound.limits.image << 20)
            tip = self._repository.tip(bound.branch)
            self._say(
                "converge.started", f"{bound.branch} at {short(tip.id)} ({self._request.origin})"
            )
            self._say_branch(bound)
            recover.recover(self._state, self._journal)
            if self._request.verb == "stop":
                return self._stop_and_hold(tip, bound)
            desired = manifest.read(tip, bound, self._store)
            if self._request.verb != "deploy":
                settled.clear(self._state)  # before a word of the operator's changes
            wish = request.take(self._request, self._state, self._journal, desired)
            actions = plan(desired, survey.look_at_all(self._state), wish)
            self._say_plan(desired, actions)
            self._carry_out(desired, actions)
            self._make_good(desired, actions)
            return self._finish(desired, bound, host_text)

    def _wait(self, holder: str) -> None:
        self._say("converge.waiting", f"waiting for {holder}")

    def _say(self, name: str, message: str, **fields: object) -> None:
        self._journal.event(name, message, **fields)

    def _say_branch(self, bound: Host) -> None:
        head = self._repository.head_branch()
        if not self._repository.git.bare and head != bound.branch:
            self._say(
                "repository.branch",
                f"{head or 'a detached HEAD'} is checked out, but only {bound.branch} deploys: "
                "pulling into what is checked out changes nothing that runs",
            )

    def _stop_and_hold(self, tip: Revision, bound: Host) -> int:
        """Stop guests and hold them: also where what the repository says cannot be read."""
        there = set(self._state.guest_names())
        with contextlib.suppress(Error):
            there.update(manifest.read_guests(tip, bound))
        request.refuse_unknown(self._request, there)
        settled.clear(self._state)
        for name in sorted(self._request.guests or there):
            self._state.set_intent(name, Intent("held", time.time()))
            if survey.look(self._state, name).live is not None:
                self._stop(Action(Verb.STOP, name, "held by hand"))
            else:
                self._say("guest.held", f"{name}: held by hand", guest=name)
        self._end(0, "done: no pull starts what is held, until `mirage-hooks start` does")
        return 0

    # Carrying out.

    def _say_plan(self, desired: DesiredState, actions: list[Action]) -> None:
        """Say what will be done, and of what is kept only what is not as the repository has it."""
        for action in actions:
            name = action.guest
            if action.verb is not Verb.KEEP or action.problem or name in desired.unready:
                self._say("guest.planned", str(action), guest=name, verb=action.verb)
            wanted = desired.guests.get(name)
            if wanted is not None and action.boots and action.launch == Launch.of(wanted):
                for notice in wanted.notices:
                    self._say("guest.notice", f"{name}: {notice}", guest=name)

    def _carry_out(self, desired: DesiredState, actions: list[Action]) -> None:
        """Prepare side by side, stop what is to stop, switch side by side."""
        launches = [action for action in actions if action.boots]
        stops = [action for action in actions if action.verb is Verb.STOP]
        if launches or stops:
            settled.clear(self._state)
            live = self._all_live()
            ours = frozenset(pid for _, monitor in live.values() for pid in _pids(monitor))
            armed = [one for one in _side_by_side(partial(self._arm, ours), launches) if one]
            if not self._postpone(desired, stops):
                for action in stops:
                    self._stop(action)
                    live.pop(action.guest, None)
            armed = self._abandon_blocked(armed, live)
            moving = {
                switch.generation.guest: live.get(switch.generation.guest) for switch in armed
            }
            _side_by_side(partial(self._switch, moving), armed)
        for action in actions:
            if action.verb is Verb.KEEP:
                self._apply_live(action)

    def _all_live(self) -> dict[str, Running]:
        found = {}
        for name in self._state.guest_names():
            generation = survey.look(self._state, name).live
            monitor = self._state.monitor_state(generation) if generation is not None else None
            if generation is not None and monitor is not None:
                found[name] = (generation, monitor)
        return found

    def _arm(self, ours: frozenset[int], action: Action) -> Switch | None:
        launch = action.launch
        assert launch is not None  # noqa: S101 - starts and replacements have one
        switch = Switch(self._repository.common_dir, self._state, self._store, self._journal)
        try:
            # Once more: it may be a recorded state, from before the host took a right away.
            manifest.admit(launch.boot, self._bound)
            _refuse_taken_port(action.guest, launch, ours)
            if not self._store.path(launch.boot.image).exists():
                where = launch.provenance
                self._store.add(self._repository.blob(where.path, where.blob))
            switch.arm(action.guest, launch, self._request.origin)
        except (Error, OSError) as error:
            self._unarmed.add(action.guest)
            self._fault(action.guest, error)
            return None
        return switch

    def _postpone(self, desired: DesiredState, stops: list[Action]) -> bool:
        """Whether nothing is stopped now: a guest that may take over could not be prepared."""
        new = {name for name in desired.unready if survey.look(self._state, name).last is None}
        waiting = sorted({*self._faults, *new})
        for action in stops if waiting else ():
            text = f"{action.guest}: not stopped while {', '.join(waiting)} cannot be booted"
            self._say("guest.stop-postponed", text, guest=action.guest)
        return bool(waiting)

    def _abandon_blocked(self, armed: list[Switch], live: dict[str, Running]) -> list[Switch]:
        """Give up, before anything is touched, what needs the port of a guest that stays."""
        moving = {switch.generation.guest for switch in armed}
        free = []
        for switch in armed:
            staying = [pair for name, pair in live.items() if name not in moving]
            if holder := next((pair for pair in staying if _in_the_way(pair, switch)), None):
                text = f"{switch.generation.guest}: its port is still that of {holder[0].guest}"
                switch.abandon(text)
                self._unarmed.add(switch.generation.guest)
                self._fault(switch.generation.guest, HostError(text))
            else:
                free.append(switch)
        return free

    def _switch(self, moving: dict[str, Running | None], switch: Switch) -> None:
        """Fire one guest and judge it. What goes wrong is left to `_make_good`.

        It replaces its own live generation, and ends that of any other guest that is moving too and
        has its port: two guests may exchange theirs.
        """
        guest = switch.generation.guest
        try:
            switch.fire(
                [
                    pair
                    for name, pair in moving.items()
                    if pair is not None and (name == guest or _in_the_way(pair, switch))
                ]
            )
            switch.judge()
        except (Error, OSError) as error:
            self._fault(guest, error)

    def _stop(self, action: Action) -> None:
        live = survey.look(self._state, action.guest).live
        assert live is not None  # noqa: S101 - only what is alive is planned to be stopped
        monitor = self._state.monitor_state(live)
        # A failed one stays failed: that mark is on its boot digest.
        phase = Phase.FAILED if live.phase is Phase.FAILED else Phase.ENDED
        self._state.save(live.become(phase, ended_at=time.time(), reason=action.reason))
        if monitor is not None:
            control.stop(monitor)
        text = f"{action.guest}: generation {live.number} stopped: {action.reason}"
        self._say("guest.stopped", text, guest=action.guest, generation=live.number)

    def _apply_live(self, action: Action) -> None:
        """Check and restart policy are no part of a boot: a change of them reboots nothing."""
        live, launch = survey.look(self._state, action.guest).live, action.launch
        if live is None or launch is None:
            return
        if (live.check, live.restart) == (launch.check, launch.restart):
            return
        monitor = self._state.monitor_state(live)
        if live.restart != launch.restart and monitor is not None:
            policy = msgspec.to_builtins(launch.restart.policy())
            try:
                control.ask(monitor.socket, {"do": "restart", "policy": policy}, control.GRACE)
            except OSError as error:
                self._fault(
                    action.guest, HostError(f"{action.guest}: its monitor does not answer: {error}")
                )
                return
        self._state.save(msgspec.structs.replace(live, check=launch.check, restart=launch.restart))
        text = f"{action.guest}: check and restart policy taken over, without a reboot"
        self._say("guest.policy", text, guest=action.guest)

    def _make_good(self, desired: DesiredState, actions: list[Action]) -> None:
        """Roll back what did not come up healthy, and end pins that are over."""
        again = []
        for action in actions:
            if action.launch is None or not action.boots or action.guest in self._unarmed:
                continue
            recover.recover_guest(self._state, self._journal, action.guest)
            known = survey.look(self._state, action.guest)
            wanted = desired.guests.get(action.guest)
            if known.failed(action.launch.boot.digest) is None and known.live is not None:
                continue
            self._faults.pop(action.guest, None)
            failed = known.failed(action.launch.boot.digest) is not None
            if failed and known.intent is not None and pin_holds(known.intent, wanted):
                self._state.set_intent(action.guest, None)
                known = survey.look(self._state, action.guest)
                text = f"{action.guest}: no longer pinned: what it was pinned to is not healthy"
                self._say("guest.unpinned", text, guest=action.guest)
            unready = desired.unready.get(action.guest)
            again.append(decide(action.guest, wanted, unready, known, Wish()))
        again = [action for action in again if action.verb is not Verb.KEEP]
        self._say_plan(desired, again)
        self._carry_out(desired, again)

    # The end.

    def _fault(self, guest: str, error: Error | OSError) -> None:
        told = error if isinstance(error, Error) else HostError(f"{guest}: {error}")
        self._faults[guest] = told
        self._say("guest.fault", str(told), guest=guest)

    def _finish(self, desired: DesiredState, bound: Host, host_text: bytes) -> int:
        """Say how it ended, and stamp it as settled if all is as it should be."""
        for name, one in survey.look_at_all(self._state).items():
            if (
                one.intent
                and one.intent.kind == "pinned"
                and not pin_holds(one.intent, desired.guests.get(name))
            ):
                self._state.set_intent(name, None)
        known = survey.look_at_all(self._state)
        final = plan(desired, known, Wish(allow_empty=True))
        problems, left = dict(self._faults), {}
        for action in final:
            if action.problem is not None:
                problems.setdefault(action.guest, action.problem)
            elif action.verb not in {Verb.KEEP, Verb.SKIP}:
                left[action.guest] = Error(f"{action.guest}: still to do: {action.reason}")
        if self._request.verb == "reboot":
            self._say_left(left)
        else:
            problems = {**left, **problems}
        if not problems and not left:
            settled.write(
                self._state,
                self._repository,
                bound.branch,
                desired.watched,
                desired.revision,
                host_text,
                [monitor.monitor for _, monitor in self._all_live().values()],
            )
            # A guest that ended meanwhile found no stamp to delete.
            if survey.look_at_all(self._state) != known:
                settled.clear(self._state)
        if not problems:
            self._end(0, _summary(final, desired))
            return 0
        codes = [error.exit_code for error in problems.values()]
        code = 1 if 1 in codes else codes[0]
        told = "\n".join(str(error) for error in problems.values())
        self._end(code, f"not as it should be: {told}", problems=sorted(problems))
        return code

    def _say_left(self, left: dict[str, Error]) -> None:
        """A reboot boots what ran: that the repository asks for something else is worth a word."""
        for name, error in left.items():
            text = f"{error.message}; `mirage-hooks deploy` does it"
            self._say("guest.notice", text, guest=name)

    def _end(self, code: int, message: str, **fields: object) -> None:
        self._say("converge.finished", message, exit_code=code, **fields)


def _pids(monitor: MonitorState) -> list[int]:
    return network.family(monitor.tender.pid) if monitor.tender is not None else []


def _in_the_way(running: Running, switch: Switch) -> bool:
    """Whether a running generation has an address that a new one is to listen on."""
    wanted = network.endpoints(switch.generation.boot.arguments)
    held = network.endpoints(running[0].boot.arguments)
    return any(one.overlaps(other) for one in wanted for other in held)


def _refuse_taken_port(guest: str, launch: Launch, ours: frozenset[int]) -> None:
    if found := network.taken(network.endpoints(launch.boot.arguments), ours):
        endpoint, process = found
        raise HostError(
            f"{guest}: {endpoint} is in use by {process}",
            "end it, or give the guest another port; what runs goes on running",
        )


def _side_by_side(do: Callable[[T], R], over: Iterable[T]) -> list[R]:
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        return list(pool.map(do, over))


def _summary(final: list[Action], desired: DesiredState) -> str:
    if not desired.names:
        return f"done: no guest is described: commit a {manifest.NAME}, or use install --guest"
    running = [action.guest for action in final if action.verb is Verb.KEEP]
    if desired.unready:
        return f"done, but for an image that is not there yet: {', '.join(sorted(desired.unready))}"
    if not running:
        return "done: no guest runs"
    if len(running) == 1:
        return f"done: {running[0]} runs as it should"
    return f"done: {len(running)} guests run as they should"


def main() -> None:
    """Converge one repository; everything said goes to standard output, a line an event."""
    common_dir, converge, raw = sys.argv[1:4]
    state = State(Path(common_dir))
    os.umask(0o077)
    environment = clean_environment(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    journal.rotate(str(state.events))
    log = Journal(str(state.events), converge, _print)
    try:
        _forget_old_runs(state.runs)
        code = Converger(Repository(common_dir), msgspec.json.decode(raw, type=Request), log).run()
    except Error as error:
        code = error.exit_code
        log.event("converge.finished", str(error), exit_code=code)
    except OSError as error:
        code = HostError.exit_code
        log.event("converge.finished", f"the state cannot be kept: {error}", exit_code=code)
    except Exception:
        traceback.print_exc()
        code = _BUG_EXIT_CODE
        text = (
            "this is a bug of mirage-hooks; what runs goes on running; "
            f"the log to report: {state.runs}/{converge}.jsonl"
        )
        log.event("converge.finished", text, exit_code=code)
    sys.exit(code)


def _print(line: str) -> None:
    with contextlib.suppress(OSError):  # a full disk; the exit code is left to say it
        print(line, flush=True)


def _forget_old_runs(runs: Path) -> None:
    for path in sorted(runs.glob("*.jsonl"))[:-_KEPT_RUNS]:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
