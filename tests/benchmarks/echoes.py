"""The client of echo_client.py, run in a process of its own in a namespace."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from namespace import Namespace

_CLIENT = Path(__file__).with_name("echo_client.py")
# A guest that never answers is waited for so long; seconds.
_PATIENCE = 120
# How long answers are waited for after the last thing that was done; seconds.
_AFTERWARDS = 0.3


@dataclass
class Echoes:
    """A client at work; once it has ended, `times` are when answers came (monotonic, seconds).

    `lost` is how many requests had no answer.
    """

    process: "subprocess.Popen[str]"
    times: list[float] = field(default_factory=list)
    lost: int = 0

    def line(self) -> str:
        """Return the next line that the client prints; raise where it printed none."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the client ended")
        return line

    def end(self) -> None:
        """Take what the client has noted."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        while not (line := self.line())[0].isdigit():
            pass
        asked, *times = line.split()
        self.times = [float(time) for time in times]
        self.lost = int(asked) - len(times)


@contextmanager
def echoes(namespace: Namespace, address: str) -> Iterator[Echoes]:
    """Have a guest pinged every millisecond, until a while after this ends."""
    with (
        namespace.entered(),
        subprocess.Popen(
            [sys.executable, "-IS", _CLIENT, address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        limit = threading.Timer(_PATIENCE, process.kill)
        limit.start()
        try:
            client = Echoes(process)
            client.line()
            yield client
            time.sleep(_AFTERWARDS)
            client.end()
        finally:
            limit.cancel()
            process.kill()


def first_after(times: Sequence[float], moment: float) -> float:
    """Return how many milliseconds after a moment the first answer came."""
    return (next(time for time in times if time > moment) - moment) * 1000


def gap_around(times: Sequence[float], moment: float) -> float:
    """Return how many milliseconds there were between the answers before and after a moment."""
    return first_after(times, max(time for time in times if time < moment))
