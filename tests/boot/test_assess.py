"""How a converge has come out: what is told of it, and whether the hooks may trust it."""

import msgspec

from mirage_hooks.boot.artifact import Missing
from mirage_hooks.boot.assess import assess
from mirage_hooks.boot.desired import Desired, DesiredState
from mirage_hooks.boot.errors import HostError, ImageError
from mirage_hooks.boot.generation import Generation, Phase
from mirage_hooks.boot.guest import Guest
from mirage_hooks.boot.intent import Intent
from mirage_hooks.boot.plan import Known, Wish
from support import past_generation

REVISION = "1" * 40
RUNS = past_generation(1, "a" * 64, REVISION, Phase.HEALTHY)


def desired(*generations: Generation) -> DesiredState:
    """Return a state that desires what generations have booted."""
    guests = {
        one.guest: Desired(
            Guest(name=one.guest, target="unix", image="www.unix", check=one.check),
            one.boot,
            one.provenance,
        )
        for one in generations
    }
    return DesiredState(REVISION, guests)


def running(generation: Generation, intent: Intent | None = None) -> dict[str, Known]:
    return {generation.guest: Known((generation,), live=generation, intent=intent)}


def test_what_runs_as_it_should_is_settled() -> None:
    found = assess(desired(RUNS), running(RUNS), Wish(), {})
    assert (found.problems, found.left, found.settled) == ({}, {}, True)
    assert found.summary == "done: www runs as it should"


def test_several_guests_are_counted() -> None:
    other = past_generation(1, "b" * 64, REVISION, Phase.HEALTHY, guest="api")
    known = {**running(RUNS), **running(other)}
    assert assess(desired(RUNS, other), known, Wish(), {}).summary == (
        "done: 2 guests run as they should"
    )


def test_where_nothing_is_described_that_is_said() -> None:
    found = assess(desired(), {}, Wish(), {})
    assert found.summary.startswith("done: no guest is described")
    assert found.settled


def test_a_fault_that_was_met_is_a_problem() -> None:
    fault = HostError("www: no bridge")
    found = assess(desired(RUNS), running(RUNS), Wish(), {"www": fault})
    assert found.problems == {"www": fault}
    assert not found.settled


def test_what_runs_and_is_not_desired_any_more_is_still_to_do() -> None:
    new = msgspec.structs.replace(RUNS, boot=past_generation(2, "b" * 64, REVISION).boot)
    found = assess(desired(new), running(RUNS), Wish(), {})
    assert found.left["www"].message.startswith("www: still to do: ")
    assert not found.settled


def test_an_image_that_is_not_there_yet_is_no_problem_and_settled() -> None:
    waiting = DesiredState(REVISION, unready={"www": Missing("www.unix is not there", ())})
    found = assess(waiting, running(RUNS), Wish(), {})
    assert (found.problems, found.settled) == ({}, True)
    assert found.summary == "done, but for an image that is not there yet: www"


def test_a_broken_image_of_a_guest_that_is_held_is_no_problem_and_looked_at_again() -> None:
    broken = DesiredState(REVISION, unready={"www": ImageError("www.unix is damaged")})
    known = {"www": Known((past_generation(1, "a" * 64, REVISION),), intent=Intent("held", 1.0))}
    found = assess(broken, known, Wish(), {})
    assert (found.problems, found.settled) == ({}, False)
    assert found.summary == "done, but for what cannot be booted: www"
