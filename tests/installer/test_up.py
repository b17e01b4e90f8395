"""`mirage-hooks up`: what should run is booted when the host starts, and in which order."""

import json

import pytest

from support import Site, free_port, get, monitors_of, wait_for


def crash(site: Site) -> None:
    """End everything that runs, without a word, as a host does that loses its power."""
    for monitor in monitors_of(site.state):
        monitor.monitor.kill()
    wait_for(lambda: not monitors_of(site.state))


def add_guest(site: Site, name: str, *lines: str) -> int:
    """Describe another guest with the image of www; return its port."""
    port = free_port()
    args = f'["--ipv4=127.0.0.1/8", "--port={port}"]'
    site.tables += (
        f'[guest.{name}]\ntarget = "unix"\nimage = "unix/{{latest}}/www.unix"\n'
        f'args = {args}\ncheck.alive = "100ms"\n' + "".join(f"{line}\n" for line in lines)
    )
    return port


def told(site: Site, *names: str) -> list[str]:
    """Return the events of these names, each with its guest, in the order in which they came."""
    events = (json.loads(line) for line in site.state.events.read_text().splitlines())
    return [f"{one['guest']} {one['event']}" for one in events if one["event"] in names]


# What.


def test_what_ran_is_booted_again(deployed: Site) -> None:
    crash(deployed)
    deployed.command("up")
    assert deployed.page() == "one"


def test_what_was_never_booted_is_booted(installed: Site) -> None:
    installed.command("up")
    assert installed.page() == "one"


def test_what_runs_goes_on_running(deployed: Site) -> None:
    deployed.command("up")
    assert deployed.outcomes() == ["healthy"]


def test_nothing_is_fetched(deployed: Site) -> None:
    deployed.publish("two")
    crash(deployed)
    deployed.command("up")
    assert deployed.page() == "one"


def test_what_was_pulled_and_not_deployed_is_booted(deployed: Site) -> None:
    deployed.publish("two")
    crash(deployed)
    deployed.git("-c", "core.hooksPath=/dev/null", "pull", "-q")
    deployed.command("up")
    assert deployed.page() == "two"


def test_what_is_held_is_not_booted(deployed: Site) -> None:
    deployed.command("stop", "www")
    deployed.command("up")
    assert deployed.page() is None


def test_what_is_pinned_is_booted_as_it_was(twice: Site) -> None:
    twice.command("rollback", "www")
    crash(twice)
    twice.command("up")
    intent = twice.state.intent("www")
    assert (twice.page(), intent is not None and intent.kind) == ("one", "pinned")


def test_a_failing_guest_does_not_keep_the_next_ones_down(site: Site) -> None:
    site.args = ["--exit=3"]
    port = add_guest(site, "dns", "startup = 1")
    site.publish()
    site.pull()
    site.install()
    assert site.command("up", check=False).returncode == 1
    assert get(port) == "one"


def test_a_missing_bridge_does_not_keep_the_others_down(site: Site) -> None:
    site.tables = (
        '[guest.aside]\ntarget = "unix"\nimage = "unix/{latest}/www.unix"\n'
        '[guest.aside.network.service]\nnetwork = "public"\naddress = "10.0.0.2/24"\n'
    )
    site.publish()
    site.pull()
    site.install()
    site.tell_host(networks={"public": {"bridge": "mh-no-bridge"}})
    done = site.command("up", check=False)
    assert (site.page(), done.returncode) == ("one", 6)
    assert "aside: " in done.stderr


# While something is in the way of what the repository asks for.


@pytest.fixture
def paused(deployed: Site) -> Site:
    """A clone that has pulled a new image while it is paused, on a host that crashed since."""
    deployed.command("pause", "the cat is asleep")
    deployed.publish("two")
    deployed.pull()
    crash(deployed)
    return deployed


def test_while_paused_what_ran_last_is_booted_and_nothing_new(paused: Site) -> None:
    done = paused.command("up")
    assert (paused.page(), done.returncode) == ("one", 0)
    assert "the cat is asleep" in done.stdout


def test_a_resume_deploys_what_was_new(paused: Site) -> None:
    paused.command("up")
    paused.command("resume")
    assert paused.page() == "two"


def test_while_paused_the_trigger_is_left_to_the_resume(paused: Site) -> None:
    paused.state.trigger.write_text("push\n")
    paused.command("up")
    assert paused.state.trigger.read_text() == "push\n"


def test_while_paused_a_new_guest_is_not_booted(deployed: Site) -> None:
    deployed.command("pause", "the cat is asleep")
    add_guest(deployed, "dns")
    deployed.publish()
    deployed.pull()
    crash(deployed)
    deployed.command("up")
    assert (deployed.page(), deployed.live("dns")) == ("one", None)


def test_while_paused_what_is_held_or_pinned_stays_so(twice: Site) -> None:
    twice.command("rollback", "www")
    twice.command("pause", "the cat is asleep")
    crash(twice)
    twice.command("up")
    intent = twice.state.intent("www")
    assert (twice.page(), intent is not None and intent.kind) == ("one", "pinned")


@pytest.fixture
def broken(deployed: Site) -> Site:
    """A clone that has pulled a manifest that says nothing, on a host that crashed since."""
    (deployed.upstream / "mirage-hooks.toml").write_text("[guest.www\n")
    deployed.commit("broken")
    deployed.pull()
    crash(deployed)
    return deployed


def test_where_the_manifest_cannot_be_read_what_ran_last_is_booted(broken: Site) -> None:
    broken.command("up", check=False)
    assert broken.page() == "one"


def test_where_the_manifest_cannot_be_read_that_is_the_exit_code(broken: Site) -> None:
    done = broken.command("up", check=False)
    assert (done.returncode, "mirage-hooks.toml" in done.stderr) == (3, True)


def test_a_manifest_that_was_mended_is_deployed_by_the_next_pull(broken: Site) -> None:
    broken.command("up", check=False)
    broken.publish("two")
    broken.pull()
    assert broken.page() == "two"


# In which order.


@pytest.fixture
def ordered(site: Site) -> Site:
    """A clone whose guest `dns` is to be there before `www`, and `aside` at any time."""
    site.tables = "startup = 1\n"
    add_guest(site, "dns")
    add_guest(site, "aside", "startup = 1")
    site.publish()
    site.pull()
    site.install()
    return site


def test_a_guest_is_judged_before_those_that_start_after_it_are_booted(ordered: Site) -> None:
    ordered.command("up")
    order = told(ordered, "guest.fired", "guest.healthy")
    assert order[:2] == ["dns guest.fired", "dns guest.healthy"]


def test_guests_of_one_place_are_booted_side_by_side(ordered: Site) -> None:
    ordered.command("up")
    order = told(ordered, "guest.fired", "guest.healthy")
    assert {*order[2:4]} == {"www guest.fired", "aside guest.fired"}


def test_all_are_prepared_before_the_first_is_booted(ordered: Site) -> None:
    ordered.command("up")
    assert told(ordered, "guest.preparing", "guest.fired")[3] == "dns guest.fired"


def test_another_place_at_startup_reboots_nothing(deployed: Site) -> None:
    deployed.tables = "startup = 7\n"
    deployed.publish()
    deployed.pull()
    assert deployed.outcomes() == ["healthy"]


@pytest.mark.parametrize("place", ["-1", '"first"', "1.5", "true"])
def test_what_is_no_place_is_refused(site: Site, place: str) -> None:
    site.tables = f"startup = {place}\n"
    site.publish()
    site.pull()
    site.install()
    done = site.command("up", check=False)
    assert (done.returncode, "startup" in done.stderr) == (3, True)


def test_the_host_may_say_the_place(site: Site) -> None:
    site.install()
    site.tell_host(guest={"www": {"startup": 3}})
    site.command("up")
    assert site.page() == "one"
