"""Downtime of a replacement, beside the bare guest's own stop and start.

A client asks for the page in a tight loop (client.py). Downtime is the gap between the last reply
of the old guest and the first one of the new guest. Two guests from the same source, on two ports,
are replaced in turn: ours by a pull that brings a new image; the bare one by SIGTERM, waitpid and
posix_spawn, one right after the other. Its image is read once before, so that both are in memory.
Both guests take the same time from exec to their open port (START_MS in stage.py): the ratio
depends on it, the difference, what handing over costs, does not.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stage import PAGES, Stage, arguments, free_port
from table import Budget, Figure
from watch import watch

_ROUNDS = 21
_MOST = 1.5


class BareGuest:
    """A guest that nobody looks after."""

    def __init__(self, log: Path) -> None:
        self.port = free_port()
        self._log = log
        self._pid: int | None = None

    def start(self, image: Path) -> None:
        """Boot an image."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._pid = os.posix_spawn(
            image,
            ["www", *arguments(self.port)],
            {"PATH": os.defpath},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, self._log, flags, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
        )

    def stop(self) -> None:
        """End it and wait for its end."""
        if self._pid is not None:
            os.kill(self._pid, signal.SIGTERM)
            os.waitpid(self._pid, 0)
            self._pid = None


@contextmanager
def _bare_guest(stage: Stage) -> Iterator[BareGuest]:
    guest = BareGuest(stage.folder / "bare.log")
    try:
        guest.start(stage.image(PAGES[0]))
        yield guest
    finally:
        guest.stop()


def measure(stage: Stage) -> list[Figure]:
    """Return the bare guest's gap, and ours as a ratio to it."""
    ours, bare = [], []
    with _bare_guest(stage) as guest:
        for at in range(_ROUNDS):
            bare.append(_replace_bare(stage, guest, (PAGES[at % 2], PAGES[(at + 1) % 2])))
            ours.append(_replace_ours(stage))
    return [
        Figure("downtime: bare guest", "ms", bare),
        Figure("downtime: what handing over adds", "ms", ours, bare, "difference"),
        Figure("downtime: replaced by a pull", "ms", ours, bare, "ratio", Budget("ratio", _MOST)),
    ]


def _replace_bare(stage: Stage, guest: BareGuest, pages: tuple[str, str]) -> float:
    image = stage.image(pages[1])
    image.read_bytes()
    with watch(guest.port, pages) as client:
        guest.stop()
        guest.start(image)
        return client.change().gap


def _replace_ours(stage: Stage) -> float:
    pages = stage.publish()
    with watch(stage.port, pages) as client:
        stage.pull(stage.ours)
        return client.change().gap
