"""A Xen domain, from its making to its end, and those whose place it takes.

Destroying takes as long as making. So a domain that is replaced is only paused: the tender of the
next one destroys it, once its own runs.

Shared with nobody but the tender of domains, which stays in memory.
"""

import contextlib
import os
import subprocess
import threading
import time

from mirage_hooks.boot import xl
from mirage_hooks.boot.errors import HostError
from mirage_hooks.boot.keeper import Keeper
from mirage_hooks.boot.order import Order
from mirage_hooks.boot.xl import Xl, XlError

# How long a guest may take to heed a shutdown, seconds.
_ASK_SECONDS = 1.0
# How long its console may go on once a domain is gone: xl's reader of it hangs now and then.
_LAST_WORDS_SECONDS = 0.5
# What a domain takes beside its memory, MiB: page tables, and what its devices are shared by.
_BESIDE = 8


class Ended(Exception):  # noqa: N818 - nothing is wrong
    """The domain is gone, or is to be: the code to end with."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Domain:
    """One domain, by its order; `keeper` is there once xl makes it, as long as it is."""

    def __init__(self, order: Order, asked: int) -> None:
        """Have none yet; there is something to read from `asked` once it is to end."""
        self._order = order
        self._xl = Xl(order.xl)
        self._asked = asked
        self.keeper: Keeper | None = None
        self._console: subprocess.Popen[bytes] | None = None
        self._id = 0
        self._waits = False
        self._left = False
        self._settling = threading.Thread(target=self._settle)

    # Making.

    def prepare(self) -> None:
        """Have it made, paused, unless it cannot be there beside others. Raises XlError, Ended."""
        self._xl.end(self._order.uuid)  # what is left where its tender was killed
        if not self._order.alone:
            self._create_beside()
        self._waits = self.keeper is None and bool(self._xl.domains())  # one may end for this

    def make(self) -> None:
        """Have it made, paused, once others have ended. Raises XlError, Ended."""
        self._end_others()
        if self._waits:
            self._wait_for_room()
        self._create()

    def _create_beside(self) -> None:
        """Have the domain made beside others, unless Xen lacks memory. Raises XlError."""
        if self._has_room():
            began = time.monotonic()
            try:
                self._create()
                return
            except XlError:
                self._xl.end(self._order.uuid)  # what was begun has memory, too
                self.keeper = None
                hung = time.monotonic() - began >= xl.CHANGE_SECONDS
                if hung or self._has_room():
                    raise
                # Another guest's tender saw the same room, and was first to take it.
        print("Xen lacks memory for both: the domain is made once another ends", flush=True)

    def _create(self) -> None:
        """Have the domain made, paused. Raises XlError, and Ended where the end is asked for."""
        order = self._order
        descriptor = os.open(order.file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(order.config)
        self.keeper = Keeper(self._xl, order.file)
        made = self.keeper.made(unless=self._asked)
        if made is None:
            raise Ended(0)
        self._id = made
        self._console = self._xl.start(xl.console(made), None, subprocess.DEVNULL, bound=True)

    def _has_room(self) -> bool:
        free, memory = self._xl.free_memory(), self._order.memory
        return free is not None and free >= memory + memory // 64 + _BESIDE

    def _wait_for_room(self) -> None:
        """Wait for what domains had that end. Whether it is enough, `xl create` finds out."""
        deadline = time.monotonic() + xl.ROOM_SECONDS
        while time.monotonic() < deadline and not self._has_room():
            time.sleep(0.2)

    # Taking the place of others.

    def let_run(self) -> None:
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

    def settle(self) -> None:
        """Begin to have it alone, and by its name: it runs meanwhile."""
        self._settling.start()

    def _settle(self) -> None:
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

    # Ending.

    def make_way(self) -> None:
        """Leave the domain, which does nothing any more, to the next one's tender."""
        if self.ask():
            self._xl.run(xl.pause(self._id))
            self._left = True

    def ask(self) -> bool:
        """Ask the guest to end, if it does so; return whether it is still there after a moment."""
        if not self._xl.heeds(self._id):
            return True
        with contextlib.suppress(OSError):
            asking = self._xl.start(xl.shut_down(self._id), subprocess.DEVNULL, subprocess.DEVNULL)
            there = self.keeper is not None and self.keeper.outlasts(_ASK_SECONDS)
            xl.kill(asking)  # it would wait for an answer for a minute
            return there
        return True

    def clean(self) -> None:
        """Leave no domain, and no xl. Raises XlError."""
        if self.keeper is None:
            return
        if not self._id:
            self.keeper.end(at_once=True)  # else it may make the domain once that was looked for
        try:
            if not self._left:
                self._xl.end(self._order.uuid)
                self.keeper.outlasts(_LAST_WORDS_SECONDS)
        finally:
            self.keeper.end(at_once=self._left)
            if self._settling.is_alive():
                self._settling.join()
            if self._console is not None:
                # That of a domain which is left goes on: the next one is not to wait for it.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._console.wait(0 if self._left else _LAST_WORDS_SECONDS)
                xl.kill(self._console)
