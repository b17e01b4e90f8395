"""Downtime of a replacement, beside the bare guest's own stop and start.

A client asks for the page in a tight loop (client.py). Downtime is the gap between the last reply
of the old guest and the first one of the new guest. Two guests from the same source, on two ports,
are replaced in turn: ours by a pull that brings a new image; the bare one by SIGTERM, waitpid and
posix_spawn, one right after the other. Its image is read once before, so that both are in memory.
Both guests take the same time from exec to their open port (START_MS in stage.py): the ratio
depends on it, the difference, what handing over costs, does not.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bare import BareGuest
from stage import PAGES, Stage, arguments, free_port
from table import Budget, Figure
from watch import watch

_ROUNDS = 21
_MOST = 1.5


@dataclass(frozen=True)
class _Bare:
    """The bare guest, and its port."""

    guest: BareGuest
    port: int

    def start(self, image: Path) -> None:
        self.guest.start(image, ["www", *arguments(self.port)])


@contextmanager
def _bare_guest(stage: Stage) -> Iterator[_Bare]:
    bare = _Bare(BareGuest(stage.folder / "bare.log"), free_port())
    try:
        bare.start(stage.image(PAGES[0]))
        yield bare
    finally:
        bare.guest.stop()


def measure(stage: Stage) -> list[Figure]:
    """Return the bare guest's gap, and ours as a ratio to it."""
    ours, bare = [], []
    with _bare_guest(stage) as alone:
        for at in range(_ROUNDS):
            bare.append(_replace_bare(stage, alone, (PAGES[at % 2], PAGES[(at + 1) % 2])))
            ours.append(_replace_ours(stage))
    return [
        Figure("downtime: bare guest", "ms", bare),
        Figure("downtime: what handing over adds", "ms", ours, bare, "difference"),
        Figure("downtime: replaced by a pull", "ms", ours, bare, "ratio", Budget("ratio", _MOST)),
    ]


def _replace_bare(stage: Stage, bare: _Bare, pages: tuple[str, str]) -> float:
    image = stage.image(pages[1])
    image.read_bytes()
    with watch(bare.port, pages) as client:
        bare.guest.stop()
        bare.start(image)
        return client.change().gap


def _replace_ours(stage: Stage) -> float:
    pages = stage.publish()
    with watch(stage.port, pages) as client:
        stage.pull(stage.ours)
        return client.change().gap
