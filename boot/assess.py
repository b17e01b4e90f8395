"""How a converge has come out: pure, from what is desired and what is known once it is done."""

from collections.abc import Mapping
from dataclasses import dataclass

from mirage_hooks.boot.desired import DesiredState
from mirage_hooks.boot.errors import Error
from mirage_hooks.boot.plan import Action, Known, Verb, Wish, plan


@dataclass(frozen=True)
class Assessment:
    """What is not as it should be, by guest; what is still to do; and all of it in a line.

    `settled` says that nothing has to be looked at again until something changes.
    """

    problems: dict[str, Error]
    left: dict[str, Error]
    settled: bool
    summary: str


def assess(
    desired: DesiredState, known: Mapping[str, Known], wish: Wish, faults: Mapping[str, Error]
) -> Assessment:
    """Assess a converge that had a wish; `faults` are those it met, by guest."""
    final = plan(desired, known, Wish(allow_empty=True, now=wish.now, host=wish.host))
    problems, left = dict(faults), {}
    for action in final:
        if action.problem is not None:
            problems.setdefault(action.guest, action.problem)
        elif action.verb not in {Verb.KEEP, Verb.SKIP}:
            left[action.guest] = Error(f"{action.guest}: still to do: {action.reason}")
    # What is broken and yet no problem (its guest is held or pinned) is looked at again: the paths
    # that would mend it may not be among the watched.
    settled = not problems and not left and not desired.broken
    return Assessment(problems, left, settled, _summary(final, desired))


def _summary(final: list[Action], desired: DesiredState) -> str:
    if not desired.names:
        return f"done: {desired.why_empty}"
    running = [action.guest for action in final if action.verb is Verb.KEEP]
    if desired.broken:
        return f"done, but for what cannot be booted: {', '.join(desired.broken)}"
    if desired.unready:
        return f"done, but for an image that is not there yet: {', '.join(sorted(desired.unready))}"
    if not running:
        return "done: no guest runs"
    if len(running) == 1:
        return f"done: {running[0]} runs as it should"
    return f"done: {len(running)} guests run as they should"
