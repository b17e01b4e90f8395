"""The client of client.py, run in a process of its own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_CLIENT = Path(__file__).with_name("client.py")


@dataclass(frozen=True)
class Change:
    """When the old page was last read, and the new one first (monotonic, seconds)."""

    last_old: float
    first_new: float

    @property
    def gap(self) -> float:
        """Milliseconds between the two."""
        return (self.first_new - self.last_old) * 1000


@dataclass
class Watch:
    """A client at work."""

    process: "subprocess.Popen[str]"

    def line(self) -> str:
        """Return the next line that the client prints; raise where it printed none."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the client did not see the page change")
        return line

    def change(self) -> Change:
        """Wait for the change of page."""
        last_old, first_new = map(float, self.line().split())
        return Change(last_old, first_new)


@contextmanager
def watch(port: int, pages: tuple[str, str], pause: float = 0.0) -> Iterator[Watch]:
    """Watch a guest's page change; the client has read the old page when this begins."""
    old, new = pages
    command: list[str | Path] = [sys.executable, "-IS", _CLIENT, str(port), old, new, str(pause)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            client = Watch(process)
            client.line()
            yield client
        finally:
            process.kill()
