"""A guest's console: what it prints, dated, bounded in size, and harmless to a terminal.

Shared with the monitor, which stays in memory.
"""

import contextlib
import errno
import os
import re
import time
from collections import deque
from collections.abc import Sequence
from itertools import accumulate

# A line longer than this is cut in two: a guest that prints no newline must not fill the memory.
LINE_BYTES = 4096

REDACTED = b"[redacted]"

_NOTE = "[mirage-hooks: "

# What could move a cursor, colour a terminal or turn text around is shown instead of obeyed:
# C0 without tab, DEL, C1, the bidirectional controls (Unicode TR 36, 3.7) and what ends a line.
_HARMLESS = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for first, last in (
        *((0, 8), (10, 31), (127, 159), (0x61C, 0x61C)),
        *((0x200E, 0x200F), (0x2028, 0x202E), (0x2066, 0x2069)),
    )
    for code in range(first, last + 1)
}


def harmless(text: str) -> str:
    """Return `text` with every control character made visible."""
    return text.translate(_HARMLESS)


def date(seconds: float) -> str:
    """Return a time as log lines begin with it: ISO 8601, UTC, milliseconds. They sort as text."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"


class Redactor:
    """What takes secrets out of a stream, however that is cut into chunks.

    `words` are UTF-8, without a newline in them, the longest first.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._pattern = re.compile("|".join(map(re.escape, words)).encode()) if words else None
        self._longest = max((len(word.encode()) for word in words), default=0)
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Return what is certain by now; what may be the start of a secret is held back."""
        if self._pattern is None:
            return data
        text = self._held + data
        # No secret that begins before `certain` is still to end; none goes over the end of a line.
        certain = max(text.rfind(b"\n") + 1, len(text) - self._longest + 1)
        shown, at = [], 0
        for match in self._pattern.finditer(text):
            if match.start() >= certain:
                break
            shown += [text[at : match.start()], REDACTED]
            at = match.end()
        certain = max(at, certain)
        self._held = text[certain:]
        return b"".join([*shown, text[at:certain]])

    def flush(self) -> bytes:
        """Return what was held back: the stream has ended."""
        held, self._held = self._held, b""
        return self._pattern.sub(REDACTED, held) if self._pattern else held


class ConsoleLog:
    """The console of one generation, kept in `path` and, once that is half the limit, `path.1`.

    Of the words to redact nothing is kept; the longest has to come first.
    """

    def __init__(self, path: str, limit: int, redact: Sequence[str] = ()) -> None:
        self._path = path
        self._half = limit // 2
        self._redactor = Redactor(redact)
        self._pending = b""
        self._unreported = 0
        self.dropped = 0

    def write(self, data: bytes) -> None:
        """Take what the guest printed. What the disk cannot take is dropped, and counted."""
        self._take(self._redactor.feed(data))

    def flush(self) -> None:
        """Take a last line that no newline ended."""
        self._take(self._redactor.flush())
        if self._pending:
            self._store([self._pending])
            self._pending = b""

    def note(self, text: str) -> None:
        """Add a line of the monitor's own."""
        self.flush()
        self._store([f"{_NOTE}{text}]".encode()])

    def _take(self, data: bytes) -> None:
        *ended, last = (self._pending + data).split(b"\n")
        lines = [piece for line in ended for piece in _pieces(line)]
        *cut, self._pending = _pieces(last)
        if lines or cut:
            self._store([*lines, *cut])

    def _store(self, lines: list[bytes]) -> None:
        now = date(time.time())
        if self._unreported:
            note = f"{_NOTE}{self._unreported} bytes were dropped here]".encode()
            if self._append([_row(now, note)]) == 0:
                self._unreported = 0
        lost = self._append([_row(now, line) for line in lines])
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


def _row(when: str, line: bytes) -> bytes:
    text = line.removesuffix(b"\r").decode(errors="backslashreplace")
    return f"{when} {harmless(text)}\n".encode()


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


def said(path: str, lines: int) -> list[str]:
    """Return what the guest itself said in the last lines of a console, without dates."""
    texts = map(text_of, tail(path, lines))
    return [text for text in texts if not text.startswith(_NOTE)]
