"""Generations: how far each has come, and how it ends."""

import time

import pytest

from mirage_hooks.boot.generation import Generation, Phase
from support import past_generation


def generation(phase: Phase) -> Generation:
    """Return a generation in a phase."""
    return past_generation(1, "a" * 64, "1" * 40, phase)


@pytest.mark.parametrize(
    ("phase", "unjudged"),
    [
        (Phase.PREPARING, True),
        (Phase.ARMED, True),
        (Phase.FIRED, True),
        (Phase.HEALTHY, False),
        (Phase.FAILED, False),
        (Phase.ENDED, False),
        (Phase.ABANDONED, False),
    ],
)
def test_a_generation_is_unjudged_until_it_is_found_healthy_or_not(
    phase: Phase, unjudged: bool
) -> None:
    assert generation(phase).unjudged is unjudged


def test_a_generation_ends_now_and_says_why() -> None:
    before = time.time()
    ended = generation(Phase.HEALTHY).end("replaced")
    assert (ended.phase, ended.reason, ended.lost) == (Phase.ENDED, "replaced", False)
    assert ended.ended_at is not None
    assert before <= ended.ended_at <= time.time()


def test_a_generation_whose_end_was_nobodys_will_is_lost() -> None:
    assert generation(Phase.HEALTHY).end("the host was rebooted", lost=True).lost


def test_a_failed_generation_stays_failed_and_why_when_it_ends() -> None:
    failed = generation(Phase.FAILED)
    ended = failed.end("replaced")
    assert (ended.phase, ended.reason) == (Phase.FAILED, failed.reason)
