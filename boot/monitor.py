"""The daemon that owns one generation of a guest: its tender, its console, its restarts.

It starts *armed*: the tender's process exists already (tender.py) and waits only for a byte to
exec. So what lies between the end of the old guest and the first instruction of the new one is one
message and one exec. A tender that has more to make, such as a domain, says itself when its guest
runs: it is *switching* until then.

Whoever starts it holds one end of a socket pair: the *controller*. A controller that vanishes
before `fire` disarms it. One that vanishes after `fire` changes nothing: ending the old generation
is this monitor's own work. While the controller stays connected the guest's death is the
controller's to judge; once it is gone the restart policy holds.

It stays in memory, and an upgrade may replace files under it: imports are few, and all at the top.
"""

import contextlib
import os
import selectors
import signal
import socket
import sys
import time

from daemon import DaemonContext

from mirage_hooks.boot import control, journal, learned
from mirage_hooks.boot.console import ConsoleLog
from mirage_hooks.boot.control import MonitorState, Orders
from mirage_hooks.boot.listener import Listener, answer
from mirage_hooks.boot.process import identify
from mirage_hooks.boot.restarts import Again, Finished, GivenUp, decide
from mirage_hooks.boot.tell import Teller
from mirage_hooks.boot.tender import Tender

# Past this size the monitor's own log is set aside.
_LOG = "monitor.log"
_LOG_BYTES = 256 * 1024
# How long after a full disk the state file is tried again, seconds.
_NOTE_AGAIN = 1.0


class Monitor:
    """One generation, from armed to ended."""

    def __init__(self, folder: str, orders: Orders, controller: socket.socket) -> None:
        self._orders = orders
        self._state_file = os.path.join(folder, control.STATE)
        self._log = os.path.join(folder, _LOG)
        self._teller = Teller(os.path.dirname(orders.events))
        self._console = ConsoleLog(
            os.path.join(folder, control.CONSOLE), orders.console_bytes, orders.redact
        )
        self._restart = orders.restart
        self._record = orders.record
        self._restarts: tuple[float, ...] = ()
        self._selector = selectors.DefaultSelector()
        self._controller: socket.socket | None = controller
        self._restart_at: float | None = None
        self._noted = True
        self._listener = Listener(orders.socket, self._selector, self._do, self._on_hang_up)
        self._listener.take(controller)
        self.state = MonitorState(
            "armed", identify(os.getpid()), None, orders.socket, grace=orders.grace
        )

    # The event loop.

    def run(self) -> None:
        """Arm, then serve until the generation has ended."""
        wakeup, wakeup_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup_end)
        for signum in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, lambda *_: None)
        self._arm()
        self._selector.register(wakeup, selectors.EVENT_READ, self._on_signal)
        while self.state.phase in control.LIVE:
            timeout = None if self._noted else _NOTE_AGAIN
            if self._restart_at is not None:
                timeout = max(0.0, self._restart_at - time.monotonic())
            events = self._selector.select(timeout)
            if not self._noted:
                self._note_state()
            # The console first: what a guest said before it died belongs before its end.
            for key, _ in sorted(events, key=lambda event: event[0].fd != self._tender.output):
                if self.state.phase in control.LIVE and key.fd in self._selector.get_map():
                    key.data(key.fileobj)
            if self._restart_at is not None and time.monotonic() >= self._restart_at:
                self._boot_again()
        self._say_goodbye()

    def _enter(self, phase: str) -> None:
        """Record a phase, then tell the controller."""
        self.state.phase = phase
        self._note_state()
        if self._controller is not None:
            self._answer(self._controller)

    def _note_state(self) -> None:
        """Write the state file; where the disk is full, try again every now and then."""
        self.state.dropped = self._console.dropped
        try:
            control.write_json(self._state_file, control.state_to(self.state))
            self._noted = True
        except OSError as error:  # the guest matters more than the note
            if self._noted:
                journal.complain(f"state {self.state.phase} not recorded: {error}")
            self._noted = False

    def _event(self, name: str, message: str, **fields: object) -> None:
        orders = self._orders
        event = journal.make_event(
            name,
            orders.converge,
            f"{orders.guest}: {message}",
            guest=orders.guest,
            generation=orders.generation,
            **fields,
        )
        journal.bound_own(self._log, _LOG_BYTES)
        journal.append(orders.events, event)
        if (pid := self._teller.tell(event)) is not None:
            self._selector.register(os.pidfd_open(pid), selectors.EVENT_READ, self._forget)
        self._teller.close()  # what tells does not stay in memory either

    def _forget(self, teller: int) -> None:
        """Reap a process that has told of an event."""
        self._selector.unregister(teller)
        os.waitid(os.P_PIDFD, teller, os.WEXITED)
        os.close(teller)

    # The tender.

    def _arm(self) -> None:
        self._tender = tender = Tender(self._orders, self._console)
        self.state.tender = tender.process
        self._selector.register(tender.output, selectors.EVENT_READ, lambda _: self._drain())
        self._selector.register(tender.pidfd, selectors.EVENT_READ, lambda _: self._on_exit())
        self._selector.register(tender.trigger, selectors.EVENT_READ, self._on_word)

    def _on_word(self, trigger: socket.socket) -> None:
        """The tender got on, or its guest runs; or it has ended: `_on_exit` sees to that."""
        word = b""
        with contextlib.suppress(OSError):
            word = trigger.recv(1)
        if word == control.RUNS:
            self.state.started = time.time()
            self._enter("running")
        elif word:
            self._enter(self.state.phase)
        else:
            self._selector.unregister(trigger)

    def _fire(self, predecessors: list[dict[str, object]]) -> None:
        """End the old generations, then let the tender go."""
        self._enter("switching")
        for raw in predecessors:
            control.stop(control.state_from(raw), bool(raw.get("make_way")))
        self._pull_trigger()

    def _pull_trigger(self) -> None:
        """Let the tender go: its guest runs then, or once it says so where it prepares."""
        self.state.started = time.time()
        if not self._orders.prepares:
            self._overlook(self._tender.trigger)
        self._tender.go()
        if not self._orders.prepares:
            self._enter("running")
        orders = self._orders
        self._console.note(f"generation {orders.generation} boots, by deploy {orders.converge}")

    def _drain(self) -> None:
        if not self._tender.drain():
            self._selector.unregister(self._tender.output)

    def _reap(self) -> None:
        for watched in (self._tender.pidfd, self._tender.output, self._tender.trigger):
            self._overlook(watched)
        self.state.exit, self.state.exit_code = self._tender.reap()

    def _overlook(self, watched: int | socket.socket) -> None:
        with contextlib.suppress(KeyError, ValueError):  # it was not watched any more, or is closed
            self._selector.unregister(watched)

    def _on_exit(self) -> None:
        """The guest ended by itself: the controller judges, or else the restart policy."""
        armed = self.state.phase == "armed"
        self._reap()
        self._unsettle()
        self._console.note(f"the guest {self.state.exit}")
        if armed:
            text = f"the armed tender {self.state.exit}"
            self._event("guest.ended", text, exit=self.state.exit_code)
            self._enter("disarmed")
        elif self._controller is not None:
            self._enter("exited")
        else:
            self._judge()

    def _judge(self) -> None:
        """Apply the restart policy to a guest that has ended."""
        policy, now = self._restart, time.monotonic()
        ended, code = self.state.exit, self.state.exit_code
        match decide(policy, code, self._restarts, now):
            case Again(wait, counted):
                self._restarts, self._restart_at = counted, now + wait
                text = f"{ended}; restart {len(counted)} of {policy.limit} in {wait:g} s"
                self._event("guest.restarting", text, exit=code)
                self._enter("backing-off")
            case Finished(why):
                self._event("guest.ended", f"{ended}; {why}", exit=code)
                self._enter("finished")
            case GivenUp():
                text = (
                    f"{ended}; given up after its limit of restarts ({policy.limit} in "
                    f"{policy.window:g} s): `mirage-hooks reboot {self._orders.guest}` tries again"
                )
                self._event("guest.given-up", text, exit=code)
                self._enter("given-up")

    def _boot_again(self) -> None:
        self._restart_at = None
        try:
            self._arm()
        except (OSError, KeyError) as error:  # no memory; its image or its user is gone
            self.state.exit, self.state.exit_code = f"could not be booted again: {error}", None
            self._judge()
            return
        self.state.restarts += 1
        self._pull_trigger()

    # Requests.

    def _stop(self, make_way: bool = False) -> None:
        """End the guest: SIGTERM to its process group, then SIGKILL; or disarm it."""
        phase = self.state.phase
        self._restart_at = None
        if phase == "armed":
            self._disarm()
            return
        self._unsettle()
        if not self._tender.over:
            self._enter("stopping")
            grace = self._orders.grace
            signum = control.MAKE_WAY if make_way and self._orders.prepares else signal.SIGTERM
            if not self._tender.end(grace, signum):
                self._console.note(f"no end within {grace:g} s of SIGTERM: killed")
            self._reap()
            for tap in self._orders.taps:
                # The next one is behind another tap, and may take long to say so.
                learned.forget(tap)
        self.state.phase = "stopped"

    def _disarm(self) -> None:
        self._overlook(self._tender.trigger)
        self._tender.disarm()
        self._reap()
        self.state.phase = "disarmed"

    def _unsettle(self) -> None:
        """Tell the hooks' fast path that what runs is no longer what was settled."""
        with contextlib.suppress(OSError):
            os.unlink(self._orders.settled)

    def _on_signal(self, wakeup: int) -> None:
        """SIGHUP is from who has lost where the socket was; any other asks for the end."""
        if set(os.read(wakeup, 64)) != {signal.SIGHUP}:
            self._stop()
            return
        self._appear()
        with contextlib.suppress(OSError):
            self._listener.reopen()

    def _appear(self) -> None:
        """Be recorded, also where the folder was lost."""
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(self._state_file), 0o700, exist_ok=True)
        self._note_state()

    def _do(self, connection: socket.socket, request: dict[str, object]) -> None:
        match request:
            case {"do": "fire", "after": list(predecessors)} if connection is self._controller:
                if self.state.phase == "armed":
                    self._fire(predecessors)
                return  # entering each phase has told the controller
            case {"do": "stop"}:
                self._stop(bool(request.get("make_way")))
            case {"do": "describe"}:
                self._appear()
                self._answer(connection, record=self._record)
                return
            case {"do": "remember", "record": dict(record)}:
                self._record = record
            case {"do": "restart", "policy": dict(policy)}:
                # One of another version, or of nobody's making, is not taken: the guest goes on.
                with contextlib.suppress(TypeError, ValueError):
                    self._restart = control.policy_from(policy)
        self._answer(connection)

    def _answer(self, connection: socket.socket, **more: object) -> None:
        answer(connection, {**control.state_to(self.state), **more})

    def _on_hang_up(self, connection: socket.socket) -> None:
        if connection is not self._controller:
            return
        self._controller = None
        if self.state.phase == "armed":
            self._disarm()
        elif self.state.phase == "exited":
            self._judge()

    def _say_goodbye(self) -> None:
        """Record the end after answering: nobody waits for the disk."""
        self._enter(self.state.phase)
        self._listener.close()


def main() -> None:
    """Run as `python -m mirage_hooks.boot.monitor FOLDER CONTROLLER_FD`."""
    folder, descriptor = sys.argv[1], int(sys.argv[2])
    orders = control.read_orders(folder)
    controller = socket.socket(fileno=descriptor)
    # It came by inheritance, and must not go on to the guest.
    controller.set_inheritable(False)
    log = open(os.path.join(folder, _LOG), "a", encoding="utf-8", buffering=1)  # noqa: SIM115
    with DaemonContext(
        detach_process=True,
        umask=0o077,
        files_preserve=[controller],
        stdout=log,
        stderr=log,
        signal_map={},
    ):
        Monitor(folder, orders, controller).run()
        # Python's own way out costs milliseconds of a processor that the next guest boots on.
        log.flush()
        os._exit(0)


if __name__ == "__main__":
    main()
