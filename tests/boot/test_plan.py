"""Decisions: what is done about each guest, and the words that say why."""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from mirage_hooks.boot import faults
from mirage_hooks.boot.artifact import Missing, Provenance
from mirage_hooks.boot.desired import Desired, DesiredState
from mirage_hooks.boot.device import NetworkConfig
from mirage_hooks.boot.errors import ConfigError, Error, HostError, ImageError
from mirage_hooks.boot.generation import Generation, Phase
from mirage_hooks.boot.guest import Boot, Check, Guest, Restart
from mirage_hooks.boot.intent import Intent
from mirage_hooks.boot.plan import (
    Action,
    Known,
    Launch,
    Verb,
    Wish,
    as_before,
    decide,
    pin_holds,
    plan,
)

OLD, MIDDLE, NEW = "a" * 64, "b" * 64, "c" * 64
NOTHING = Wish()
RETRY = Wish(retry=True)
REBOOT = Wish(reboot=frozenset({"www"}))
GIVEN_UP = "the guest exited with 2; its monitor has given it up"


def boot(image: str = OLD, *arguments: str, memory: int = 32, **network: NetworkConfig) -> Boot:
    return Boot(
        target="unix", image=image, arguments=arguments, memory=memory, network=dict(network)
    )


def provenance(commit: str = "1" * 40, path: str = "unix/1/www.unix") -> Provenance:
    return Provenance(commit, path, "2" * 40, {"unix/latest": "1"}, "none", 0, 2**21)


def desire(
    what: Boot, origin: Provenance | None = None, check: Check | None = None, name: str = "www"
) -> Desired:
    guest = Guest(
        name=name, target="unix", image="unix/{latest}/www.unix", check=check or Check(alive="1s")
    )
    return Desired(guest, what, origin or provenance())


def generation(
    number: int, what: Boot, phase: Phase = Phase.HEALTHY, reason: str = ""
) -> Generation:
    """Return a generation; one that is healthy, or has ended, was healthy once."""
    return Generation(
        guest="www",
        number=number,
        boot=what,
        provenance=provenance(commit=f"{number}" * 40),
        check=Check(alive="1s"),
        restart=Restart(),
        origin="pull",
        converge="c1",
        created=float(number),
        phase=phase,
        healthy_at=float(number) if phase in {Phase.HEALTHY, Phase.ENDED} else None,
        reason=reason,
    )


def failed(number: int, what: Boot) -> Generation:
    return generation(number, what, Phase.FAILED, "no answer within 5s")


def ended(number: int, what: Boot) -> Generation:
    return generation(number, what, Phase.ENDED)


def running(*generations: Generation, intent: Intent | None = None) -> Known:
    """Return a guest whose newest generation runs."""
    return Known(generations, live=generations[-1], intent=intent)


def down(
    *generations: Generation, given_up: str | None = None, intent: Intent | None = None
) -> Known:
    """Return a guest that does not run."""
    return Known(generations, given_up=given_up, intent=intent)


def held() -> Intent:
    return Intent("held", 0.0)


def pinned(number: int, while_desired: Boot) -> Intent:
    return Intent("pinned", 0.0, number, while_desired.digest)


def decision(what: Boot | None, known: Known, wish: Wish = NOTHING) -> Action:
    """Decide about a guest whose desired state is sound, or that is no longer described."""
    return decide("www", desire(what) if what is not None else None, None, known, wish)


def without_image(unready: Error, known: Known, wish: Wish = NOTHING) -> Action:
    return decide("www", None, unready, known, wish)


def booted(action: Action) -> str | None:
    """Return the image that an action boots."""
    return action.launch.boot.image if action.launch is not None else None


# Following the repository.


def test_a_guest_that_never_ran_is_started() -> None:
    action = decision(boot(), Known())
    assert (action.verb, booted(action)) == (Verb.START, OLD)


def test_a_first_boot_is_called_one() -> None:
    assert decision(boot(), Known()).reason.startswith(
        "first boot of image unix/…/www.unix aaaaaaa"
    )


def test_a_guest_that_runs_what_is_desired_is_kept() -> None:
    action = decision(boot(), running(generation(3, boot())))
    assert (action.verb, action.reason) == (Verb.KEEP, "it runs aaaaaaa as generation 3")


def test_a_guest_that_is_kept_is_no_problem() -> None:
    assert decision(boot(), running(generation(1, boot()))).problem is None


def test_a_guest_that_ran_and_does_not_is_started() -> None:
    action = decision(boot(), down(generation(1, boot())))
    assert (action.verb, booted(action)) == (Verb.START, OLD)


def test_a_start_after_a_first_boot_says_that_it_is_not_running() -> None:
    assert decision(boot(), down(generation(1, boot()))).reason.startswith("it is not running")


def test_a_start_takes_check_and_restart_policy_of_the_desired_state() -> None:
    check = Check(alive="3s")
    action = decide("www", desire(boot(), check=check), None, Known(), NOTHING)
    assert action.launch is not None
    assert (action.launch.check, action.launch.restart) == (check, Restart())


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (boot(NEW), "image unix/…/www.unix aaaaaaa -> ccccccc (2.0 MiB); network unchanged"),
        (boot(OLD, "--a", "--b"), "arguments none -> --a --b; network unchanged"),
        (boot(memory=64), "memory 32 -> 64 MiB; network unchanged"),
        (
            boot(service=NetworkConfig(address="10.0.0.2/24")),
            "network none -> service 10.0.0.2/24",
        ),
        (Boot(target="hvt", image=OLD), "target unix -> hvt"),
        (
            Boot(target="unix", image=OLD, user="mirage"),
            "user None -> mirage; network unchanged",
        ),
    ],
    ids=["image", "arguments", "memory", "address", "target", "user"],
)
def test_one_change_alone_replaces_and_is_the_reason(wanted: Boot, words: str) -> None:
    action = decision(wanted, running(generation(1, boot())))
    assert (action.verb, action.reason) == (Verb.REPLACE, words)


def test_a_changed_address_is_told_with_the_one_before() -> None:
    before = boot(service=NetworkConfig(address="10.0.0.2/24"))
    after = boot(service=NetworkConfig(address="10.0.0.3/24"))
    reason = decision(after, running(generation(1, before))).reason
    assert reason == "network service 10.0.0.2/24 -> service 10.0.0.3/24"


def test_a_replacement_boots_what_is_desired() -> None:
    assert booted(decision(boot(NEW), running(generation(1, boot())))) == NEW


def test_the_same_boot_by_another_pointer_path_and_commit_is_kept() -> None:
    moved = Provenance("f" * 40, "unix/9/www.unix.xz", "e" * 40, {"unix/latest": "9"}, "xz", 1, 2)
    known = running(generation(1, boot()))
    action = decide("www", desire(boot(), moved), None, known, NOTHING)
    assert action.verb is Verb.KEEP


def test_a_changed_check_alone_is_kept_and_handed_on() -> None:
    check = Check(alive="3s")
    action = decide(
        "www", desire(boot(), check=check), None, running(generation(1, boot())), NOTHING
    )
    assert action.verb is Verb.KEEP
    assert action.launch is not None
    assert action.launch.check == check


def test_a_guest_no_longer_described_is_stopped() -> None:
    action = decision(None, running(generation(1, boot())))
    assert (action.verb, action.reason) == (Verb.STOP, "no longer in the manifest")


# The operator's word.


def test_a_held_guest_that_runs_is_stopped() -> None:
    action = decision(boot(), running(generation(1, boot()), intent=held()))
    assert (action.verb, action.reason) == (Verb.STOP, "held by hand")


@pytest.mark.parametrize("wish", [NOTHING, RETRY, REBOOT], ids=["converge", "retry", "reboot"])
def test_a_held_guest_is_not_started(wish: Wish) -> None:
    action = decision(boot(NEW), down(ended(1, boot()), intent=held()), wish)
    assert action.verb is Verb.SKIP


def test_a_held_guest_says_how_the_hold_ends() -> None:
    reason = decision(boot(), down(intent=held())).reason
    assert "`mirage-hooks start www`" in reason


def test_a_held_guest_is_no_problem() -> None:
    assert decision(boot(), down(intent=held())).problem is None


def test_a_pinned_generation_that_runs_is_kept() -> None:
    known = running(generation(1, boot()), intent=pinned(1, while_desired=boot(NEW)))
    action = decision(boot(NEW), known)
    assert (action.verb, action.reason[:22]) == (Verb.KEEP, "pinned to generation 1")


def test_a_pinned_generation_takes_the_place_of_what_runs() -> None:
    known = running(
        ended(1, boot()), generation(2, boot(NEW)), intent=pinned(1, while_desired=boot(NEW))
    )
    action = decision(boot(NEW), known)
    assert (action.verb, booted(action)) == (Verb.REPLACE, OLD)


def test_a_pinned_generation_that_does_not_run_is_started() -> None:
    known = down(ended(1, boot()), ended(2, boot(NEW)), intent=pinned(1, while_desired=boot(NEW)))
    action = decision(boot(NEW), known)
    assert (action.verb, booted(action)) == (Verb.START, OLD)


def test_a_pinned_generation_that_is_gone_changes_nothing() -> None:
    known = running(generation(2, boot()), intent=pinned(1, while_desired=boot(NEW)))
    action = decision(boot(NEW), known)
    assert (action.verb, action.reason) == (
        Verb.SKIP,
        "pinned to generation 1, which is gone",
    )


def test_a_pin_is_over_once_the_desired_digest_changes() -> None:
    known = running(generation(1, boot()), intent=pinned(1, while_desired=boot(MIDDLE)))
    action = decision(boot(NEW), known)
    assert (action.verb, booted(action)) == (Verb.REPLACE, NEW)


def test_a_pin_outlives_a_desired_state_without_an_image() -> None:
    known = down(ended(1, boot()), ended(2, boot(NEW)), intent=pinned(1, while_desired=boot(NEW)))
    action = without_image(Missing("there is no image", ()), known)
    assert (action.verb, booted(action)) == (Verb.START, OLD)


def test_a_pin_outlives_the_failure_of_what_is_desired() -> None:
    known = running(
        generation(1, boot()),
        failed(2, boot(NEW)),
        generation(3, boot()),
        intent=pinned(1, while_desired=boot(NEW)),
    )
    assert decision(boot(NEW), known).reason.startswith("pinned to generation 1")


def test_a_pinned_guest_no_longer_described_is_stopped() -> None:
    known = running(generation(1, boot()), intent=pinned(1, while_desired=boot(NEW)))
    assert decision(None, known).verb is Verb.STOP


def test_a_hold_is_no_pin() -> None:
    assert not pin_holds(held(), desire(boot()))


# What failed before.


def test_what_failed_and_runs_is_replaced_by_the_last_healthy_state() -> None:
    known = running(ended(1, boot()), failed(2, boot(NEW)))
    action = decision(boot(NEW), known)
    assert (action.verb, booted(action)) == (Verb.ROLL_BACK, OLD)


def test_what_failed_and_ended_is_followed_by_the_last_healthy_state() -> None:
    known = down(ended(1, boot()), failed(2, boot(NEW)))
    action = decision(boot(NEW), known)
    assert (action.verb, booted(action)) == (Verb.ROLL_BACK, OLD)


def test_a_roll_back_names_what_failed_and_how_and_what_takes_its_place() -> None:
    known = running(ended(1, boot()), failed(2, boot(NEW)))
    assert decision(boot(NEW), known).reason == (
        "ccccccc failed as generation 2: no answer within 5s; back to aaaaaaa of generation 1"
    )


def test_a_roll_back_goes_to_the_newest_healthy_state() -> None:
    known = running(ended(1, boot()), ended(2, boot(MIDDLE)), failed(3, boot(NEW)))
    assert booted(decision(boot(NEW), known)) == MIDDLE


def test_a_roll_back_passes_over_states_that_failed() -> None:
    known = running(ended(1, boot()), failed(2, boot(MIDDLE)), failed(3, boot(NEW)))
    assert booted(decision(boot(NEW), known)) == OLD


def test_a_roll_back_passes_over_the_failed_state_healthy_as_it_once_was() -> None:
    known = running(ended(1, boot()), ended(2, boot(NEW)), failed(3, boot(NEW)))
    assert booted(decision(boot(NEW), known)) == OLD


def test_what_was_rolled_back_to_is_kept_meanwhile() -> None:
    known = running(ended(1, boot()), failed(2, boot(NEW)), generation(3, boot()))
    action = decision(boot(NEW), known)
    assert action.verb is Verb.KEEP
    assert action.reason.endswith("back to aaaaaaa of generation 3 meanwhile")


@pytest.mark.parametrize(
    "known",
    [
        running(ended(1, boot()), failed(2, boot(NEW))),
        running(ended(1, boot()), failed(2, boot(NEW)), generation(3, boot())),
        down(failed(1, boot(NEW))),
    ],
    ids=["rolled back now", "rolled back before", "nothing to go back to"],
)
def test_a_failed_desired_state_stays_a_problem(known: Known) -> None:
    problem = decision(boot(NEW), known).problem
    assert problem is not None
    assert "ccccccc failed as generation" in problem.message


def test_what_failed_without_anything_healthy_before_is_not_booted_again() -> None:
    action = decision(boot(NEW), down(failed(1, boot(NEW))))
    assert (action.verb, action.launch) == (Verb.SKIP, None)


def test_what_failed_and_runs_without_anything_healthy_before_is_kept() -> None:
    assert decision(boot(NEW), running(failed(1, boot(NEW)))).verb is Verb.KEEP


@pytest.mark.parametrize("known", [running, down], ids=["runs", "does not run"])
def test_what_failed_first_of_all_says_that_there_is_nothing_to_go_back_to(
    known: Callable[[Generation], Known],
) -> None:
    reason = decision(boot(NEW), known(failed(1, boot(NEW)))).reason
    assert reason.endswith("no answer within 5s; there is nothing healthy to go back to")


def test_another_boot_of_the_failed_image_is_tried() -> None:
    known = running(ended(1, boot()), failed(2, boot(NEW)), generation(3, boot()))
    action = decision(boot(NEW, "--other"), known)
    assert (action.verb, booted(action)) == (Verb.REPLACE, NEW)


def test_a_later_healthy_generation_ends_the_failed_mark() -> None:
    known = down(ended(1, boot()), failed(2, boot(NEW)), ended(3, boot(NEW)))
    assert booted(decision(boot(NEW), known)) == NEW


@pytest.mark.parametrize("phase", [Phase.PREPARING, Phase.ARMED, Phase.FIRED, Phase.ABANDONED])
def test_a_generation_that_was_not_judged_marks_nothing_as_failed(phase: Phase) -> None:
    assert Known((generation(1, boot(), phase),)).failed(boot().digest) is None


@pytest.mark.parametrize("phase", [Phase.PREPARING, Phase.ARMED, Phase.FIRED, Phase.ABANDONED])
def test_a_generation_that_was_not_judged_ends_no_failed_mark(phase: Phase) -> None:
    known = Known((failed(1, boot()), generation(2, boot(), phase)))
    marked = known.failed(boot().digest)
    assert marked is not None
    assert marked.number == 1


def test_a_retry_boots_what_failed_in_place_of_what_was_rolled_back_to() -> None:
    known = running(ended(1, boot()), failed(2, boot(NEW)), generation(3, boot()))
    action = decision(boot(NEW), known, RETRY)
    assert (action.verb, booted(action)) == (Verb.REPLACE, NEW)


def test_a_retry_starts_what_failed_and_ended() -> None:
    action = decision(boot(NEW), down(failed(1, boot(NEW))), RETRY)
    assert (action.verb, booted(action)) == (Verb.START, NEW)


def test_a_retry_boots_what_failed_and_runs_anew() -> None:
    action = decision(boot(NEW), running(failed(1, boot(NEW))), RETRY)
    assert (action.verb, booted(action)) == (Verb.REPLACE, NEW)
    assert action.reason.startswith("tried again after no answer within 5s")


def test_a_retry_keeps_what_is_healthy() -> None:
    assert decision(boot(), running(generation(1, boot())), RETRY).verb is Verb.KEEP


# Given up by its monitor.


def test_a_guest_that_was_given_up_is_not_started() -> None:
    action = decision(boot(), down(generation(1, boot()), given_up=GIVEN_UP))
    assert (action.verb, action.launch) == (Verb.SKIP, None)


def test_a_guest_that_was_given_up_says_why_and_what_boots_it_again() -> None:
    reason = decision(boot(), down(generation(1, boot()), given_up=GIVEN_UP)).reason
    assert reason == f"{GIVEN_UP}; `mirage-hooks reboot www` boots it again"


def test_a_guest_that_was_given_up_is_a_problem() -> None:
    problem = decision(boot(), down(generation(1, boot()), given_up=GIVEN_UP)).problem
    assert problem is not None
    assert problem.message == f"www: {GIVEN_UP}"


@pytest.mark.parametrize("wish", [RETRY, REBOOT], ids=["retry", "reboot"])
def test_a_guest_that_was_given_up_starts_when_it_is_asked_for(wish: Wish) -> None:
    action = decision(boot(), down(generation(1, boot()), given_up=GIVEN_UP), wish)
    assert (action.verb, booted(action)) == (Verb.START, OLD)


def test_a_new_state_starts_in_place_of_one_that_was_given_up() -> None:
    action = decision(boot(NEW), down(generation(1, boot()), given_up=GIVEN_UP))
    assert (action.verb, booted(action)) == (Verb.START, NEW)


def test_a_state_that_was_rolled_back_to_and_given_up_says_so() -> None:
    known = down(ended(1, boot()), failed(2, boot(NEW)), generation(3, boot()), given_up=GIVEN_UP)
    action = decision(boot(NEW), known)
    assert action.verb is Verb.SKIP
    assert GIVEN_UP in action.reason


# Without an image that can serve.

MISSING = Missing("there is no image unix/2/www.unix yet", ("unix/2/www.unix",))
UNSOUND = ImageError("image unix/2/www.unix is cut short")


@pytest.mark.parametrize("unready", [MISSING, UNSOUND], ids=["missing", "unsound"])
def test_without_an_image_what_runs_is_kept(unready: Error) -> None:
    action = without_image(unready, running(generation(4, boot())))
    assert (action.verb, action.reason) == (
        Verb.KEEP,
        f"{unready.message}; generation 4 goes on running",
    )


@pytest.mark.parametrize("unready", [MISSING, UNSOUND], ids=["missing", "unsound"])
def test_without_an_image_a_guest_that_never_ran_is_skipped(unready: Error) -> None:
    action = without_image(unready, Known())
    assert (action.verb, action.reason) == (Verb.SKIP, unready.message)


@pytest.mark.parametrize("unready", [MISSING, UNSOUND], ids=["missing", "unsound"])
def test_without_an_image_what_ran_last_is_kept_up(unready: Error) -> None:
    action = without_image(unready, down(ended(1, boot()), generation(2, boot(MIDDLE))))
    assert (action.verb, booted(action)) == (Verb.START, MIDDLE)


def test_without_an_image_what_failed_is_not_kept_up() -> None:
    action = without_image(MISSING, down(ended(1, boot()), failed(2, boot(NEW))))
    assert booted(action) == OLD


@pytest.mark.parametrize(
    "known",
    [Known(), running(generation(1, boot())), down(generation(1, boot()))],
    ids=["never ran", "runs", "ran"],
)
class TestWithoutAnImage:
    def test_one_that_has_not_come_yet_is_no_problem(self, known: Known) -> None:
        assert without_image(MISSING, known).problem is None

    def test_one_that_is_not_sound_is_a_problem(self, known: Known) -> None:
        assert without_image(UNSOUND, known).problem is UNSOUND


def test_a_guest_that_was_given_up_is_a_problem_while_its_image_is_missing_too() -> None:
    action = without_image(MISSING, down(generation(1, boot()), given_up=GIVEN_UP))
    assert action.problem is not None
    assert GIVEN_UP in action.problem.message


def test_without_an_image_a_reboot_boots_what_runs_again() -> None:
    action = without_image(MISSING, running(generation(1, boot())), REBOOT)
    assert (action.verb, booted(action)) == (Verb.REPLACE, OLD)


# Reboot.


def test_a_reboot_boots_what_runs_again() -> None:
    action = decision(boot(), running(generation(1, boot())), REBOOT)
    assert (action.verb, booted(action)) == (Verb.REPLACE, OLD)
    assert action.reason.startswith("reboot by hand")


def test_a_reboot_keeps_where_the_image_came_from() -> None:
    known = running(generation(7, boot()))
    action = decide("www", desire(boot(), provenance("f" * 40)), None, known, REBOOT)
    assert action.launch is not None
    assert action.launch.provenance.commit == "7" * 40


def test_a_reboot_takes_over_a_changed_check() -> None:
    check = Check(alive="3s")
    known = running(generation(1, boot()))
    action = decide("www", desire(boot(), check=check), None, known, REBOOT)
    assert action.launch is not None
    assert action.launch.check == check


def test_a_reboot_of_others_keeps_this_guest() -> None:
    wish = Wish(reboot=frozenset({"mail"}))
    assert decision(boot(), running(generation(1, boot())), wish).verb is Verb.KEEP


def test_a_reboot_starts_a_guest_that_does_not_run() -> None:
    assert decision(boot(), down(ended(1, boot())), REBOOT).verb is Verb.START


def test_a_reboot_of_a_pinned_guest_boots_what_it_is_pinned_to() -> None:
    known = running(generation(1, boot()), intent=pinned(1, while_desired=boot(NEW)))
    action = decision(boot(NEW), known, REBOOT)
    assert (action.verb, booted(action)) == (Verb.REPLACE, OLD)


def test_a_reboot_does_not_try_what_failed() -> None:
    known = running(ended(1, boot()), failed(2, boot(NEW)), generation(3, boot()))
    assert booted(decision(boot(NEW), known, REBOOT)) == OLD


def test_a_reboot_of_what_was_rolled_back_to_is_no_roll_back() -> None:
    known = running(ended(1, boot()), failed(2, boot(NEW)), generation(3, boot()))
    action = decision(boot(NEW), known, REBOOT)
    assert (action.verb, "reboot by hand" in action.reason) == (Verb.REPLACE, True)


# Where nothing of what the repository asks for is booted.

HELD_BACK = Error("the cat is asleep")


def before(known: Known, place: int = 0) -> DesiredState:
    return as_before({"www": known}, "d" * 40, HELD_BACK, {"www": place})


def test_what_ran_last_is_booted_again_and_the_reason_said() -> None:
    known = {"www": down(ended(1, boot(NEW)), generation(2, boot()))}
    (action,) = plan(before(known["www"]), known, NOTHING)
    assert (action.verb, booted(action)) == (Verb.START, OLD)
    assert "the cat is asleep; it is not running" in action.reason


def test_what_was_stopped_as_no_longer_wanted_stays_away() -> None:
    assert before(down(generation(1, boot()), ended(2, boot()))).names == frozenset()


def test_what_was_never_healthy_stays_away() -> None:
    assert before(down(failed(1, boot()))).names == frozenset()


def test_a_guest_whose_newest_boot_was_cut_short_is_booted_again() -> None:
    cut_short = generation(2, boot(NEW), Phase.ABANDONED)
    known = {"www": down(ended(1, boot()), cut_short)}
    assert [booted(action) for action in plan(before(known["www"]), known, NOTHING)] == [OLD]


def test_what_runs_is_left_alone() -> None:
    assert verbs(plan(before(ONE), {"www": ONE}, NOTHING)) == {"www": "keep"}


def test_a_guest_keeps_its_place_at_startup() -> None:
    assert before(ONE, 3).startup == {"www": 3}


# Every guest together.


def described(*names: str, unready: Iterable[str] = ()) -> DesiredState:
    return DesiredState(
        "d" * 40,
        {name: desire(boot(), name=name) for name in names},
        dict.fromkeys(unready, MISSING),
    )


def verbs(actions: list[Action]) -> dict[str, str]:
    return {action.guest: str(action.verb) for action in actions}


ONE = running(generation(1, boot()))


def test_each_guest_has_one_action_in_the_order_of_names() -> None:
    actions = plan(described("www", "mail"), {"dns": ONE, "www": ONE}, NOTHING)
    assert [(action.guest, str(action.verb)) for action in actions] == [
        ("dns", "stop"),
        ("mail", "start"),
        ("www", "keep"),
    ]


def test_a_guest_without_an_image_is_spoken_of() -> None:
    assert verbs(plan(described(unready=["www"]), {}, NOTHING)) == {"www": "skip"}


def test_a_guest_without_an_image_makes_no_state_empty() -> None:
    assert verbs(plan(described(unready=["www"]), {"www": ONE}, NOTHING)) == {"www": "keep"}


def test_nothing_is_done_about_a_guest_that_is_neither_described_nor_running() -> None:
    assert plan(described(), {"www": down(ended(1, boot()))}, NOTHING) == []


def test_an_empty_state_is_refused_while_a_guest_runs() -> None:
    with pytest.raises(ConfigError, match=r"no guest is described at ddddddd, while www runs"):
        plan(described(), {"www": ONE}, NOTHING)


def test_an_empty_state_is_refused_naming_every_guest_that_runs() -> None:
    with pytest.raises(ConfigError, match=re.escape("while dns, www run: nothing is changed")):
        plan(described(), {"www": ONE, "dns": ONE, "mail": down()}, NOTHING)


def test_an_empty_state_that_is_refused_says_how_it_is_meant() -> None:
    with pytest.raises(ConfigError) as refused:
        plan(described(), {"www": ONE}, NOTHING)
    assert "mirage-hooks deploy --allow-empty" in refused.value.hint


def test_an_empty_state_that_is_meant_stops_what_runs() -> None:
    actions = plan(described(), {"www": ONE, "dns": ONE}, Wish(allow_empty=True))
    assert verbs(actions) == {"dns": "stop", "www": "stop"}


def test_an_empty_state_is_no_fault_where_nothing_runs() -> None:
    assert plan(described(), {}, NOTHING) == []


def test_a_guest_that_the_host_does_not_choose_any_more_is_stopped() -> None:
    desired = replace(described("www"), unselected=frozenset({"dns"}))
    actions = plan(desired, {"dns": ONE, "www": ONE}, NOTHING)
    assert [str(action) for action in actions if action.guest == "dns"] == [
        "dns: stop: not among this host's guests"
    ]


def test_a_guest_that_neither_runs_nor_is_chosen_is_not_spoken_of() -> None:
    desired = replace(described("www"), unselected=frozenset({"dns", "mail"}))
    actions = plan(desired, {"dns": down(ended(1, boot())), "www": ONE}, NOTHING)
    assert verbs(actions) == {"www": "keep"}


def test_a_choice_of_none_stops_what_runs() -> None:
    desired = replace(described(), selection=(), unselected=frozenset({"www"}))
    assert verbs(plan(desired, {"www": ONE}, NOTHING)) == {"www": "stop"}


def test_a_choice_of_none_stops_what_runs_though_nothing_is_described() -> None:
    assert verbs(plan(replace(described(), selection=()), {"www": ONE}, NOTHING)) == {"www": "stop"}


def test_the_only_chosen_guest_is_stopped_when_it_is_gone_from_others() -> None:
    desired = replace(described(), selection=("www",), unselected=frozenset({"dns"}))
    actions = plan(desired, {"www": ONE}, NOTHING)
    assert [str(action) for action in actions] == ["www: stop: no longer in the manifest"]


def test_a_lost_manifest_is_refused_whatever_is_chosen() -> None:
    with pytest.raises(ConfigError, match="no guest is described at ddddddd, while www runs"):
        plan(replace(described(), selection=("www",)), {"www": ONE}, NOTHING)


# Values.


def test_a_generation_is_booted_again_as_it_was() -> None:
    old = generation(1, boot())
    assert Launch.of(old) == Launch(old.boot, old.provenance, old.check, old.restart)


def test_a_desired_state_is_booted_as_it_is_described() -> None:
    wanted = desire(boot(NEW))
    assert Launch.of(wanted) == Launch(
        wanted.boot, wanted.provenance, wanted.guest.check, wanted.guest.restart
    )


@pytest.mark.parametrize(
    ("verb", "boots"),
    [
        (Verb.KEEP, False),
        (Verb.START, True),
        (Verb.REPLACE, True),
        (Verb.ROLL_BACK, True),
        (Verb.STOP, False),
        (Verb.SKIP, False),
    ],
)
def test_an_action_boots_if_it_makes_a_new_generation(verb: Verb, boots: bool) -> None:
    assert Action(verb, "www", "").boots is boots


def test_an_action_reads_as_guest_verb_and_reason() -> None:
    assert str(Action(Verb.STOP, "www", "held by hand")) == "www: stop: held by hand"


def test_the_last_generation_is_the_newest_that_was_healthy() -> None:
    known = down(ended(1, boot()), generation(2, boot(MIDDLE)), failed(3, boot(NEW)))
    assert known.last is not None
    assert known.last.number == 2


def test_a_guest_that_never_was_healthy_has_no_last_generation() -> None:
    assert down(failed(1, boot())).last is None


# What could not be prepared.

FAULT = faults.again(None, boot(NEW).digest, "host", HostError("www: no bridge", "make it"), 1000.0)
AUTOMATIC = Wish(now=1001.0, host="host")


def planned(what: Boot, known: Known, wish: Wish) -> Action:
    (action,) = plan(DesiredState("1" * 40, {"www": desire(what)}), {"www": known}, wish)
    return action


def test_what_could_not_be_prepared_is_left_alone_for_a_while() -> None:
    live = replace(running(generation(1, boot(OLD))), fault=FAULT)
    action = planned(boot(NEW), live, AUTOMATIC)
    assert (action.verb, action.postponed) == (Verb.KEEP, True)
    assert action.reason == f"it could not be prepared: no bridge; {FAULT.when}"
    assert str(action.problem) == "www: no bridge\n  make it"


def test_what_does_not_run_is_left_alone_too() -> None:
    assert planned(boot(NEW), Known(fault=FAULT), AUTOMATIC).verb is Verb.SKIP


@pytest.mark.parametrize(
    "wish",
    [NOTHING, RETRY, replace(AUTOMATIC, now=1060.0), replace(AUTOMATIC, host="another")],
    ids=["by hand", "a retry", "its time has come", "the host file is another"],
)
def test_what_could_not_be_prepared_is_tried_again(wish: Wish) -> None:
    assert planned(boot(NEW), Known(fault=FAULT), wish).verb is Verb.START


def test_another_state_than_the_one_that_could_not_be_prepared_is_tried() -> None:
    assert planned(boot(MIDDLE), Known(fault=FAULT), AUTOMATIC).verb is Verb.START


def test_a_guest_that_runs_as_it_should_has_no_problem_whatever_could_not_be_prepared() -> None:
    action = planned(boot(OLD), replace(running(generation(1, boot(OLD))), fault=FAULT), AUTOMATIC)
    assert (action.verb, action.problem) == (Verb.KEEP, None)
