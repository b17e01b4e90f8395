"""Commands that change what runs, `plan`, which says what would, and what each ends with."""

import re
import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest

from mirage_hooks.boot import lock
from mirage_hooks.boot.generation import Phase
from mirage_hooks.boot.plan import Known
from mirage_hooks.boot.survey import look
from support import COMMAND, Site, free_port, get, wait_for


def code_of(site: Site, *arguments: str) -> int:
    return site.command(*arguments, check=False).returncode


def known(site: Site, guest: str = "www") -> Known:
    return look(site.state, guest)


def intent(site: Site) -> str | None:
    """Return the operator's word on the guest, None for `follow`."""
    word = site.state.intent("www")
    return word.kind if word is not None else None


def number(site: Site) -> int | None:
    """Return the number of the generation that runs."""
    live = site.live()
    return live.number if live is not None else None


@pytest.fixture
def with_dns(site: Site) -> Site:
    """A clone with a second guest, `dns`; both run."""
    args = f'["--ipv4=127.0.0.1/8", "--port={free_port()}"]'
    other = f'[guest.dns]\ntarget = "unix"\nimage = "unix/{{latest}}/www.unix"\nargs = {args}\n'
    site.tables = f'{other}check.alive = "100ms"\n'
    # The check of www has to stay in www's own table.
    site.tables += '[guest.www.restart]\non = "never"\n'
    site.publish()
    site.pull()
    site.install("--deploy")
    return site


# plan, and deploy --dry-run.

dry_runs = pytest.mark.parametrize("dry_run", [("plan",), ("deploy", "--dry-run")])
DryRun = tuple[str, ...]


@dry_runs
def test_a_plan_says_that_a_guest_boots_first(installed: Site, dry_run: DryRun) -> None:
    said = installed.command(*dry_run).stdout
    assert re.search(r"^www: start: first boot of image unix/…/www\.unix [0-9a-f]{7} ", said, re.M)


@dry_runs
def test_a_plan_boots_nothing(installed: Site, dry_run: DryRun) -> None:
    installed.command(*dry_run)
    assert installed.state.guest_names() == []


@dry_runs
def test_a_plan_replaces_nothing(deployed: Site, dry_run: DryRun) -> None:
    deployed.publish("two")
    deployed.pull_unhooked()
    deployed.command(*dry_run)
    assert deployed.page() == "one"


@dry_runs
def test_a_plan_explains_a_replacement(deployed: Site, dry_run: DryRun) -> None:
    deployed.publish("two")
    deployed.pull_unhooked()
    said = deployed.command(*dry_run).stdout
    assert re.search(
        r"^www: replace: image unix/…/www\.unix [0-9a-f]{7} -> [0-9a-f]{7} \([\d.]+ [KM]iB\); "
        r"network unchanged$",
        said,
        re.M,
    )


@dry_runs
def test_a_plan_explains_that_nothing_is_to_do(deployed: Site, dry_run: DryRun) -> None:
    assert "www: keep: it runs" in deployed.command(*dry_run).stdout


def test_a_plan_names_the_commit_it_is_for(installed: Site) -> None:
    commit = installed.git("rev-parse", "HEAD").stdout[:7]
    assert installed.command("plan").stdout.startswith(f"main at {commit}\n")


def test_a_plan_explains_changed_arguments(deployed: Site) -> None:
    deployed.args = ["--hello=changed"]
    deployed.publish()
    deployed.pull_unhooked()
    assert "www: replace: arguments --ipv4=127.0.0.1/8" in deployed.command("plan").stdout


def test_a_plan_explains_a_guest_that_is_no_longer_there(with_dns: Site) -> None:
    with_dns.tables = ""
    with_dns.publish()
    with_dns.pull_unhooked()
    assert "dns: stop: no longer in the manifest" in with_dns.command("plan").stdout


def test_a_plan_explains_a_hold(deployed: Site) -> None:
    deployed.command("stop", "www")
    assert "www: skip: held by hand: `mirage-hooks start www`" in deployed.command("plan").stdout


def test_a_plan_says_that_no_guest_is_described(site: Site) -> None:
    (site.upstream / "mirage-hooks.toml").write_text("")
    site.commit("no guest")
    site.pull()
    site.install()
    assert "no guest is described" in site.command("plan").stdout


# deploy.


def test_deploy_boots_what_the_repository_says(installed: Site) -> None:
    installed.command("deploy")
    assert installed.page() == "one"


def test_deploy_ends_with_0_where_every_guest_runs(installed: Site) -> None:
    assert code_of(installed, "deploy") == 0


def test_deploy_logs_the_network_configuration(installed: Site) -> None:
    said = installed.command("deploy").stdout
    assert (
        "www: network: host sockets, 127.0.0.1/8 (netmask 255.0.0.0), "
        f"port {installed.port}, passed as --ipv4=127.0.0.1/8 --port={installed.port}"
    ) in said


def test_deploy_says_that_all_runs(installed: Site) -> None:
    assert installed.command("deploy").stdout.endswith("done: www runs as it should\n")


def test_a_second_deploy_reboots_nothing(deployed: Site) -> None:
    deployed.command("deploy")
    assert deployed.outcomes() == ["healthy"]


def test_deploy_makes_good_a_pull_whose_hook_did_not_run(deployed: Site) -> None:
    deployed.publish("two")
    deployed.pull_unhooked()
    deployed.command("deploy")
    assert deployed.page() == "two"


def test_deploy_boots_a_guest_again_that_was_killed(deployed: Site) -> None:
    monitor = deployed.monitor()
    monitor.monitor.kill()
    assert monitor.tender is not None
    assert monitor.tender.wait_gone(5)
    deployed.command("deploy")
    assert deployed.page() == "one"


def test_deploy_ends_with_1_where_a_guest_is_not_healthy(deployed: Site) -> None:
    deployed.args = ["--exit=3"]
    deployed.publish()
    deployed.pull_unhooked()
    assert code_of(deployed, "deploy") == 1


def test_deploy_goes_back_where_a_guest_is_not_healthy(deployed: Site) -> None:
    deployed.args = ["--exit=3"]
    deployed.publish()
    deployed.pull_unhooked()
    deployed.command("deploy", check=False)
    assert deployed.page() == "one"


def test_deploy_says_why_a_guest_is_not_healthy(deployed: Site) -> None:
    deployed.args = ["--exit=3"]
    deployed.publish()
    deployed.pull_unhooked()
    said = deployed.command("deploy", check=False).stdout
    assert "www: generation 2 is not healthy: " in said
    assert "asked to exit" in said


def test_deploy_does_not_report_a_rollback_as_success(deployed: Site) -> None:
    deployed.args = ["--exit=3"]
    deployed.publish()
    deployed.pull_unhooked()
    done = deployed.command("deploy", check=False)
    assert "mirage-hooks: not as it should be: www" in done.stderr


def test_deploy_tries_again_what_failed_before(deployed: Site) -> None:
    deployed.args = ["--exit=3"]
    deployed.publish()
    deployed.pull()
    deployed.command("deploy", check=False)
    assert deployed.outcomes().count("failed") == 2


def test_deploy_refuses_to_stop_everything(deployed: Site) -> None:
    (deployed.upstream / "mirage-hooks.toml").unlink()
    deployed.commit("lost")
    deployed.pull_unhooked()
    done = deployed.command("deploy", check=False)
    assert (done.returncode, "www runs: nothing is changed" in done.stderr) == (3, True)


def test_deploy_keeps_a_guest_running_that_it_refuses_to_stop(deployed: Site) -> None:
    (deployed.upstream / "mirage-hooks.toml").unlink()
    deployed.commit("lost")
    deployed.pull_unhooked()
    deployed.command("deploy", check=False)
    assert deployed.page() == "one"


def test_deploy_may_be_allowed_to_stop_everything(deployed: Site) -> None:
    (deployed.upstream / "mirage-hooks.toml").unlink()
    deployed.commit("meant")
    deployed.pull_unhooked()
    deployed.command("deploy", "--allow-empty")
    assert deployed.page() is None


# What a deploy that cannot be done ends with; the guest that runs goes on running.


def unknown_key(site: Site) -> None:
    site.tables = 'colour = "red"'
    site.publish()


def pointer_that_leads_out(site: Site) -> None:
    (site.upstream / "unix" / "latest").write_text("../elsewhere\n")
    site.commit("a bad pointer")


def image_that_is_a_link(site: Site) -> None:
    site.publish("two")
    image = next((site.upstream / "unix").glob(f"{site.count:040x}/www.unix"))
    image.unlink()
    image.symlink_to("/bin/true")
    site.commit("a link")


def corrupt_image(site: Site) -> None:
    site.publish(image=b"\x1f\x8b\x08\x00 neither compressed nor a program")


CODES: dict[Callable[[Site], None], int] = {
    unknown_key: 3,
    pointer_that_leads_out: 4,
    image_that_is_a_link: 4,
    corrupt_image: 5,
}


@pytest.mark.parametrize("fault", CODES)
def test_a_deploy_that_cannot_be_done_ends_with_its_exit_code(
    deployed: Site, fault: Callable[[Site], None]
) -> None:
    fault(deployed)
    deployed.pull_unhooked()
    assert code_of(deployed, "deploy") == CODES[fault]


@pytest.mark.parametrize("fault", CODES)
def test_a_deploy_that_cannot_be_done_loses_nothing_that_runs(
    deployed: Site, fault: Callable[[Site], None]
) -> None:
    fault(deployed)
    deployed.pull_unhooked()
    deployed.command("deploy", check=False)
    assert (deployed.page(), number(deployed)) == ("one", 1)


@pytest.fixture
def taken_port(deployed: Site) -> Iterator[Site]:
    """A clone whose guest is to move to a port that somebody else listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        before, deployed.port = deployed.port, listener.getsockname()[1]
        deployed.publish()
        deployed.pull_unhooked()
        deployed.port = before
        yield deployed


def test_a_port_in_use_ends_a_deploy_with_6(taken_port: Site) -> None:
    assert code_of(taken_port, "deploy") == 6


def test_a_port_in_use_is_told_with_who_has_it(taken_port: Site) -> None:
    said = taken_port.command("deploy", check=False).stdout
    assert re.search(r"www: 127\.0\.0\.1:\d+ is in use by .*\(pid \d+\)", said)


def test_a_port_in_use_loses_nothing_that_runs(taken_port: Site) -> None:
    taken_port.command("deploy", check=False)
    assert taken_port.page() == "one"


# reboot.


def test_reboot_boots_a_new_generation_of_the_same_state(deployed: Site) -> None:
    deployed.command("reboot", "www")
    assert len({one.digest for one in deployed.state.generations("www")}) == 1
    assert deployed.outcomes() == ["ended", "healthy"]


def test_reboot_without_a_name_boots_every_guest(with_dns: Site) -> None:
    with_dns.command("reboot")
    assert [len(with_dns.outcomes(guest)) for guest in ("dns", "www")] == [2, 2]


def test_reboot_boots_only_what_is_named(with_dns: Site) -> None:
    with_dns.command("reboot", "dns")
    assert [len(with_dns.outcomes(guest)) for guest in ("dns", "www")] == [2, 1]


def test_reboot_boots_what_ran_and_not_what_waits(deployed: Site) -> None:
    deployed.publish("two")
    deployed.pull_unhooked()
    deployed.command("reboot", "www", check=False)
    assert (deployed.page(), number(deployed)) == ("one", 2)


def test_reboot_boots_a_guest_whose_image_is_not_there_yet(deployed: Site) -> None:
    (deployed.upstream / "unix" / "latest").write_text("not-here-yet\n")
    deployed.commit("the pointer moved first")
    deployed.pull()
    deployed.command("reboot", "www")
    assert (deployed.page(), number(deployed)) == ("one", 2)


def test_reboot_ends_no_pin(twice: Site) -> None:
    twice.command("rollback", "www")
    twice.command("reboot", "www")
    assert (twice.page(), intent(twice)) == ("one", "pinned")


def test_reboot_without_a_name_starts_no_held_guest(deployed: Site) -> None:
    deployed.command("stop", "www")
    deployed.command("reboot")
    assert (deployed.page(), intent(deployed)) == (None, "held")


def test_reboot_of_a_held_guest_by_name_ends_the_hold(deployed: Site) -> None:
    deployed.command("stop", "www")
    deployed.command("reboot", "www")
    assert (deployed.page(), intent(deployed)) == ("one", None)


# stop and start.


def test_stop_stops_a_guest(deployed: Site) -> None:
    deployed.command("stop", "www")
    assert deployed.page() is None


def test_stop_leaves_other_guests_alone(with_dns: Site) -> None:
    with_dns.command("stop", "dns")
    assert with_dns.page() == "one"


def test_stop_ends_with_0(deployed: Site) -> None:
    assert code_of(deployed, "stop", "www") == 0


def test_stop_of_a_stopped_guest_ends_with_0(deployed: Site) -> None:
    deployed.command("stop", "www")
    assert code_of(deployed, "stop", "www") == 0


def test_stop_kills_a_guest_that_does_not_listen(site: Site) -> None:
    site.args = ["--deaf"]
    site.publish()
    site.pull()
    site.install("--deploy")
    site.command("stop", "www")
    assert site.page() is None


def test_stop_is_recorded(deployed: Site) -> None:
    deployed.command("stop", "www")
    assert known(deployed).generations[-1].phase is Phase.ENDED


def test_a_pull_starts_no_stopped_guest(deployed: Site) -> None:
    deployed.command("stop", "www")
    deployed.publish("two")
    deployed.pull()
    assert deployed.page() is None


def test_a_deploy_starts_no_stopped_guest(deployed: Site) -> None:
    deployed.command("stop", "www")
    deployed.command("deploy")
    assert deployed.page() is None


def test_stop_all_stops_every_guest(with_dns: Site) -> None:
    with_dns.command("stop", "--all")
    assert [with_dns.live(guest) for guest in ("dns", "www")] == [None, None]


def test_stop_all_holds_every_guest(with_dns: Site) -> None:
    with_dns.command("stop", "--all")
    with_dns.publish("two")
    with_dns.pull()
    assert [with_dns.live(guest) for guest in ("dns", "www")] == [None, None]


def test_stop_all_holds_a_guest_that_was_never_booted(installed: Site) -> None:
    installed.command("stop", "--all")
    installed.command("deploy")
    assert installed.page() is None


@pytest.mark.parametrize("words", [("www",), ("--all",)])
def test_stop_works_though_the_manifest_is_lost(deployed: Site, words: tuple[str, ...]) -> None:
    (deployed.upstream / "mirage-hooks.toml").unlink()
    deployed.commit("lost")
    deployed.pull_unhooked()
    deployed.command("stop", *words, check=False)
    assert deployed.page() is None


@pytest.mark.parametrize("words", [("www",), ("--all",)])
def test_stop_works_though_the_manifest_cannot_be_read(
    deployed: Site, words: tuple[str, ...]
) -> None:
    unknown_key(deployed)
    deployed.pull_unhooked()
    deployed.command("stop", *words, check=False)
    assert deployed.page() is None


def test_start_boots_what_was_stopped(deployed: Site) -> None:
    deployed.command("stop", "www")
    deployed.command("start", "www")
    assert deployed.page() == "one"


def test_start_boots_what_came_meanwhile(deployed: Site) -> None:
    deployed.command("stop", "www")
    deployed.publish("two")
    deployed.pull()
    deployed.command("start", "www")
    assert deployed.page() == "two"


def test_a_pull_deploys_again_after_a_start(deployed: Site) -> None:
    deployed.command("stop", "www")
    deployed.command("start", "www")
    deployed.publish("two")
    deployed.pull()
    assert deployed.page() == "two"


def test_start_of_a_running_guest_reboots_nothing(deployed: Site) -> None:
    deployed.command("start", "www")
    assert deployed.outcomes() == ["healthy"]


def test_start_leaves_other_held_guests_alone(with_dns: Site) -> None:
    with_dns.command("stop", "--all")
    with_dns.command("start", "dns")
    assert [with_dns.live(guest) is None for guest in ("dns", "www")] == [False, True]


# rollback.


def test_rollback_boots_the_last_healthy_state_that_differs(twice: Site) -> None:
    twice.command("rollback", "www")
    assert twice.page() == "one"


def test_rollback_ends_with_0(twice: Site) -> None:
    assert code_of(twice, "rollback", "www") == 0


def test_rollback_is_a_new_generation(twice: Site) -> None:
    twice.command("rollback", "www")
    assert number(twice) == 3


def test_rollback_passes_over_what_was_never_healthy(twice: Site) -> None:
    twice.args = ["--exit=3"]
    twice.publish()
    twice.pull()
    twice.command("rollback", "www")
    assert twice.page() == "one"


def test_rollback_passes_over_reboots_of_the_same_state(twice: Site) -> None:
    twice.command("reboot", "www")
    twice.command("rollback", "www")
    assert twice.page() == "one"


def test_rollback_brings_arguments_back_too(deployed: Site) -> None:
    deployed.args = ["--hello=changed"]
    deployed.publish()
    deployed.pull()
    deployed.command("rollback", "www")
    assert deployed.page() == "one"


def test_rollback_boots_an_image_that_the_repository_has_no_longer(twice: Site) -> None:
    twice.upstream.joinpath("unix", f"{1:040x}", "www.unix").unlink()
    twice.commit("pruned")
    twice.pull()
    twice.command("rollback", "www")
    assert twice.page() == "one"


def test_a_pull_that_changes_nothing_that_runs_ends_no_pin(twice: Site) -> None:
    twice.command("rollback", "www")
    (twice.upstream / "README").write_text("words\n")
    twice.commit("words only")
    twice.pull()
    assert (twice.page(), intent(twice)) == ("one", "pinned")


def test_a_deploy_ends_no_pin(twice: Site) -> None:
    twice.command("rollback", "www")
    twice.command("deploy")
    assert (twice.page(), intent(twice)) == ("one", "pinned")


def test_a_pull_of_something_new_ends_the_pin(twice: Site) -> None:
    twice.command("rollback", "www")
    twice.publish("three")
    twice.pull()
    assert (twice.page(), intent(twice)) == ("three", None)


def test_rollback_to_a_generation_boots_its_state(twice: Site) -> None:
    twice.publish("three")
    twice.pull()
    twice.command("rollback", "www", "--to", "1")
    assert twice.page() == "one"


def test_rollback_to_what_runs_already_reboots_nothing(twice: Site) -> None:
    twice.command("rollback", "www", "--to", "2")
    assert (number(twice), intent(twice)) == (2, "pinned")


def test_a_second_rollback_goes_forward_again(twice: Site) -> None:
    twice.command("rollback", "www")
    twice.command("rollback", "www")
    assert twice.page() == "two"


def test_rollback_of_a_held_guest_boots_it(twice: Site) -> None:
    twice.command("stop", "www")
    twice.command("rollback", "www", "--to", "1")
    assert (twice.page(), intent(twice)) == ("one", "pinned")


def test_rollback_without_an_earlier_state_ends_with_3(deployed: Site) -> None:
    done = deployed.command("rollback", "www", check=False)
    assert (done.returncode, "no other healthy state" in done.stderr) == (3, True)


def test_rollback_without_an_earlier_state_changes_nothing(deployed: Site) -> None:
    deployed.command("rollback", "www", check=False)
    assert (deployed.page(), intent(deployed), number(deployed)) == ("one", None, 1)


def test_rollback_to_a_generation_that_never_was_names_those_that_were(twice: Site) -> None:
    done = twice.command("rollback", "www", "--to", "9", check=False)
    assert (done.returncode, "these were healthy: 1, 2" in done.stderr) == (3, True)


def test_rollback_to_a_generation_that_failed_is_refused(deployed: Site) -> None:
    deployed.args = ["--exit=3"]
    deployed.publish()
    deployed.pull()
    assert code_of(deployed, "rollback", "www", "--to", "2") == 3


# What cannot be asked for.

OF_A_GUEST = ["reboot", "stop", "start", "rollback"]


@pytest.mark.parametrize("command", OF_A_GUEST)
def test_an_unknown_guest_ends_with_3(deployed: Site, command: str) -> None:
    assert code_of(deployed, command, "wwww") == 3


@pytest.mark.parametrize("command", OF_A_GUEST)
def test_an_unknown_guest_is_told_with_those_that_are_known(deployed: Site, command: str) -> None:
    said = deployed.command(command, "wwww", check=False).stderr
    assert said == "mirage-hooks: there is no guest 'wwww'\n  the guests here: www\n"


@pytest.mark.parametrize("command", ["reboot", "stop", "start"])
def test_an_unknown_guest_beside_a_known_one_changes_nothing(deployed: Site, command: str) -> None:
    deployed.command(command, "www", "wwww", check=False)
    assert (deployed.page(), number(deployed), intent(deployed)) == ("one", 1, None)


@pytest.mark.parametrize(
    "arguments",
    [
        ("stop",),
        ("stop", "www", "--all"),
        ("start",),
        ("rollback",),
        ("rollback", "www", "--to", "0"),
        ("rollback", "www", "--to", "first"),
        ("deploy", "www"),
        ("plan", "--colour"),
        ("pause",),
        ("pause", " "),
        ("pause", "two\nlines"),
        ("resume", "www"),
    ],
)
def test_a_command_that_is_given_wrongly_ends_with_2(
    installed: Site, arguments: tuple[str, ...]
) -> None:
    assert code_of(installed, *arguments) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan",),
        ("deploy",),
        ("deploy", "--dry-run"),
        ("reboot",),
        ("stop", "--all"),
        ("start", "www"),
        ("rollback", "www"),
        ("pause", "why"),
        ("resume",),
    ],
)
def test_a_command_in_a_clone_without_an_installation_ends_with_4(
    site: Site, arguments: tuple[str, ...]
) -> None:
    done = site.command(*arguments, check=False)
    assert (done.returncode, "run: mirage-hooks install" in done.stderr) == (4, True)


def test_a_command_in_a_clone_without_an_installation_leaves_no_file(site: Site) -> None:
    site.command("deploy", check=False)
    assert not site.state.folder.exists()


# What the host chooses.


def test_a_guest_that_is_not_chosen_any_more_is_stopped(with_dns: Site) -> None:
    with_dns.tell_host(guests=["www"])
    said = with_dns.command("deploy").stdout
    assert "dns: generation 1 stopped: not among this host's guests\n" in said
    assert (with_dns.live("dns"), with_dns.page()) == (None, "one")


def test_a_guest_that_is_chosen_again_is_booted(with_dns: Site) -> None:
    with_dns.tell_host(guests=["www"])
    with_dns.command("deploy")
    with_dns.tell_host(guests=["dns", "www"])
    with_dns.command("deploy")
    assert with_dns.live("dns") is not None


def test_a_choice_of_none_stops_every_guest(with_dns: Site) -> None:
    with_dns.tell_host(guests=[])
    done = with_dns.command("deploy")
    assert (with_dns.live("dns"), with_dns.live("www")) == (None, None)
    assert done.stdout.endswith("done: no guest is to run here: guests = [] in host.toml\n")


def test_a_plan_says_that_none_is_chosen(installed: Site) -> None:
    installed.tell_host(guests=[])
    assert "no guest is to run here: guests = [] in host.toml" in installed.command("plan").stdout


def test_a_chosen_guest_that_is_not_there_is_noticed_and_no_fault(with_dns: Site) -> None:
    with_dns.tell_host(guests=["dns", "www"])
    with_dns.tables = ""
    with_dns.publish()
    pull = with_dns.pull()
    notice = "dns: among `guests` in host.toml, but the repository has no such guest"
    assert notice in pull.stderr
    assert (with_dns.live("dns"), with_dns.page()) == (None, "one")
    assert code_of(with_dns, "deploy") == 0


# pause and resume.


def test_a_pause_says_what_it_does(installed: Site) -> None:
    said = installed.command("pause", "moving the disks").stdout
    assert said == "pulls deploy nothing until `mirage-hooks resume`\n"


def test_what_is_asked_by_hand_is_done_while_paused(deployed: Site) -> None:
    deployed.publish("two")
    deployed.pull_unhooked()
    deployed.command("pause", "moving the disks")
    deployed.command("deploy")
    assert deployed.page() == "two"


def test_a_second_pause_gives_another_reason(installed: Site) -> None:
    installed.command("pause", "moving the disks")
    installed.command("pause", "still moving")
    pause = installed.state.pause()
    assert pause is not None
    assert pause.why == "still moving"


def test_a_resume_deploys_what_was_held_back(deployed: Site) -> None:
    deployed.command("pause", "moving the disks")
    deployed.publish("two")
    deployed.pull()
    done = deployed.command("resume")
    assert (deployed.page(), deployed.state.pause()) == ("two", None)
    assert done.stdout.endswith("done: www runs as it should\n")
    assert deployed.state.generations("www")[-1].origin == "resume"


def test_a_resume_ends_as_its_deploy_does(deployed: Site) -> None:
    deployed.command("pause", "moving the disks")
    deployed.args = ["--exit=3"]
    deployed.publish()
    deployed.pull()
    assert code_of(deployed, "resume") == 1
    assert deployed.state.pause() is None


def test_a_resume_without_a_pause_says_so_and_does_nothing(deployed: Site) -> None:
    deployed.publish("two")
    deployed.pull_unhooked()
    done = deployed.command("resume")
    assert (done.stdout, deployed.page()) == ("nothing is paused\n", "one")


def test_a_pause_lets_a_deploy_end_that_is_going_on(deployed: Site) -> None:
    deployed.args = ["--delay=1500"]
    deployed.publish("two")
    deployed.pull_unhooked()
    with subprocess.Popen(
        [COMMAND, "deploy"], cwd=deployed.clone, stdout=subprocess.DEVNULL
    ) as deploy:
        wait_for(lambda: len(deployed.outcomes()) == 2)
        said = deployed.command("pause", "moving the disks").stdout
        assert deploy.wait(60) == 0
    assert re.search(r"\na deploy is going on, and is let end: deploy \(pid \d+, for \d+ s\)", said)
    assert deployed.page() == "two"


def test_a_pull_that_waited_when_the_pause_came_deploys_nothing(deployed: Site) -> None:
    deployed.publish("two")
    with lock.hold(deployed.state.lock, "a test", lambda _: None):
        pull = subprocess.Popen(
            ["git", "pull"], cwd=deployed.clone, stderr=subprocess.PIPE, text=True
        )
        wait_for(lambda: "converge.waiting" in deployed.state.events.read_text())
        deployed.command("pause", "moving the disks")
    _, said = pull.communicate(timeout=60)
    assert ("moving the disks" in said, deployed.page()) == (True, "one")


# Following a deploy, and two at once.


def test_the_end_of_the_following_is_not_the_end_of_the_deploy(installed: Site) -> None:
    installed.args = ["--delay=1500"]
    installed.publish()
    installed.pull_unhooked()
    with subprocess.Popen([COMMAND, "deploy"], cwd=installed.clone, text=True) as deploy:
        wait_for(installed.state.guest_names)
        deploy.kill()
    wait_for(lambda: get(installed.port) == "one")


def test_two_deploys_at_once_boot_one_generation(installed: Site) -> None:
    command = (COMMAND, "deploy")
    both = [
        subprocess.Popen(command, cwd=installed.clone, stdout=subprocess.DEVNULL) for _ in range(2)
    ]
    assert [deploy.wait(60) for deploy in both] == [0, 0]
    assert installed.outcomes() == ["healthy"]
