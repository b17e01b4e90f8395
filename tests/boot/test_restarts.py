"""Restarts: what becomes of a guest that has ended by itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirage_hooks.boot.control import RestartPolicy
from mirage_hooks.boot.restarts import Again, Finished, GivenUp, decide
from strategies import examples

NOW = 1_000.0
KINDS = st.sampled_from(["never", "failure", "always"])
POLICIES = st.builds(RestartPolicy, KINDS, st.integers(0, 8), st.floats(0.1, 10_000))
# How long a guest lives before each of its ends, in seconds.
LIVES = st.lists(st.floats(0, 1_000), max_size=30)


def restarts(policy: RestartPolicy, lives: list[float]) -> list[float]:
    """Return when a guest is booted again that fails after each of its lives."""
    now = 0.0
    booted: list[float] = []
    counted: tuple[float, ...] = ()
    for life in lives:
        now += life
        decision = decide(policy, 1, counted, now)
        if not isinstance(decision, Again):
            break
        counted = decision.counted
        booted.append(now)
        now += decision.wait
    return booted


# Whether.


@pytest.mark.parametrize(
    ("on", "code", "again"),
    [
        ("never", 0, False),
        ("never", 1, False),
        ("never", None, False),
        ("failure", 0, False),
        ("failure", 1, True),
        ("failure", None, True),
        ("always", 0, True),
        ("always", 1, True),
        ("always", None, True),
    ],
)
def test_the_policy_says_after_which_ends_a_guest_is_booted_again(
    on: str, code: int | None, again: bool
) -> None:
    assert isinstance(decide(RestartPolicy(on), code, (), NOW), Again) is again


@pytest.mark.parametrize("on", ["never", "failure", "always"])
@pytest.mark.parametrize("code", [63, 64])
def test_what_would_end_the_same_is_not_booted_again(on: str, code: int) -> None:
    expected = Finished("starting it again would end the same")
    assert decide(RestartPolicy(on), code, (), NOW) == expected


def test_a_guest_that_is_not_booted_again_is_told_by_which_policy() -> None:
    expected = Finished("its restart policy is 'failure'")
    assert decide(RestartPolicy("failure"), 0, (), NOW) == expected


def test_an_end_that_is_as_it_was_to_be_is_not_given_up_at_the_limit() -> None:
    assert isinstance(decide(RestartPolicy("failure", limit=0), 0, (), NOW), Finished)


# How often.


@pytest.mark.parametrize(("before", "again"), [(0, True), (2, True), (3, False), (9, False)])
def test_a_guest_is_given_up_at_its_limit(before: int, again: bool) -> None:
    decision = decide(RestartPolicy("always", limit=3), 1, [NOW - 1] * before, NOW)
    assert isinstance(decision, Again if again else GivenUp)


def test_with_no_restarts_allowed_a_guest_is_given_up_at_once() -> None:
    assert decide(RestartPolicy("always", limit=0), 1, (), NOW) == GivenUp()


def test_restarts_count_for_as_long_as_the_window_and_no_longer() -> None:
    before = (NOW - 60.5, NOW - 60, NOW - 1)
    decision = decide(RestartPolicy("always", limit=3, window=60), 1, before, NOW)
    assert isinstance(decision, Again)
    assert decision.counted == (NOW - 60, NOW - 1, NOW)


@given(POLICIES, LIVES)
@examples(100)
def test_no_window_ever_holds_more_restarts_than_the_limit(
    policy: RestartPolicy, lives: list[float]
) -> None:
    booted = restarts(policy, lives)
    for number, first in enumerate(booted):
        within = [one for one in booted[number:] if first >= one - policy.window]
        assert len(within) <= policy.limit


# When.


@pytest.mark.parametrize(
    ("before", "wait"),
    [(0, 0.5), (1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (100_000, 60)],
)
def test_the_wait_doubles_from_half_a_second_to_a_minute(before: int, wait: float) -> None:
    policy = RestartPolicy("always", limit=1_000_000)
    decision = decide(policy, 1, [NOW - 1] * before, NOW)
    assert isinstance(decision, Again)
    assert decision.wait == wait


def test_a_guest_that_lived_through_its_window_waits_as_after_its_first_end() -> None:
    decision = decide(RestartPolicy("always", window=60), 1, [NOW - 61] * 4, NOW)
    assert decision == Again(0.5, (NOW,))
