"""Whether a guest that has ended is booted again, and when: pure.

Shared with the monitor, which stays in memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mirage_hooks.boot.control import RestartPolicy

# Exit codes a MirageOS guest is not booted again after: --help (63) and a bad argument (64) come
# back the same every time.
_HOPELESS = frozenset({63, 64})

# Restarts wait FIRST seconds, then twice as long each time, LONGEST at the most.
_FIRST, _LONGEST = 0.5, 60.0


@dataclass(frozen=True)
class Again:
    """It is booted again in `wait` seconds; `counted` are its restarts in the window, with this."""

    wait: float
    counted: tuple[float, ...]


@dataclass(frozen=True)
class Finished:
    """It has ended for good, as it was to be, and why."""

    why: str


@dataclass(frozen=True)
class GivenUp:
    """Its limit of restarts is reached."""


def decide(
    policy: RestartPolicy, exit_code: int | None, before: Sequence[float], now: float
) -> Again | Finished | GivenUp:
    """Return what becomes of a guest that has ended now, by itself; a signal leaves no `exit_code`.

    `before` are the times of its earlier restarts, in seconds of the clock that `now` is of.
    """
    if exit_code in _HOPELESS:
        return Finished("starting it again would end the same")
    if policy.on == "never" or (policy.on == "failure" and exit_code == 0):
        return Finished(f"its restart policy is {policy.on!r}")
    counted = tuple(moment for moment in before if moment >= now - policy.window)
    if len(counted) >= policy.limit:
        return GivenUp()
    wait = min(_FIRST * 2.0 ** min(len(counted), 16), _LONGEST)
    return Again(wait, (*counted, now))
