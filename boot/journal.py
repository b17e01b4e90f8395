"""The event log: what happened, one JSON object a line, each with a sentence for people.

Appended to by the converger and by every monitor, so it stays free of heavy imports. A line goes
out in a single write to a file opened with O_APPEND, so that writers do not mix.
"""

import contextlib
import fcntl
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

from mirage_hooks.boot.console import date, harmless

# Past this size the log is set aside (once: .1 is replaced).
ROTATE_BYTES = 4 * 1024 * 1024

_APPENDING = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


# What is told of a converge that changes nothing, or tries in vain: of those that nobody asked for
# there may be one a minute.
_NO_NEWS = frozenset(
    {
        *("converge.started", "converge.waiting", "converge.shared", "converge.paused"),
        *("converge.finished", "repository.branch", "guest.planned", "guest.notice"),
        *("guest.preparing", "guest.tender", "guest.scope", "network.configured", "guest.fault"),
        "guest.stop-postponed",
        *("network.fault", "collect.fault"),
    }
)


def is_news(event: dict[str, object]) -> bool:
    """Whether an event says that something of what runs was changed."""
    return event["event"] not in _NO_NEWS


def complain(text: str) -> None:
    """Print, dated, what cannot be logged; where that is not possible either, it has to be lost."""
    with contextlib.suppress(OSError, ValueError):
        print(f"{date(time.time())} {text}", file=sys.stderr)


def append(path: str, event: dict[str, object]) -> None:
    """Append one event. A full disk loses the event, never the deploy."""
    line = encode(event).encode() + b"\n"
    try:
        descriptor = os.open(path, _APPENDING, 0o600)
        try:
            os.write(descriptor, line)
            _set_aside(path, descriptor, ROTATE_BYTES)
        finally:
            os.close(descriptor)
    except OSError as error:
        complain(f"event not logged: {error}: {line.decode().rstrip()}")


def encode(event: dict[str, object]) -> str:
    """Return an event as a line of text; a file name that is no UTF-8 stands in it escaped."""
    text = json.dumps(event, ensure_ascii=False)
    return text.encode(errors="backslashreplace").decode()


def make_event(name: str, converge: str, message: str, **fields: object) -> dict[str, object]:
    """Return an event: its time (seconds since the epoch), its converge, its sentence."""
    return {"time": time.time(), "event": name, "converge": converge, "message": message, **fields}


def rotate(path: str, limit: int = ROTATE_BYTES) -> None:
    """Set a log that has grown too large aside; end a last line that a crash cut short."""
    try:
        with open(path, "rb+", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
                file.write(b"\n")
            _set_aside(path, file.fileno(), limit)
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            complain(f"event log not rotated: {error}")


def _set_aside(path: str, descriptor: int, limit: int) -> None:
    """Set an open log aside if it has grown too large, and nobody else has done so already."""
    if os.fstat(descriptor).st_size <= limit:
        return
    # Else a second writer would set the new log aside, over the old one.
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.stat(path), os.fstat(descriptor)):
            os.rename(path, path + ".1")


def bound_own(path: str, limit: int) -> None:
    """Set the log that is this process's standard error aside if it has grown too large."""
    try:
        if not os.path.samestat(os.stat(path), os.fstat(2)):
            return
        _set_aside(path, 2, limit)
        new = os.open(path, _APPENDING, 0o600)
        for stream in (1, 2):
            os.dup2(new, stream)
        os.close(new)
    except OSError as error:
        complain(f"{path} not rotated: {error}")


def read(path: str) -> Iterator[dict[str, object]]:
    """Yield the events of a log, oldest first; a line that a crash cut short is passed over."""
    for part in (path + ".1", path):
        try:
            with open(part, encoding="utf-8", errors="replace") as file:
                for line in file:
                    if (event := parse(line)) is not None:
                        yield event
        except FileNotFoundError:
            continue


def parse(line: str) -> dict[str, object] | None:
    """Return the event on a line, or None where there is none."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "message" in event else None


def _tell_nobody(event: dict[str, object]) -> None:
    pass


class Journal:
    """The events of one converge: into the log, to who follows it, to who is to be told of it."""

    def __init__(
        self,
        path: str,
        converge: str,
        follower: Callable[[str], None],
        tell: Callable[[dict[str, object]], object] = _tell_nobody,
    ) -> None:
        self.converge = converge
        self._path = path
        self._follower = follower
        self._tell = tell
        self._lock = threading.Lock()
        self._held: list[dict[str, object]] | None = None

    def hold(self) -> None:
        """Log nothing until there is news; then all that was held back, in its order."""
        self._held = []

    def event(self, name: str, message: str, **fields: object) -> None:
        """Log one event; `name` is its documented kind, `message` the sentence for people."""
        # What a guest or a repository says may be in it: it obeys no terminal.
        message = "\n".join(map(harmless, message.split("\n")))
        event = make_event(name, self.converge, message, **fields)
        with self._lock:  # guests are switched side by side
            for one in self._due(event):
                append(self._path, one)
                self._tell(one)
            self._follower(encode(event))

    def _due(self, event: dict[str, object]) -> list[dict[str, object]]:
        """Return what is to be logged now, up to an event."""
        if self._held is None:
            return [event]
        self._held.append(event)
        if not is_news(event):
            return []
        held, self._held = self._held, None
        return held
