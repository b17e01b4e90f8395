"""The tender of a Xen domain: a process that is there as long as the domain is, and prints as it.

xl has none that serves: what `xl create` starts stays behind when it is killed, and the guest's
last words are in a console of their own. So this one has the domain made, paused, before it is let
go by a byte; copies its console; notices its end, and ends with a code that says how it ended. On
SIGTERM it asks the guest, waits briefly, and destroys it. A MirageOS guest for PV never heeds that,
does not say that it would, and is not asked.

Destroying takes as long as making. So a domain that is replaced is only paused, on SIGUSR1: the
tender of the next one destroys it, once its own runs.

It stays in memory, like its monitor: imports are few. Killed, it leaves its domain behind, which is
known by its uuid.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass, field

from mirage_hooks.boot import control, xl
from mirage_hooks.boot.errors import HostError
from mirage_hooks.boot.keeper import Keeper
from mirage_hooks.boot.xl import Xl, XlError

# What it ends with; `tender.explain_exit` has the words.
FAILED, CRASHED, REBOOTS, REMOVED, ENDED = 84, 85, 86, 87, 88

# How long a guest may take to heed a shutdown, seconds.
_ASK_SECONDS = 1.0
# How long its console may go on once a domain is gone: xl's reader of it hangs now and then.
_LAST_WORDS_SECONDS = 0.5
# What a domain takes beside its memory, MiB: page tables, and what its devices are shared by.
_BESIDE = 8


@dataclass(frozen=True)
class Order:
    """All that the tender of a domain is told.

    `xl` is what starts xl. The domain is called `temporary` until it runs, and `name` from then on;
    `config` is written to `file` for xl. `memory` is in MiB. `alone` says that it cannot be made
    beside what is there before it: both have a volume, and one writes to it. `replaces` are the
    uuids of the guest's own domains that it comes after, `adopts` of those that no tender pauses:
    somebody else has made them, or theirs was killed.
    """

    xl: list[str]
    name: str
    temporary: str
    uuid: str
    file: str
    config: str
    memory: int
    alone: bool = False
    replaces: list[str] = field(default_factory=list)
    adopts: list[str] = field(default_factory=list)


class _Ended(Exception):  # noqa: N818 - nothing is wrong
    """The domain is gone, or is to be: the code to end with."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Tender:
    """One domain, from its making to its end."""

    def __init__(self, order: Order, go: socket.socket) -> None:
        """Tend a domain; `go` is where the monitor is told that it is armed, and lets it go."""
        self._order = order
        self._xl = Xl(order.xl)
        self._go = go
        self._keeper: Keeper | None = None
        self._console: subprocess.Popen[bytes] | None = None
        self._id = 0
        self._left = False
        self._asked, asked = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for signum in (signal.SIGTERM, control.MAKE_WAY):
            signal.signal(signum, lambda *_: None)
        signal.set_wakeup_fd(asked)
        self._settling = threading.Thread(target=self._settle)

    def run(self) -> int:
        """Tend the domain to its end; return the code that says how it ended."""
        try:
            code = self._tend()
        except _Ended as ended:
            code = ended.code
        except (HostError, OSError) as error:
            code = _fail(error)
        try:
            self._clean()
        except (HostError, OSError) as error:
            code = _fail(error)
        return code

    def _tend(self) -> int:
        order = self._order
        self._xl.end(order.uuid)  # what is left where this was killed
        if not order.alone:
            self._create_beside()
        waits = self._keeper is None and bool(self._xl.domains())  # one may end for this
        self._say(control.PREPARED)
        if not self._is_let_go():
            return 0
        if self._keeper is None:
            self._end_others()
            if waits:
                self._wait_for_room()
            self._create()
            self._say(control.PREPARED)
        self._let_run()
        self._say(control.RUNS)
        self._go.close()
        self._settling.start()
        return self._watch()

    def _create_beside(self) -> None:
        """Have the domain made beside others, unless Xen lacks memory. Raises XlError."""
        if self._has_room():
            began = time.monotonic()
            try:
                self._create()
                return
            except XlError:
                self._xl.end(self._order.uuid)  # what was begun has memory, too
                self._keeper = None
                hung = time.monotonic() - began >= xl.CHANGE_SECONDS
                if hung or self._has_room():
                    raise
                # Another guest's tender saw the same room, and was first to take it.
        print("Xen lacks memory for both: the domain is made once another ends", flush=True)

    def _say(self, word: bytes) -> None:
        """Tell the monitor; where it has hung up, that is found elsewhere."""
        with contextlib.suppress(ConnectionError):
            self._go.sendall(word)

    def _let_run(self) -> None:
        """Let the domain run; those that it adopts stand still from then on. Raises XlError."""
        adopts = self._order.adopts
        adopted = [one.id for one in self._xl.domains() if one.uuid in adopts] if adopts else []
        try:
            for domain in adopted:
                self._xl.run(xl.pause(domain))
            self._xl.run(xl.unpause(self._id))
        except XlError:
            # One whose pause failed, too: it may stand still all the same.
            for domain in adopted:
                with contextlib.suppress(XlError):
                    self._xl.run(xl.unpause(domain))
            raise

    def _settle(self) -> None:
        """Have the domain alone, and by its name, while it runs."""
        order = self._order
        try:
            self._end_others()
            self._xl.run(xl.rename(self._id, order.name))
        except HostError as error:
            print(f"the domain keeps the name {order.temporary}: {error}", flush=True)

    @property
    def _others(self) -> tuple[str, ...]:
        return (*self._order.replaces, *self._order.adopts)

    def _end_others(self) -> None:
        for identity in self._others:
            self._xl.end(identity)

    def _create(self) -> None:
        """Have the domain made, paused. Raises XlError, and _Ended where the end is asked for."""
        order = self._order
        descriptor = os.open(order.file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(order.config)
        self._keeper = Keeper(self._xl, order.file)
        made = self._keeper.made(unless=self._asked)
        if made is None:
            raise _Ended(0)
        self._id = made
        self._console = self._xl.start(xl.console(made), None, subprocess.DEVNULL, bound=True)

    def _is_let_go(self) -> bool:
        """Wait for the word; return whether it came, rather than the end. Raises _Ended."""
        watched = [self._go.fileno(), self._asked]
        while True:
            ready = self._wait(watched)
            if self._asked in ready:
                return False
            if self._go.fileno() in ready:
                with contextlib.suppress(ConnectionError):
                    return bool(self._go.recv(1))
                return False
            if self._keeper is not None and not self._keeper.listen():
                raise _Ended(REMOVED)

    def _watch(self) -> int:
        """Wait for the domain's end, or that it is asked for; return the code to end with."""
        assert self._keeper is not None  # noqa: S101 - it was made before
        while self._asked not in self._wait([self._asked]):
            if not self._keeper.listen():
                return _explain(self._keeper.reason)
        if os.read(self._asked, 1) == bytes([control.MAKE_WAY]):
            self._make_way()
        else:
            self._ask()
        return 0

    def _make_way(self) -> None:
        """Leave the domain, which does nothing any more, to the next one's tender."""
        if self._ask():
            self._xl.run(xl.pause(self._id))
            self._left = True

    def _ask(self) -> bool:
        """Ask the guest to end, if it does so; return whether it is still there after a moment."""
        if not self._xl.heeds(self._id):
            return True
        with contextlib.suppress(OSError):
            asking = self._xl.start(xl.shut_down(self._id), subprocess.DEVNULL, subprocess.DEVNULL)
            there = self._keeper is not None and self._keeper.outlasts(_ASK_SECONDS)
            xl.kill(asking)  # it would wait for an answer for a minute
            return there
        return True

    def _clean(self) -> None:
        """Leave no domain, and no xl. Raises XlError."""
        if self._keeper is None:
            return
        if not self._id:
            self._keeper.end(at_once=True)  # else it may make the domain once that was looked for
        try:
            if not self._left:
                self._xl.end(self._order.uuid)
                self._keeper.outlasts(_LAST_WORDS_SECONDS)
        finally:
            self._keeper.end(at_once=self._left)
            if self._settling.is_alive():
                self._settling.join()
            if self._console is not None:
                # That of a domain which is left goes on: the next one is not to wait for it.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._console.wait(0 if self._left else _LAST_WORDS_SECONDS)
                xl.kill(self._console)

    def _wait(self, watched: list[int]) -> Collection[int]:
        """Wait until one of the descriptors can be read, or the keeper has said something."""
        if self._keeper is not None:
            watched = [*watched, self._keeper.output]
        ready, _, _ = select.select(watched, [], [])
        return ready

    # Memory.

    def _has_room(self) -> bool:
        free, memory = self._xl.free_memory(), self._order.memory
        return free is not None and free >= memory + memory // 64 + _BESIDE

    def _wait_for_room(self) -> None:
        """Wait for what an ended domain had. Whether it is enough, `xl create` finds out."""
        deadline = time.monotonic() + xl.ROOM_SECONDS
        while time.monotonic() < deadline and not self._has_room():
            time.sleep(0.2)


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


def argument(order: Order) -> str:
    """Return an order as `main` takes it."""
    return json.dumps(asdict(order))


def main() -> None:
    """Run as `python -m mirage_hooks.boot.domain ORDER`, with the monitor at `control.TRIGGER`."""
    go = socket.socket(fileno=control.TRIGGER)
    go.set_inheritable(False)
    code = Tender(Order(**json.loads(sys.argv[1])), go).run()
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
