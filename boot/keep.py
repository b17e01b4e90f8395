"""What is kept of a guest: pure, from its generations, what lives, and the operator's word."""

from collections.abc import Set
from dataclasses import dataclass

from mirage_hooks.boot.generation import Generation
from mirage_hooks.boot.plan import Known

# Generations whose folders stay whatever became of them: consoles and failed marks of late.
RECENT = 10


@dataclass(frozen=True)
class Kept:
    """What of one guest stays: generations by number, what is stored by sha256, commits to pin."""

    generations: frozenset[int]
    images: frozenset[str]
    commits: frozenset[str]


def decide(known: Known, states: int, desired: str | None, alive: Set[int] = frozenset()) -> Kept:
    """Return what stays of a guest, for which a boot digest is desired.

    What may be booted again stays whole: the newest `states` healthy states, what lives and what is
    pinned. So does what still has processes (`alive`) or is not judged yet, but for a pin of its
    commit. The record alone stays of the newest few, and of what put the failed mark on the
    desired state: without it that would be tried again.
    """
    generations = known.generations
    pinned = known.intent.generation if known.intent is not None else None
    bootable = [*_healthy_states(generations, states), known.live, known.numbered(pinned or 0)]
    candidates = {one.number: one for one in bootable if one is not None}
    at_work = {one.number: one for one in generations if one.unjudged or one.number in alive}
    failed = known.failed(desired) if desired is not None else None
    marks = [*generations[-RECENT:], *([failed] if failed is not None else [])]
    return Kept(
        generations=frozenset({*candidates, *at_work, *(one.number for one in marks)}),
        images=frozenset[str]().union(
            *(one.boot.stored for one in {**candidates, **at_work}.values())
        ),
        commits=frozenset(one.provenance.commit for one in candidates.values()),
    )


def _healthy_states(generations: tuple[Generation, ...], count: int) -> list[Generation]:
    """Return the newest healthy states, a boot digest each, by their newest healthy generations."""
    found: dict[str, Generation] = {}
    for generation in reversed(generations):
        if len(found) == count:
            break
        if generation.healthy_at is not None:
            found.setdefault(generation.digest, generation)
    return list(found.values())
