"""The xl that stays until its domain is gone, and says why it ended: `xl create -F`.

Shared with nobody but the tender of domains, which stays in memory.
"""

import contextlib
import os
import select
import subprocess
import time

from mirage_hooks.boot import xl
from mirage_hooks.boot.xl import Xl, XlError

# How long it may take to end once its domain is gone, seconds.
_END_SECONDS = 0.5


class Keeper:
    """One domain's, from the making of the domain, paused, to its end."""

    def __init__(self, driven: Xl, file: str) -> None:
        """Have the domain made that a file describes. Raises XlError."""
        try:
            # Else it would make the domain after the tender is gone, and nobody would know of it.
            self._process = driven.start(
                xl.create(file), subprocess.PIPE, subprocess.STDOUT, bound=True
            )
        except OSError as error:
            raise XlError(f"{driven.command[0]} cannot be executed: {error.strerror}") from None
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        self.output = self._process.stdout.fileno()
        self._said = b""

    def made(self, unless: int) -> int | None:
        """Wait until the domain is there; return its id. Raises XlError where it does not come.

        None once there is something to read from the descriptor `unless`.
        """
        deadline = time.monotonic() + xl.CHANGE_SECONDS
        while (found := xl.parse_created(self._text)) is None:
            ready = self._wait(deadline, unless)
            if unless in ready:
                return None
            if not ready or not self.listen():
                late = time.monotonic() >= deadline
                code = self.end()
                how = f"took more than {xl.CHANGE_SECONDS:g} s" if late else f"ended with {code}"
                raise xl.failure("xl create", how, xl.last_words(self._text))
        return found

    @property
    def reason(self) -> int | None:
        """Why the domain ended, of Xen's reasons; None where it was destroyed."""
        return xl.parse_end(self._text)

    def listen(self) -> bool:
        """Take what it says; return whether it is still there."""
        data = os.read(self.output, 4096)
        self._said += data
        return bool(data)

    def outlasts(self, seconds: float) -> bool:
        """Listen so many seconds at the most; return whether it is still there then."""
        deadline = time.monotonic() + seconds
        while self._hear(deadline):
            pass
        return time.monotonic() >= deadline

    def end(self, at_once: bool = False) -> int | None:
        """Have it gone, by force where it does not go; return how it ended, None if it did not."""
        if not at_once:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._process.wait(_END_SECONDS)
        xl.kill(self._process)
        return self._process.poll()

    @property
    def _text(self) -> str:
        return self._said.decode(errors="replace")

    def _hear(self, deadline: float) -> bool:
        """Listen once, until a time of the monotonic clock; return whether there may be more."""
        return bool(self._wait(deadline)) and self.listen()

    def _wait(self, deadline: float, *others: int) -> list[int]:
        ready, _, _ = select.select(
            [self.output, *others], [], [], max(0.0, deadline - time.monotonic())
        )
        return ready
