"""A guest's console: what it prints, dated, bounded in size, and harmless to a terminal.

Shared with the monitor, which stays in memory.
"""

import contextlib
import errno
import os
import time
from collections import deque
from itertools import accumulate

# A line longer than this is cut in two: a guest that prints no newline must not fill the memory.
LINE_BYTES = 4096

# What could move a cursor, colour a terminal or turn text around is shown instead of obeyed:
# C0 without tab, DEL, C1, and the bidirectional controls (Unicode TR 36, 3.7).
_HARMLESS = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for span in ((0, 9), (10, 32), (127, 160), (0x202A, 0x202F), (0x2066, 0x206A))
    for code in range(*span)
}


def harmless(text: str) -> str:
    """Return `text` with every control character made visible."""
    return text.translate(_HARMLESS)


class ConsoleLog:
    """The console of one generation, kept in `path` and, once that is half the limit, `path.1`."""

    def __init__(self, path: str, limit: int) -> None:
        self._path = path
        self._half = limit // 2
        self._pending = b""
        self._unreported = 0
        self.dropped = 0

    def write(self, data: bytes) -> None:
        """Take what the guest printed. What the disk cannot take is dropped, and counted."""
        *ended, last = (self._pending + data).split(b"\n")
        lines = [piece for line in ended for piece in _pieces(line)]
        *cut, self._pending = _pieces(last)
        if lines or cut:
            self._store([*lines, *cut])

    def flush(self) -> None:
        """Take a last line that no newline ended."""
        if self._pending:
            self._store([self._pending])
            self._pending = b""

    def note(self, text: str) -> None:
        """Add a line of the monitor's own."""
        self.flush()
        self._store([f"[mirage-hooks: {text}]".encode()])

    def _store(self, lines: list[bytes]) -> None:
        now = time.time()
        date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        if self._unreported:
            note = b"[mirage-hooks: %d bytes were dropped here]" % self._unreported
            if self._append([_row(date, note)]) == 0:
                self._unreported = 0
        lost = self._append([_row(date, line) for line in lines])
        if lost:
            dropped = sum(len(line) + 1 for line in lines[-lost:])
            self._unreported += dropped
            self.dropped += dropped

    def _append(self, rows: list[bytes]) -> int:
        """Append rows, as many at once as fit into half the limit; return how many were lost."""
        left = rows
        with contextlib.suppress(OSError):
            while left:
                left = left[self._append_some(left) :]
        return len(left)

    def _append_some(self, rows: list[bytes]) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            ends = accumulate((len(row) for row in rows), initial=size)
            fitting = sum(end <= self._half for end in ends) - 1
            if fitting < 1 and size:
                os.rename(self._path, self._path + ".1")
                return 0
            data = b"".join(rows[: max(fitting, 1)])
            if os.write(descriptor, data) < len(data):
                os.ftruncate(descriptor, size)
                raise OSError(errno.ENOSPC, "the disk took a part only")
            return max(fitting, 1)
        finally:
            os.close(descriptor)


def _pieces(line: bytes) -> list[bytes]:
    """Return a line cut to pieces that are not too long, one at the least."""
    return [line[at : at + LINE_BYTES] for at in range(0, len(line), LINE_BYTES)] or [b""]


def _row(date: str, line: bytes) -> bytes:
    text = line.removesuffix(b"\r").decode(errors="backslashreplace")
    return f"{date} {harmless(text)}\n".encode()


def tail(path: str, lines: int) -> list[str]:
    """Return the last lines of a console, dates and all."""
    last: deque[str] = deque(maxlen=lines)
    for part in (path + ".1", path):
        try:
            with open(part, encoding="utf-8", errors="replace") as file:
                last.extend(line.rstrip("\n") for line in file)
        except FileNotFoundError:
            continue
    return list(last)


def text_of(line: str) -> str:
    """Return a console line without its date."""
    return line.partition(" ")[2]
