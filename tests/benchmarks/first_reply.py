"""From the start of a pull that brings a new image to the first reply of that image.

Beside it the same pull in a clone without a hook, in turn. The client asks every millisecond, so
that it leaves the machine to the deploy. The pieces are cut at what the event log says: the
converge begins (git's own work, the hook's and the converger's start lie before), the new guest is
fired (its monitor stands armed), the first reply. No budget: most of it is git's, Python's and the
guest's own time, and the old guest serves meanwhile.
"""

import time
from pathlib import Path

from stage import Stage
from table import Figure
from watch import watch

from mirage_hooks.boot import journal

_ROUNDS = 11
_PAUSE = 0.001


def measure(stage: Stage) -> list[Figure]:
    """Return the plain pull, the whole way to the first reply, and its pieces."""
    plain = stage.clone("plain")
    base: list[float] = []
    samples: dict[str, list[float]] = {
        "pull to first reply": [],
        "  until the converge begins": [],
        "  until the new guest is fired": [],
        "  until its first reply": [],
    }
    for at in range(_ROUNDS):
        pages = stage.publish()
        if at % 2:
            base.append(_pull(stage, plain))
        began, started, fired, replied = _deploy(stage, pages)
        if not at % 2:
            base.append(_pull(stage, plain))
        pieces = (replied - began, started - began, fired - started, replied - fired)
        for values, seconds in zip(samples.values(), pieces, strict=True):
            values.append(seconds * 1000)
    return [
        Figure("pull of a new image: no hook", "ms", base),
        *(Figure(name, "ms", values, base) for name, values in samples.items()),
    ]


def _pull(stage: Stage, clone: Path) -> float:
    began, ended = stage.pull(clone)
    return (ended - began) * 1000


def _deploy(stage: Stage, pages: tuple[str, str]) -> tuple[float, float, float, float]:
    """Pull; return when that began, the converge did, the guest was fired, and it replied."""
    offset = time.time() - time.monotonic()
    with watch(stage.port, pages, _PAUSE) as client:
        began, _ = stage.pull(stage.ours)
        replied = client.change().first_new
    events = list(journal.read(str(stage.state.events)))
    times = {
        str(event["event"]): float(str(event["time"])) - offset
        for event in events
        if event["converge"] == events[-1]["converge"]
    }
    return began, times["converge.started"], times["guest.fired"], replied
