"""Carry a plan out: prepare side by side, stop what is to stop, switch, make good."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from typing import TypeVar

import msgspec

from mirage_hooks.boot import (
    control,
    domains,
    recover,
    settled,
    sockets,
    succession,
    survey,
    targets,
)
from mirage_hooks.boot.desired import DesiredState
from mirage_hooks.boot.errors import Error, HostError
from mirage_hooks.boot.generation import Generation
from mirage_hooks.boot.host import Host
from mirage_hooks.boot.journal import Journal
from mirage_hooks.boot.plan import Action, Known, Launch, Verb, Wish, decide, pin_holds
from mirage_hooks.boot.preparation import Preparation
from mirage_hooks.boot.record import State
from mirage_hooks.boot.sockets import Listening
from mirage_hooks.boot.survey import Running
from mirage_hooks.boot.switch import Switch, end
from mirage_hooks.boot.wiring import Held

T = TypeVar("T")
R = TypeVar("R")

# Guests that are prepared, switched and checked at once.
_SIDE_BY_SIDE = 8


class Execution:
    """The carrying out of one converge's plan, from what is `known` of each guest.

    `faults` are the guests it could not serve, `changed` those it booted, tried to, or stopped;
    `unprepared` are the boot digests that it could not bring to stand armed, by their guest.
    """

    def __init__(
        self,
        preparation: Preparation,
        state: State,
        bound: Host,
        journal: Journal,
        known: dict[str, Known],
    ) -> None:
        self._preparation = preparation
        self._state = state
        self._bound = bound
        self._journal = journal
        self._known = known
        self.unprepared: dict[str, str] = {}
        self.faults: dict[str, Error] = {}
        self.changed: set[str] = set()

    def _announce(self, desired: DesiredState, actions: list[Action]) -> None:
        """Say what will be done, and of what is kept only what is not as the repository has it."""
        for action in actions:
            name = action.guest
            if action.verb is not Verb.KEEP or action.problem or name in desired.unready:
                self._say("guest.planned", str(action), guest=name, verb=action.verb)
            wanted = desired.guests.get(name)
            if wanted is not None and action.boots and action.launch == Launch.of(wanted):
                for notice in wanted.notices:
                    self._say("guest.notice", f"{name}: {notice}", guest=name)

    def carry_out(
        self, desired: DesiredState, actions: list[Action], gone: Sequence[str] = ()
    ) -> None:
        """Say what will be done, then do it: prepare side by side, stop, switch side by side.

        All are prepared before any is touched; they are switched by their place at startup. Of the
        guests that are `gone` what may serve on without a monitor is ended as what is stopped.
        """
        self._announce(desired, actions)
        launches = [action for action in actions if action.boots]
        self.changed.update(action.guest for action in launches)
        if launches or any(action.verb is Verb.STOP for action in actions):
            settled.clear(self._state)
            live = survey.running(self._known)
            taken = sockets.listening(but=_pids(live.values())) if launches else {}
            self._preparation.make_bridges(
                [
                    *(one.boot for one in desired.guests.values()),
                    *(one.launch.boot for one in launches if one.launch is not None),
                ]
            )
            armed = [one for one in _side_by_side(partial(self._arm, taken), launches) if one]
            self._end(desired, actions, gone, live)
            while len(free := self._abandon_blocked(armed, live)) < len(armed):
                armed = free  # one that stays now may be in the way of another
            moving = [switch.generation for switch in armed]
            for batch in _in_order(armed, desired.startup):
                _side_by_side(partial(self._switch, moving, live), batch)
        else:
            self._end(desired, actions, gone, {})
        for action in actions:
            if action.verb is Verb.KEEP:
                self._apply_live(action)

    def _arm(self, taken: Listening, action: Action) -> Switch | None:
        launch = action.launch
        assert launch is not None  # noqa: S101 - starts and replacements have one
        try:
            return self._preparation.arm(action.guest, launch, taken, Held.by(self._known))
        except (Error, OSError) as error:
            self.unprepared[action.guest] = launch.boot.digest
            self._fault(action.guest, error)
            return None

    def _end(
        self,
        desired: DesiredState,
        actions: list[Action],
        gone: Sequence[str],
        live: dict[str, Running],
    ) -> None:
        """End what is wanted no more, unless what may take its place could not be prepared."""
        stops = [action for action in actions if action.verb is Verb.STOP]
        postponed = {action.guest for action in actions if action.postponed}
        if self._postpone(desired, stops, postponed):
            return
        for action in stops:
            if self.stop(action):
                live.pop(action.guest, None)
        for name in gone:
            self.leave_no_domain(name)

    def _postpone(
        self, desired: DesiredState, stops: list[Action], postponed: AbstractSet[str]
    ) -> bool:
        """Whether nothing is stopped now: a guest that may take over could not be prepared."""
        new = {name for name in desired.unready if self._known.get(name, Known()).last is None}
        waiting = sorted({*self.faults, *new, *postponed})
        for action in stops if waiting else ():
            text = f"{action.guest}: not stopped while {', '.join(waiting)} cannot be booted"
            self._say("guest.stop-postponed", text, guest=action.guest)
        return bool(waiting)

    def _abandon_blocked(self, armed: list[Switch], live: dict[str, Running]) -> list[Switch]:
        """Give up, before anything is touched, what needs what a guest that stays has."""
        moving = [switch.generation for switch in armed]
        free = []
        for switch in armed:
            if wanted := succession.blocked(switch.generation, moving, live):
                text = f"{switch.generation.guest}: {wanted}"
                switch.abandon(text)
                self.unprepared[switch.generation.guest] = switch.generation.digest
                self._fault(switch.generation.guest, HostError(text))
            else:
                free.append(switch)
        return free

    def _switch(
        self, moving: Sequence[Generation], live: Mapping[str, Running], switch: Switch
    ) -> None:
        """Fire one guest and judge it. What goes wrong is left to `make_good`."""
        if self._is_kept_by_its_domain(switch):
            return
        try:
            switch.fire(tuple(succession.predecessors(switch.generation, moving, live)))
            switch.judge()
        except (Error, OSError) as error:
            self._fault(switch.generation.guest, error)

    def _is_kept_by_its_domain(self, switch: Switch) -> bool:
        """End the domain of a guest adrift where no other domain does; whether that cannot be."""
        guest, target = switch.generation.guest, switch.generation.boot.target
        known = self._known.get(guest)
        if known is None or not known.adrift or targets.named(target).outside:
            return False
        if self.leave_no_domain(guest):
            return False
        switch.abandon(self.faults[guest].message)
        self.unprepared[guest] = switch.generation.digest
        return True

    def stop(self, action: Action) -> bool:
        """Stop a guest that runs, and record it; return whether nothing of it is left."""
        self.changed.add(action.guest)
        live, monitor = self._known[action.guest].live, self._known[action.guest].monitor
        assert live is not None  # noqa: S101 - only what is alive is planned to be stopped
        end(self._state, live, monitor, action.reason)
        self._known[action.guest] = survey.look(self._state, action.guest)
        if not self.leave_no_domain(action.guest):
            return False
        text = f"{action.guest}: generation {live.number} stopped: {action.reason}"
        self._say("guest.stopped", text, guest=action.guest, generation=live.number)
        return True

    def leave_no_domain(self, guest: str) -> bool:
        """Destroy the domains of a guest that is over; return whether none is left."""
        try:
            domains.sweep(self._state, self._bound, self._known[guest].generations)
        except (Error, OSError) as error:
            self._fault(guest, error)
            return False
        return True

    def _apply_live(self, action: Action) -> None:
        """Check and restart policy are no part of a boot: a change of them reboots nothing."""
        known, launch = self._known[action.guest], action.launch
        live, monitor = known.live, known.monitor
        if live is None or launch is None:
            return
        if (live.check, live.restart) == (launch.check, launch.restart):
            return
        if live.restart != launch.restart and monitor is not None:
            policy = msgspec.to_builtins(launch.restart.policy())
            try:
                control.ask(monitor.socket, {"do": "restart", "policy": policy}, control.GRACE)
            except OSError as error:
                self._fault(
                    action.guest, HostError(f"{action.guest}: its monitor does not answer: {error}")
                )
                return
        changed = msgspec.structs.replace(live, check=launch.check, restart=launch.restart)
        self._state.save(changed)
        if monitor is not None:
            control.remember(monitor, msgspec.to_builtins(changed))
        self._known[action.guest] = survey.look(self._state, action.guest)
        text = f"{action.guest}: check and restart policy taken over, without a reboot"
        self._say("guest.policy", text, guest=action.guest)

    def make_good(self, desired: DesiredState, actions: list[Action]) -> None:
        """Roll back what did not come up healthy, and end pins that are over."""
        again = []
        for action in actions:
            if action.launch is None or not action.boots or action.guest in self.unprepared:
                continue
            known = recover.recover_guest(self._state, self._journal, action.guest)
            self._known[action.guest] = known
            wanted = desired.guests.get(action.guest)
            if known.failed(action.launch.boot.digest) is None and known.live is not None:
                continue
            self.faults.pop(action.guest, None)
            mark = known.failed(action.launch.boot.digest)
            if action.guest not in desired.names and known.live is None:
                why = f": {mark.reason}" if mark is not None else ""
                text = f"{action.guest}: it does not run{why}; the repository has no such guest"
                self._fault(action.guest, Error(text))
                continue
            if mark is not None and known.intent is not None and pin_holds(known.intent, wanted):
                self._state.set_intent(action.guest, None)
                known = self._known[action.guest] = replace(known, intent=None)
                text = f"{action.guest}: no longer pinned: what it was pinned to is not healthy"
                self._say("guest.unpinned", text, guest=action.guest)
            unready = desired.unready.get(action.guest)
            again.append(decide(action.guest, wanted, unready, known, Wish()))
        again = [action for action in again if action.verb is not Verb.KEEP]
        self.carry_out(desired, again)

    def _fault(self, guest: str, error: Error | OSError) -> None:
        told = error if isinstance(error, Error) else HostError(str(error))
        if not told.message.startswith(f"{guest}: "):
            told = type(told)(f"{guest}: {told.message}", told.hint)
        self.faults[guest] = told
        self._say("guest.fault", str(told), guest=guest)

    def _say(self, name: str, message: str, **fields: object) -> None:
        self._journal.event(name, message, **fields)


def _pids(running: Iterable[Running]) -> frozenset[int]:
    tenders = [monitor.tender.pid for _, monitor in running if monitor.tender is not None]
    return sockets.families(tenders)


def _in_order(armed: Iterable[Switch], startup: Mapping[str, int]) -> list[list[Switch]]:
    """Return what is switched side by side, one list after the other: lower places first."""
    batches = defaultdict(list)
    for switch in armed:
        batches[startup.get(switch.generation.guest, 0)].append(switch)
    return [batches[place] for place in sorted(batches)]


def _side_by_side(do: Callable[[T], R], over: Iterable[T]) -> list[R]:
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        # What holds here holds in the threads: that nothing is fetched, say.
        doing = [pool.submit(copy_context().run, do, one) for one in over]
        return [one.result() for one in doing]
