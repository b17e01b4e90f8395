"""What is kept of a guest, and what is not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage_hooks.boot import keep
from mirage_hooks.boot.generation import Generation, Phase
from mirage_hooks.boot.intent import Intent
from mirage_hooks.boot.keep import RECENT, Kept
from mirage_hooks.boot.plan import Known
from support import past_generation


def made(number: int, state: str = "a", phase: Phase = Phase.ENDED) -> Generation:
    """Return a generation; each state has an image, each number a commit."""
    return past_generation(number, state * 64, f"{number:040x}", phase)


def commits(*numbers: int) -> frozenset[str]:
    return frozenset(f"{number:040x}" for number in numbers)


def images(states: str) -> frozenset[str]:
    return frozenset(state * 64 for state in states)


def history(states: str) -> tuple[Generation, ...]:
    """Return generations of the states named, a letter each; a capital one failed."""
    return tuple(
        made(number, state.lower(), Phase.FAILED if state.isupper() else Phase.ENDED)
        for number, state in enumerate(states, 1)
    )


def decided(states: str, count: int = 3, **known: object) -> Kept:
    return keep.decide(Known(history(states), **known), count, None)  # type: ignore[arg-type]


# So many that the newest few are all of one state.
SINCE = "z" * RECENT


def test_nothing_is_kept_of_a_guest_that_never_was() -> None:
    assert keep.decide(Known(), 3, None) == Kept(frozenset(), frozenset(), frozenset())


def test_the_newest_healthy_states_keep_their_images() -> None:
    assert decided("abcdef").images == images("def")


@pytest.mark.parametrize(("count", "states"), [(1, "d"), (2, "cd"), (4, "abcd"), (9, "abcd")])
def test_as_many_healthy_states_are_kept_as_the_host_says(count: int, states: str) -> None:
    assert decided("abcd", count).images == images(states)


def test_reboots_of_a_state_do_not_count() -> None:
    assert decided("abccccdddd").images == images("bcd")


def test_a_state_is_kept_by_its_newest_healthy_generation() -> None:
    assert decided("abab" + SINCE).generations == {3, 4, *range(5, 5 + RECENT)}


def test_the_commits_of_kept_states_are_pinned() -> None:
    assert decided("abcab").commits == commits(3, 4, 5)


def test_a_failed_state_is_no_candidate() -> None:
    assert decided("abCdE").images == images("abd")


def test_the_newest_generations_keep_their_records_whatever_they_were() -> None:
    kept = decided("abc" + "X" * 20)
    assert kept.generations == {1, 2, 3, *range(24 - RECENT, 24)}


def test_a_record_alone_keeps_neither_an_image_nor_a_commit() -> None:
    kept = decided("aB", count=1)
    assert kept == Kept(frozenset({1, 2}), images("a"), commits(1))


def test_what_lives_is_kept() -> None:
    one = history("A" + SINCE)[0]
    kept = decided("A" + SINCE, live=one)
    assert (1 in kept.generations, kept.images, commits(1) <= kept.commits) == (
        True,
        images("az"),
        True,
    )


def test_what_is_pinned_is_kept() -> None:
    kept = decided("abcde" + SINCE, count=1, intent=Intent("pinned", 0.0, 1, "d"))
    assert (1 in kept.generations, kept.images, commits(1) <= kept.commits) == (
        True,
        images("az"),
        True,
    )


def test_a_hold_keeps_nothing_by_itself() -> None:
    assert decided("ab", count=1, intent=Intent("held", 0.0)).images == images("b")


@pytest.mark.parametrize("phase", [Phase.PREPARING, Phase.ARMED, Phase.FIRED])
def test_what_is_not_judged_is_kept(phase: Phase) -> None:
    known = Known((made(1, "a", phase), *history("-" + SINCE)[1:]))
    kept = keep.decide(known, 3, None)
    assert (1 in kept.generations, kept.images) == (True, images("az"))


def test_what_is_not_judged_has_no_commit_pinned() -> None:
    known = Known((made(1, "a", Phase.FIRED),))
    assert keep.decide(known, 3, None).commits == frozenset()


def test_what_has_a_process_yet_is_kept() -> None:
    kept = keep.decide(Known(history("A" + SINCE)), 3, None, alive={1})
    assert (1 in kept.generations, kept.images) == (True, images("az"))


def test_the_failed_mark_on_the_desired_state_stays() -> None:
    known = Known(history("aB" + SINCE))
    wanted = known.generations[1].digest
    assert 2 in keep.decide(known, 1, wanted).generations
    assert 2 not in keep.decide(known, 1, None).generations


@settings(deadline=None)
@given(st.text("abcdeABCDE", max_size=40), st.integers(1, 5), st.integers(0, 45))
def test_what_is_collected_changes_nothing_that_would_be_booted(
    states: str, count: int, pin: int
) -> None:
    intent = Intent("pinned", 0.0, pin, "d") if pin else None
    before = Known(history(states), intent=intent)
    kept = keep.decide(before, count, None)
    left = tuple(one for one in before.generations if one.number in kept.generations)
    after = Known(left, intent=intent)
    assert after.last == before.last
    assert after.numbered(pin) == before.numbered(pin)
    if count > 1 and before.last is not None:
        assert after.last_healthy(before.last.digest) == before.last_healthy(before.last.digest)
    # Nothing more goes until something more comes.
    assert keep.decide(after, count, None) == kept
