"""Tell the operator what came out: events, for the command that `[notify]` of the host file names.

A process of its own runs that command (notify.py), and is sent the events: neither a converger nor
a monitor waits for it, whatever it does.

Shared with the monitor, which stays in memory.
"""

import os
import socket
import sys
from collections.abc import Mapping

from mirage_hooks.boot import journal, severity


class Teller:
    """What tells of events, in order, to one process that is started with the first of them."""

    def __init__(self, state: str) -> None:
        """`state` is the path of the state folder."""
        self._state = state
        self._socket: socket.socket | None = None
        self._failed = False

    def tell(self, event: Mapping[str, object]) -> int | None:
        """Tell of an event if it is an outcome; return the pid of a process that was started."""
        if severity.outcome(event) is None or not self._may_be_wanted():
            return None
        started = None
        try:
            if self._socket is None:
                started, self._socket = _start(self._state)
            self._socket.send(journal.encode(dict(event)).encode(), socket.MSG_DONTWAIT)
        except OSError as error:
            self._fail(event, f"{event['event']} is not told: {error}")
        return started

    def close(self) -> None:
        """Let the process end once it has told what it was sent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _may_be_wanted(self) -> bool:
        """Whether the host file may name a command; who runs that reads it whole."""
        try:
            with open(os.path.join(self._state, "host.toml"), "rb") as file:
                return b"notify" in file.read()
        except OSError:
            return False

    def _fail(self, event: Mapping[str, object], message: str) -> None:
        if not self._failed:
            log_failure(self._state, event, message)
        self._failed = True


def log_failure(state: str, event: Mapping[str, object], message: str) -> None:
    """Log that an event could not be told: nobody is told of that."""
    failure = journal.make_event(
        "notify.failed", str(event.get("converge")), message, untold=event.get("event")
    )
    journal.append(os.path.join(state, "events.jsonl"), failure)


def _start(state: str) -> tuple[int, socket.socket]:
    """Start what runs the command; return its pid, and where it takes events. Raises OSError."""
    # Packets: one is sent whole or not at all, and never waited for.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-m", "mirage_hooks.boot.notify", state],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)],
            setsid=True,
        )
    return pid, ours
