"""Make what runs equal the desired state and the intents: the one operation behind everything."""

import contextlib
import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import replace

from mirage_hooks.boot import (
    collect,
    faults,
    host,
    lock,
    manifest,
    outcome,
    ownership,
    promised,
    rebuild,
    recover,
    request,
    settled,
    survey,
    wiring,
)
from mirage_hooks.boot.artifact import Missing
from mirage_hooks.boot.assess import assess
from mirage_hooks.boot.desired import DesiredState
from mirage_hooks.boot.errors import Error
from mirage_hooks.boot.execution import Execution
from mirage_hooks.boot.guest import short
from mirage_hooks.boot.host import Host
from mirage_hooks.boot.intent import HELD, Intent, Pause
from mirage_hooks.boot.journal import Journal
from mirage_hooks.boot.outcome import Outcome
from mirage_hooks.boot.plan import Action, Known, Verb, Wish, as_before, pin_holds, plan
from mirage_hooks.boot.preparation import Preparation
from mirage_hooks.boot.process import boot_id
from mirage_hooks.boot.record import State
from mirage_hooks.boot.repository import Repository
from mirage_hooks.boot.request import Request
from mirage_hooks.boot.revision import Revision
from mirage_hooks.boot.secrets import Vault
from mirage_hooks.boot.store import Store


class Converger:
    """One converge of one repository."""

    def __init__(self, repository: Repository, asked: Request, log: Journal) -> None:
        self._repository = repository
        self._request = asked
        self._journal = log
        self._state = State(repository.common_dir)

    def run(self) -> int:
        """Converge, once the lock is ours; return the exit code. Raises Error."""
        ownership.refuse_foreign(self._repository.obeyed)
        self._state.check_access()
        host.load(self._state.host_file)
        asked = time.monotonic()
        with lock.hold(self._state.lock, self._request.origin, self._wait):
            if self._request.automatic and (pause := self._state.pause()) is not None:
                return self._stay_paused(pause)
            last = outcome.load(self._state.outcome)
            if last is not None and last.serves(self._request, asked):
                return self._share(last)
            # A host that has just booted waits for no server: one that is silent takes minutes.
            waits = self._request.verb != "up"
            with contextlib.nullcontext() if waits else promised.left_there():
                return self._converge()

    def _converge(self) -> int:
        # Read after the lock is held: whoever waited converges to the newest state.
        self._began = time.monotonic()
        held_back = self._state.pause() if self._request.verb == "up" else None
        # Those two deploy nothing of it.
        if self._request.verb not in {"stop", "reboot"} and held_back is None:
            self._take_trigger()
        self._cut_short = not self._state.settled.exists()
        bound, host_text = host.load(self._state.host_file)
        self._bound = bound
        self._store = Store(self._state.store, bound.limits.image << 20)
        tip = self._repository.tip(bound.branch)
        self._say_started(bound.branch, tip)
        rebuild.rebuild(self._state, self._journal)
        known = recover.recover(self._state, self._journal)
        self._sweep(known)
        self._preparation = Preparation(
            self._repository,
            self._state,
            self._store,
            bound,
            self._journal,
            self._request.origin,
            self._request.adopt,
        )
        self._execution = Execution(self._preparation, self._state, bound, self._journal, known)
        if self._request.verb == "stop":
            return self._stop_and_hold(tip, bound, known)
        if held_back is not None:
            self._say("converge.paused", f"{held_back}: what ran last is booted, nothing new")
            problems = self._keep_what_ran(tip, bound, known, Missing(str(held_back), ()))
            return self._conclude(problems, "done: what ran last runs")
        return self._deploy(tip, bound, host_text, known)

    def _deploy(self, tip: Revision, bound: Host, host_text: bytes, known: dict[str, Known]) -> int:
        """Make what runs what a revision says, and what was asked for beside."""
        try:
            desired = self._read(tip, bound)
        except Error as error:
            if self._request.verb == "up":  # nothing runs that could go on running
                self._keep_what_ran(tip, bound, known, error)
            raise
        self._say_unknown(desired)
        if self._request.verb != "deploy":
            settled.clear(self._state)  # before a word of the operator's changes
        wish = request.take(
            self._request, self._state, self._journal, desired, known, self._preparation.fetch
        )
        if self._request.automatic:
            wish = replace(wish, now=time.time(), host=hashlib.sha256(host_text).hexdigest())
        actions = plan(desired, known, wish)
        self._execution.carry_out(desired, actions, self._gone(desired, known))
        self._execution.make_good(desired, actions)
        if self._note_faults(desired, actions, wish, known) or self._execution.changed:
            known = survey.look_at_all(self._state)
            self._sweep(known)
        return self._finish(tip, desired, bound, host_text, known, wish)

    def _read(self, tip: Revision, bound: Host) -> DesiredState:
        """Return what is desired. Images are fetched only for what deploys them."""
        deploys = self._request.verb not in {"rollback", "reboot"}
        with contextlib.nullcontext() if deploys else promised.left_there():
            return manifest.read(
                tip, bound, self._store, Vault(self._state.secrets), self._state.installation
            )

    def _note_faults(
        self, desired: DesiredState, actions: list[Action], wish: Wish, known: Mapping[str, Known]
    ) -> bool:
        """Record what could not be prepared, forget what was; return whether there was either."""
        unprepared = self._execution.unprepared
        if wish.now is not None:
            for name, digest in unprepared.items():
                before = known.get(name, Known()).fault
                error = self._execution.faults[name]
                fault = faults.again(before, digest, wish.host, error, wish.now)
                self._state.set_fault(name, fault)
        looked_at = {action.guest for action in actions if not action.postponed}
        over = {
            name
            for name, one in known.items()
            if one.fault is not None and name in (looked_at | (known.keys() - desired.names))
        } - unprepared.keys()
        for name in over:
            self._state.set_fault(name, None)
        return bool(unprepared or over)

    def _gone(self, desired: DesiredState, known: Mapping[str, Known]) -> list[str]:
        """Return the guests that are adrift and wanted no more: nobody else would end them."""
        is_meant = not desired.lost or self._request.allow_empty
        if desired.unready or not is_meant or self._request.verb == "reboot":
            return []
        return [name for name in sorted(known.keys() - desired.names) if known[name].adrift]

    def _sweep(self, known: Mapping[str, Known]) -> None:
        """Take away what ended generations have left. That it cannot be is no failure."""
        try:
            wiring.sweep(self._state, self._bound, known)
        except (Error, OSError) as error:
            self._say("network.fault", f"left behind by guests that ended: {error}")

    def _take_trigger(self) -> None:
        with contextlib.suppress(OSError):  # it is not there, or somebody made it what it is not
            if self._state.trigger.stat().st_size > 0:  # who watches it is to be woken once only
                os.truncate(self._state.trigger, 0)

    def _wait(self, holder: str) -> None:
        self._say("converge.waiting", f"waiting for {holder}")

    def _say(self, name: str, message: str, **fields: object) -> None:
        self._journal.event(name, message, **fields)

    def _say_started(self, branch: str, tip: Revision) -> None:
        asked, me = self._request, self._journal.converge
        self._say("converge.started", f"{branch} at {short(tip.id)} ({asked.origin}), deploy {me}")
        if asked.head not in {None, branch}:
            self._say(
                "repository.branch",
                f"{asked.head} is checked out, but only {branch} deploys: "
                "pulling into what is checked out changes nothing that runs",
            )

    def _say_unknown(self, desired: DesiredState) -> None:
        """Say which of the host's guests are not there. A commit that removes one is no error."""
        for name in sorted({*(desired.selection or ())} - desired.names):
            text = f"{name}: among `guests` in {host.NAME}, but the repository has no such guest"
            self._say("guest.notice", text, guest=name)

    def _stay_paused(self, pause: Pause) -> int:
        self._say("converge.paused", f"{pause}; `mirage-hooks resume` ends that")
        self._end(0, "nothing is changed")
        return 0

    def _share(self, last: Outcome) -> int:
        self._say("converge.shared", f"done by {last.converge}, which began meanwhile")
        self._end(last.exit_code, last.message)
        return last.exit_code

    def _stop_and_hold(self, tip: Revision, bound: Host, known: Mapping[str, Known]) -> int:
        """Stop guests and hold them: also where what the repository says cannot be read."""
        there = set(known)
        with contextlib.suppress(Error):
            there.update(manifest.read_guests(tip, bound))
        request.refuse_unknown(self._request, there)
        settled.clear(self._state)
        for name in sorted(self._request.guests or there):
            self._state.set_intent(name, Intent("held", time.time()))
            if name in known and known[name].live is not None:
                self._execution.stop(Action(Verb.STOP, name, HELD))
            elif name not in known or self._execution.leave_no_domain(name):
                self._say("guest.held", f"{name}: {HELD}", guest=name)
        known = survey.look_at_all(self._state)
        self._sweep(known)
        self._collect(bound, None, known)
        summary = "done: no pull starts what is held, until `mirage-hooks start` does"
        return self._conclude(self._execution.faults, summary)

    def _keep_what_ran(
        self, tip: Revision, bound: Host, known: dict[str, Known], why: Error
    ) -> dict[str, Error]:
        """Boot again what ran last, and nothing new; return what is the matter, by guest."""
        settled.clear(self._state)
        startup: dict[str, int] = {}
        with contextlib.suppress(Error):
            guests = manifest.read_guests(tip, bound)
            startup = {name: guest.startup for name, guest in guests.items()}
        desired = as_before(known, tip.id, why, startup)
        actions = plan(desired, known, Wish(allow_empty=True))
        self._execution.carry_out(desired, actions)
        self._execution.make_good(desired, actions)
        known = survey.look_at_all(self._state)
        self._sweep(known)
        self._collect(bound, None, known)
        found = assess(desired, known, Wish(), self._execution.faults)
        return {**found.left, **found.problems}

    def _finish(
        self,
        tip: Revision,
        desired: DesiredState,
        bound: Host,
        host_text: bytes,
        known: dict[str, Known],
        wish: Wish,
    ) -> int:
        """Say how it ended, and stamp it as settled if all is as it should be."""
        for name, one in known.items():
            pin = one.intent if one.intent is not None and one.intent.kind == "pinned" else None
            if pin is not None and not pin_holds(pin, desired.guests.get(name)):
                self._state.set_intent(name, None)
                known[name] = replace(one, intent=None)
        found = assess(desired, known, wish, self._execution.faults)
        problems = found.problems
        if self._request.verb == "reboot":
            self._say_left(found.left)
        else:
            problems = {**found.left, **problems}
        if found.settled:
            settled.write(
                self._state,
                self._repository,
                bound.branch,
                desired.watched,
                tip,
                host_text,
                [monitor.monitor for _, monitor in survey.running(known).values()],
            )
            # A guest that ended meanwhile found no stamp to delete.
            if survey.look_at_all(self._state) != known:
                settled.clear(self._state)
        self._collect(bound, desired, known)
        return self._conclude(problems, found.summary)

    def _conclude(self, problems: dict[str, Error], summary: str) -> int:
        """Say how it ended, also to whoever waits: the problems, by guest, or else a summary.

        Returns the exit code.
        """
        codes = [error.exit_code for error in problems.values()]
        code = 1 if 1 in codes else next(iter(codes), 0)
        told = "\n".join(str(error) for error in problems.values())
        message = f"not as it should be: {told}" if problems else summary
        done = Outcome(self._journal.converge, self._request, boot_id(), self._began, code, message)
        outcome.save(self._state.outcome, done)
        if problems:
            self._end(code, message, problems=sorted(problems))
        else:
            self._end(code, message)
        return code

    def _collect(self, bound: Host, desired: DesiredState | None, known: dict[str, Known]) -> None:
        """Collect what the guests that changed no longer need. That it cannot be is no failure."""
        changed = self._execution.changed
        # One that was cut short, or could not collect, has pinned nothing.
        if not changed and not self._cut_short:
            return
        if desired is None:  # which failed mark is to stay cannot be told
            changed = set()
        try:
            done = collect.collect(
                self._repository, self._state, self._store, bound.keep, known, desired, changed
            )
        except (Error, OSError) as error:
            settled.clear(self._state)
            self._say("collect.fault", f"what is not needed any more was not removed: {error}")
            return
        if done.gone:
            self._say("collect.gone", collect.say_gone(done.gone))

    def _say_left(self, left: dict[str, Error]) -> None:
        """A reboot boots what ran: that the repository asks for something else is worth a word."""
        for name, error in left.items():
            text = f"{error.message}; `mirage-hooks deploy` does it"
            self._say("guest.notice", text, guest=name)

    def _end(self, code: int, message: str, **fields: object) -> None:
        self._say("converge.finished", message, exit_code=code, **fields)
