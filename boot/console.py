"""A guest's console: what it prints, dated, bounded in size, and harmless to a terminal.

Shared with the monitor, which stays in memory.
"""

import os
import time
from collections import deque

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
        *lines, self._pending = (self._pending + data).split(b"\n")
        while len(self._pending) > LINE_BYTES:
            lines.append(self._pending[:LINE_BYTES])
            self._pending = self._pending[LINE_BYTES:]
        if lines:
            self._store(lines)

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
        stamp = (
            time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        )
        if self._unreported:
            lines = [b"[mirage-hooks: %d bytes were dropped here]" % self._unreported, *lines]
        text = "".join(
            f"{stamp} {harmless(line.decode(errors='backslashreplace').rstrip(chr(13)))}\n"
            for line in lines
        )
        try:
            descriptor = os.open(
                self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            try:
                os.write(descriptor, text.encode())
                if os.fstat(descriptor).st_size > self._half:
                    os.rename(self._path, self._path + ".1")
            finally:
                os.close(descriptor)
        except OSError:
            lost = sum(len(line) + 1 for line in lines)
            self._unreported += lost
            self.dropped += lost
        else:
            self._unreported = 0


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
