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
from mirage_hooks.boot.errors import Error, HostError
from mirage_hooks.boot.guest import short
from mirage_hooks.boot.host import Host
from mirage_hooks.boot.journal import Journal
from mirage_hooks.boot.manifest import DesiredState
from mirage_hooks.boot.plan import Action, Launch, Verb, Wish, decide, pin_holds, plan
from mirage_hooks.boot.record import Intent, Phase, State
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


class Converger:
    """One converge of one repository."""

    def __init__(self, repository: Repository, asked: Request, log: Journal) -> None:
        self._repository = repository
        self._request = asked
        self._journal = log
        self._state = State(repository.common_dir)
        self._faults: dict[str, Error] = {}

    def run(self) -> int:
        """Converge, once the lock is ours; return the exit code. Raises Error."""
        self._state.check_access()
        host.load(self._state.host_file)
        with lock.hold(self._state.lock, self._request.origin, self._wait):
            # Read after the lock is held: whoever waited converges to the newest state.
            bound, host_text = host.load(self._state.host_file)
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
            wish = request.take(self._request, self._state, self._journal, desired)
            actions = plan(desired, survey.look_at_all(self._state), wish)
            self._say_plan(desired, actions)
            self._carry_out(actions)
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

    def _carry_out(self, actions: list[Action]) -> None:
        """Prepare side by side, stop what is to stop, switch side by side."""
        launches = [action for action in actions if action.boots]
        stops = [action for action in actions if action.verb is Verb.STOP]
        if launches or stops:
            settled.clear(self._state)
        armed = _side_by_side(self._arm, launches)
        for action in stops:
            self._stop(action)
        _side_by_side(self._switch, [switch for switch in armed if switch is not None])
        for action in actions:
            if action.verb is Verb.KEEP:
                self._apply_live(action)

    def _arm(self, action: Action) -> Switch | None:
        assert action.launch is not None  # noqa: S101 - starts and replacements have one
        switch = Switch(self._repository.common_dir, self._state, self._store, self._journal)
        try:
            self._refuse_taken_port(action)
            switch.arm(action.guest, action.launch, self._request.origin)
        except Error as error:
            self._fault(action.guest, error)
            return None
        return switch

    def _refuse_taken_port(self, action: Action) -> None:
        assert action.launch is not None  # noqa: S101
        wanted = network.endpoints(action.launch.boot.arguments)
        ours = frozenset(
            pid for name in self._state.guest_names() for pid in self._pids_of_live(name)
        )
        if found := network.taken(wanted, ours):
            endpoint, process = found
            raise HostError(
                f"{action.guest}: {endpoint} is in use by {process}",
                "end it, or give the guest another port; what runs goes on running",
            )

    def _pids_of_live(self, guest: str) -> list[int]:
        live = survey.look(self._state, guest).live
        monitor = self._state.monitor_state(live) if live is not None else None
        return network.family(monitor.tender.pid) if monitor and monitor.tender else []

    def _switch(self, switch: Switch) -> None:
        """Fire one guest and judge it. What goes wrong is left to `_make_good`."""
        guest = switch.generation.guest
        try:
            live = survey.look(self._state, guest).live
            monitor = self._state.monitor_state(live) if live is not None else None
            switch.fire([(live, monitor)] if live is not None and monitor is not None else [])
            switch.judge()
        except Error as error:
            self._fault(guest, error)

    def _stop(self, action: Action) -> None:
        """Stop a guest, unless another that may take its place could not be prepared."""
        if self._faults:
            self._say(
                "guest.stop-postponed",
                f"{action.guest}: not stopped while another guest cannot be prepared",
                guest=action.guest,
            )
            return
        live = survey.look(self._state, action.guest).live
        assert live is not None  # noqa: S101 - only what is alive is planned to be stopped
        monitor = self._state.monitor_state(live)
        self._state.save(live.become(Phase.ENDED, ended_at=time.time(), reason=action.reason))
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
            if action.launch is None or not action.boots:
                continue
            recover.recover_guest(self._state, self._journal, action.guest)
            known = survey.look(self._state, action.guest)
            wanted = desired.guests.get(action.guest)
            if known.failed(action.launch.boot.digest) is None:
                continue
            if known.intent is not None and pin_holds(known.intent, wanted):
                self._state.set_intent(action.guest, None)
                known = survey.look(self._state, action.guest)
                text = f"{action.guest}: no longer pinned: what it was pinned to is not healthy"
                self._say("guest.unpinned", text, guest=action.guest)
            unready = desired.unready.get(action.guest)
            again.append(decide(action.guest, wanted, unready, known, Wish()))
        again = [action for action in again if action.verb is not Verb.KEEP]
        self._say_plan(desired, again)
        self._carry_out(again)

    # The end.

    def _fault(self, guest: str, error: Error) -> None:
        self._faults[guest] = error
        self._say("guest.fault", str(error), guest=guest)

    def _finish(self, desired: DesiredState, bound: Host, host_text: bytes) -> int:
        """Say how it ended, and stamp it as settled if all is as it should be."""
        known = survey.look_at_all(self._state)
        for name, one in known.items():
            if (
                one.intent
                and one.intent.kind == "pinned"
                and not pin_holds(one.intent, desired.guests.get(name))
            ):
                self._state.set_intent(name, None)
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
            )
        if not problems:
            self._end(0, _summary(final))
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


def _side_by_side(do: Callable[[T], R], over: Iterable[T]) -> list[R]:
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        return list(pool.map(do, over))


def _summary(final: list[Action]) -> str:
    running = [action.guest for action in final if action.verb is Verb.KEEP]
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
    log = Journal(str(state.events), converge, lambda line: print(line, flush=True))
    try:
        _forget_old_runs(state.runs)
        code = Converger(Repository(common_dir), msgspec.json.decode(raw, type=Request), log).run()
    except Error as error:
        code = error.exit_code
        log.event("converge.finished", str(error), exit_code=code)
    except Exception:
        traceback.print_exc()
        code = _BUG_EXIT_CODE
        text = (
            "this is a bug of mirage-hooks; what runs goes on running; "
            f"the log to report: {state.runs}/{converge}.jsonl"
        )
        log.event("converge.finished", text, exit_code=code)
    sys.exit(code)


def _forget_old_runs(runs: Path) -> None:
    for path in sorted(runs.glob("*.jsonl"))[:-_KEPT_RUNS]:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
