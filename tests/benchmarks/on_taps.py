"""Guests on taps: from boot to the first answer, and the silence of a replacement.

A client pings the guest every millisecond (echo_client.py). A guest of ours and a bare one are
booted in turn, never both at once: the same program, image and arguments (ours are read from its
orders), the same bridge, the same address and MAC. The tap of either was made just before.

*Boot* is cold, nothing ran before: ours from the moment that its monitor lets the armed tender go
(`started` in monitor.json), the bare one from right before its posix_spawn, each to the first
answer. *Replaced* is a guest that answers: ours by `mirage-hooks reboot`, the bare one by SIGTERM,
waitpid and posix_spawn, one right after the other, on the same tap; it is the time between the last
answer of the old guest and the first of the new one. A client that a busy machine holds up has
other gaps, and more of them the longer it is looked at: requests *lost*, of both, tell what else
there was.

Stand-ins wait START_MS (stage.py) before they do anything, which is what MirageOS's own start takes
on unix as on spt; before a real tender, whose image is none of MirageOS's, as much is waited. A
virtual machine's start is its own.
"""

import time
from dataclasses import dataclass, field

from bare import BareGuest
from echoes import echoes, first_after, gap_around
from ground import ADDRESS, Ground, Subject, ground, subjects
from stage import Stage
from table import Budget, Figure

from support import wait_for

_ROUNDS = 11
_MOST_TO_BOOT = 1.15
_MOST_SILENT = 1.5
# QEMU without KVM takes a second on a busy machine.
_SECONDS = 20


@dataclass(frozen=True)
class _Samples:
    """Milliseconds; `lost` are requests."""

    boots: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    lost: list[float] = field(default_factory=list)


def measure(stage: Stage) -> list[Figure]:
    """Return both for each target that this machine can run."""
    return [figure for subject in subjects(stage) for figure in _of(stage, subject)]


def _of(stage: Stage, subject: Subject) -> list[Figure]:
    ours, bare = _Samples(), _Samples()
    with ground(stage, subject) as (made, guest):
        executable, argv = made.bare_command()
        words = subject.words
        if "-accel" in argv:
            words += f" under QEMU's {argv[argv.index('-accel') + 1]}"
        for _ in range(_ROUNDS):
            _measure_bare(made, guest, (executable, argv), bare)
            _measure_ours(made, ours)
    boot, silence = Budget("ratio", _MOST_TO_BOOT), Budget("ratio", _MOST_SILENT)
    return [
        Figure(f"boot to first answer: {words}", "ms", ours.boots, bare.boots, "ratio", boot),
        Figure(f"replaced, longest gap: {words}", "ms", ours.gaps, bare.gaps, "ratio", silence),
        Figure(f"replaced, lost: {words}", "requests", ours.lost, bare.lost, "difference"),
    ]


def _measure_bare(
    made: Ground, guest: BareGuest, command: tuple[str, list[str]], samples: _Samples
) -> None:
    made.introduce()
    with made.bare_tap():
        with echoes(made.namespace, ADDRESS) as client:
            began = time.monotonic()
            guest.start(*command)
            client.line()
        samples.boots.append(first_after(client.times, began))
        with echoes(made.namespace, ADDRESS) as client:
            client.line()
            guest.stop()
            stopped = time.monotonic()
            guest.start(*command)
            wait_for(lambda: made.namespace.pings(ADDRESS, 0.1), _SECONDS)
        samples.gaps.append(gap_around(client.times, stopped))
        samples.lost.append(client.lost)
        guest.stop()


def _measure_ours(made: Ground, samples: _Samples) -> None:
    offset = time.time() - time.monotonic()
    made.introduce()
    with echoes(made.namespace, ADDRESS) as client:
        made.mirage_hooks("start", "www")
        client.line()
    samples.boots.append(first_after(client.times, _started(made) - offset))
    with echoes(made.namespace, ADDRESS) as client:
        client.line()
        made.mirage_hooks("reboot", "www")
    samples.gaps.append(gap_around(client.times, _started(made) - offset))
    samples.lost.append(client.lost)
    made.mirage_hooks("stop", "www")


def _started(made: Ground) -> float:
    started = made.monitor().started
    assert started is not None
    return started
