"""The tender of a Xen domain: a process that is there as long as the domain is, and prints as it.

xl has none that serves: what `xl create` starts stays behind when it is killed, and the guest's
last words are in a console of their own. So this one has the domain made, paused, before it is let
go by a byte; copies its console; notices its end, and ends with a code that says how it ended. On
SIGTERM it asks the guest, waits briefly, and destroys it. A MirageOS guest for PV never heeds that,
does not say that it would, and is not asked. On SIGUSR1 it leaves it, paused, to the next one.

It stays in memory, like its monitor: imports are few. Killed, it leaves its domain behind, which is
known by its uuid.
"""

import contextlib
import os
import select
import signal
import socket
import sys
from collections.abc import Collection

from mirage_hooks.boot import control, xl
from mirage_hooks.boot.errors import HostError
from mirage_hooks.boot.handover import Domain, Ended
from mirage_hooks.boot.order import Order

# What it ends with; `tender.explain_exit` has the words.
FAILED, CRASHED, REBOOTS, REMOVED, ENDED = 84, 85, 86, 87, 88


class Tender:
    """One domain's, from its making to its end."""

    def __init__(self, order: Order, go: socket.socket) -> None:
        """Tend a domain; `go` is where the monitor is told that it is armed, and lets it go."""
        self._go = go
        self._asked, asked = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for signum in (signal.SIGTERM, control.MAKE_WAY):
            signal.signal(signum, lambda *_: None)
        signal.set_wakeup_fd(asked)
        self._domain = Domain(order, self._asked)

    def run(self) -> int:
        """Tend the domain to its end; return the code that says how it ended."""
        try:
            code = self._tend()
        except Ended as ended:
            code = ended.code
        except (HostError, OSError) as error:
            code = _fail(error)
        try:
            self._domain.clean()
        except (HostError, OSError) as error:
            code = _fail(error)
        return code

    def _tend(self) -> int:
        domain = self._domain
        domain.prepare()
        self._say(control.PREPARED)
        if not self._is_let_go():
            return 0
        if domain.keeper is None:
            domain.make()
            self._say(control.PREPARED)
        domain.let_run()
        self._say(control.RUNS)
        self._go.close()
        domain.settle()
        return self._watch()

    def _say(self, word: bytes) -> None:
        """Tell the monitor; where it has hung up, that is found elsewhere."""
        with contextlib.suppress(ConnectionError):
            self._go.sendall(word)

    def _is_let_go(self) -> bool:
        """Wait for the word; return whether it came, rather than the end. Raises Ended."""
        watched = [self._go.fileno(), self._asked]
        while True:
            ready = self._wait(watched)
            if self._asked in ready:
                return False
            if self._go.fileno() in ready:
                with contextlib.suppress(ConnectionError):
                    return bool(self._go.recv(1))
                return False
            if self._domain.keeper is not None and not self._domain.keeper.listen():
                raise Ended(REMOVED)

    def _watch(self) -> int:
        """Wait for the domain's end, or that it is asked for; return the code to end with."""
        assert self._domain.keeper is not None  # noqa: S101 - it was made before
        while self._asked not in self._wait([self._asked]):
            if not self._domain.keeper.listen():
                return _explain(self._domain.keeper.reason)
        if os.read(self._asked, 1) == bytes([control.MAKE_WAY]):
            self._domain.make_way()
        else:
            self._domain.ask()
        return 0

    def _wait(self, watched: list[int]) -> Collection[int]:
        """Wait until one of the descriptors can be read, or the keeper has said something."""
        if self._domain.keeper is not None:
            watched = [*watched, self._domain.keeper.output]
        ready, _, _ = select.select(watched, [], [])
        return ready


def _explain(reason: int | None) -> int:
    """Return the code to end with where a domain ended for one of Xen's reasons."""
    match reason:
        case xl.POWEROFF:
            return ENDED
        case xl.REBOOT:
            return REBOOTS
        case None:
            return REMOVED
    return CRASHED


def _fail(error: Exception) -> int:
    print(str(error), flush=True)
    return FAILED


def main() -> None:
    """Run as `python -m mirage_hooks.boot.domain ORDER`, with the monitor at `control.TRIGGER`."""
    go = socket.socket(fileno=control.TRIGGER)
    go.set_inheritable(False)
    code = Tender(Order.parse(sys.argv[1]), go).run()
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
