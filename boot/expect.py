"""Whether a console has a line that a pattern matches, told in time.

A pattern comes from a commit, and one that goes astray, such as `(a+)+$`, may take longer than
anybody lives. Meanwhile `re` lets nothing else of its process run, and outside the main thread no
signal stops it. So another process matches, which can be killed.
"""

import contextlib
import json
import os
import re
import resource
import select
import subprocess
import sys
from math import ceil

from mirage_hooks.boot import console

# How many of a console's last lines are looked at.
_LINES = 10_000
# How long Python may take to start on a busy machine, seconds: that is not the guest's time.
_START_SECONDS = 10.0
_FOUND = b"y"


class Expectation:
    """A pattern that a line of a console is to match, looked for at most `within` seconds."""

    def __init__(self, path: str, pattern: str, within: float) -> None:
        """Start what matches. Raises OSError."""
        self._pattern = pattern
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-m", "mirage_hooks.boot.expect", path, str(ceil(within) + 1)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._answer(_START_SECONDS)
        self._say(json.dumps(pattern))

    def missing(self, seconds: float) -> str | None:
        """Return what is missing, None for nothing; it takes no longer than so many seconds."""
        if not self._waiting:
            self._say("")
        answer = self._answer(seconds)
        if answer == _FOUND:
            return None
        how = "like" if answer else "could be matched with"
        return f"no line on the console {how} {self._pattern!r}"

    def close(self) -> None:
        """End what matches."""
        self._process.kill()
        self._process.communicate()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        with contextlib.suppress(OSError):  # killed; no answer says so
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()

    def _answer(self, seconds: float) -> bytes:
        """Return the answer to what was asked, nothing where it does not come in time."""
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        ready = select.poll()  # select() takes no descriptor from 1024 on
        ready.register(self._process.stdout, select.POLLIN)
        self._waiting = not ready.poll(seconds * 1000)
        return b"" if self._waiting else os.read(self._process.stdout.fileno(), 1)


def main() -> None:
    """Run as `python -m mirage_hooks.boot.expect CONSOLE SECONDS`: a line in, an answer out.

    The first line is the pattern, in JSON; each that follows asks whether it is there.
    """
    path, seconds = sys.argv[1], int(sys.argv[2])
    # Nobody may be left to kill it.
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    print("r", end="", flush=True)
    pattern = re.compile(json.loads(sys.stdin.readline()))
    for _ in sys.stdin:
        found = any(map(pattern.search, console.said(path, _LINES)))
        print("y" if found else "n", end="", flush=True)


if __name__ == "__main__":
    main()
