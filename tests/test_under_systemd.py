"""Under a systemd that was really booted: who polls, what ends with what, and what comes back."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from machine import Machine, MachineSite, machine
from support import COMMAND, free_port, wait_for

pytestmark = pytest.mark.systemd

TIMER, POLL = "mirage-hooks-poll@.timer", "mirage-hooks-poll@.service"
UP = "mirage-hooks-up@.service"


@pytest.fixture(scope="module")
def booted() -> Iterator[Machine]:
    """A machine that systemd has booted."""
    with machine() as made:
        yield made


@pytest.fixture
def site(booted: Machine, compiled: Callable[[str], Path]) -> Iterator[MachineSite]:
    """A clone in the machine, with hooks and with one image published."""
    made = MachineSite(booted, compiled("one"), free_port())
    made.install()
    yield made
    made.command("uninstall", "--stop", "--yes", check=False)


@pytest.fixture
def deployed(site: MachineSite) -> MachineSite:
    """A clone whose guest runs."""
    site.command("deploy")
    assert site.page() == "one"
    return site


def state_of(site: MachineSite, unit: str) -> str:
    return site.machine.run("systemctl", "is-active", unit, check=False).stdout.strip()


def units_of(site: MachineSite) -> list[str]:
    """Return every unit of the clone's that is there in a file."""
    folder = site.machine.root / "etc/systemd/system"
    name = site.unit(TIMER).partition("@")[2].removesuffix(".timer")
    return sorted(path.name for path in folder.rglob("*") if name in path.name)


def scope_of(site: MachineSite, guest: str = "www") -> str:
    """Return the control group that the monitor of a guest is in."""
    generations = site.machine.root / site.here[1:] / ".git/mirage-hooks/guests" / guest
    newest = max(generations.glob("[0-9]*"), key=lambda path: int(path.name))
    pid = json.loads((newest / "monitor.json").read_text())["monitor"]["pid"]
    return site.machine.run("cat", f"/proc/{pid}/cgroup").stdout.strip()


def findings(site: MachineSite) -> dict[str, dict[str, str]]:
    said = json.loads(site.command("doctor", "--json", check=False).stdout)
    return {finding["subject"]: finding for finding in said}


def events(site: MachineSite, name: str) -> list[str]:
    log = site.machine.root / site.here[1:] / ".git/mirage-hooks/events.jsonl"
    found = (json.loads(line) for line in log.read_text().splitlines())
    return [event["message"] for event in found if event["event"] == name]


# The timer.


def test_the_timer_deploys_what_is_new(site: MachineSite, compiled: Callable[[str], Path]) -> None:
    site.install("--poll", "1s")
    wait_for(lambda: site.page() == "one", 20)
    site.publish(compiled("two"))
    wait_for(lambda: site.page() == "two", 20)


@pytest.mark.parametrize("name", ["a site", "100%n $HOME ${HOME}", 'Jürgen\'s-"own"', "-x:.y"])
def test_the_timer_polls_a_repository_of_any_name(
    booted: Machine, compiled: Callable[[str], Path], name: str
) -> None:
    site = MachineSite(booted, compiled("one"), free_port(), name)
    site.install("--poll", "1s")
    wait_for(lambda: site.page() == "one", 20)
    site.command("uninstall", "--stop", "--yes")


def test_the_timer_starts_with_the_host(site: MachineSite) -> None:
    site.install("--poll", "5m")
    said = site.machine.run("systemctl", "is-enabled", site.unit(TIMER), site.unit(UP)).stdout
    assert said.split() == ["enabled", "enabled"]


def test_the_timer_has_the_interval_and_a_delay_of_the_hosts_own(site: MachineSite) -> None:
    site.install("--poll", "5m")
    names = "TimersMonotonic,RandomizedDelayUSec,FixedRandomDelay"
    said = site.machine.run("systemctl", "show", "-p", names, site.unit(TIMER)).stdout
    assert "OnUnitActiveUSec=5min" in said
    assert "RandomizedDelayUSec=30s\nFixedRandomDelay=yes" in said


def test_another_interval_replaces_the_one_there_was(site: MachineSite) -> None:
    site.install("--poll", "5m")
    site.install("--poll", "90s")
    said = site.machine.run("systemctl", "show", "-p", "TimersMonotonic", site.unit(TIMER)).stdout
    assert "OnUnitActiveUSec=1min 30s" in said
    assert state_of(site, site.unit(TIMER)) == "active"


def test_an_install_that_says_nothing_of_polls_leaves_the_timer(site: MachineSite) -> None:
    site.install("--poll", "5m")
    site.install()
    assert state_of(site, site.unit(TIMER)) == "active"


def test_never_leaves_no_unit(site: MachineSite) -> None:
    site.install("--poll", "5m")
    site.install("--poll", "never")
    assert (units_of(site), state_of(site, site.unit(TIMER))) == ([], "inactive")


def test_an_uninstall_leaves_no_unit(site: MachineSite) -> None:
    site.install("--poll", "5m")
    site.command("uninstall", "--stop", "--yes")
    assert (units_of(site), state_of(site, site.unit(TIMER))) == ([], "inactive")


def test_the_doctor_says_who_polls(site: MachineSite) -> None:
    site.install("--poll", "5m")
    assert findings(site)["poll"]["finding"] == f"{site.unit(TIMER)} is active"


def test_a_timer_that_was_stopped_is_found_and_mended_by_what_the_doctor_says(
    site: MachineSite,
) -> None:
    site.install("--poll", "5m")
    site.machine.run("systemctl", "stop", site.unit(TIMER))
    found = findings(site)["poll"]
    site.machine.run("sh", "-c", found["mend"].removeprefix("run: "))
    assert (found["level"], findings(site)["poll"]["level"]) == ("failed", "ok")


def test_a_timer_whose_command_is_gone_is_found(site: MachineSite) -> None:
    site.install("--poll", "5m")
    file = site.machine.root / "etc/systemd/system" / site.unit(UP)
    file.write_text(file.read_text().replace(str(COMMAND), "/gone/mirage-hooks"))
    site.machine.run("systemctl", "daemon-reload")
    assert "/gone/mirage-hooks, which is gone" in findings(site)["poll"]["finding"]


# What ends, and what does not.


def test_each_monitor_has_a_scope_of_its_own(deployed: MachineSite) -> None:
    identity = deployed.machine.run("systemctl", "list-units", "mirage-hooks-*-www-1.scope").stdout
    assert "/mirage-hooks-" in scope_of(deployed)
    assert scope_of(deployed).endswith("-www-1.scope")
    assert "running" in identity


def test_the_doctor_finds_nothing_wrong_with_a_monitor_in_a_scope(deployed: MachineSite) -> None:
    assert findings(deployed)["monitor of www"]["level"] == "ok"


def test_a_guest_outlives_the_service_that_booted_it(site: MachineSite) -> None:
    # As a service whose author does not know of KillMode: all that is left in it is killed.
    site.machine.run("systemd-run", "--wait", "--quiet", COMMAND, "-C", site.here, "deploy")
    assert site.page() == "one"


def test_a_guest_outlives_the_session_that_booted_it(site: MachineSite) -> None:
    session = "session-test.scope"
    login = ("systemd-run", "--scope", "--quiet", "--collect", f"--unit={session}")
    deploy = f"'{COMMAND}' -C {site.here} deploy && exec sleep 1000 >/dev/null 2>&1 &"
    site.machine.run(*login, "sh", "-c", f"({deploy}) >/dev/null 2>&1")
    wait_for(lambda: site.page() == "one")
    # As logind ends a session with KillUserProcesses=yes.
    site.machine.run("systemctl", "stop", session)
    assert (site.page(), state_of(site, session)) == ("one", "inactive")


def test_a_guest_outlives_the_timer_and_its_service(site: MachineSite) -> None:
    site.install("--poll", "1s")
    wait_for(lambda: site.page() == "one", 20)
    site.machine.run("systemctl", "stop", site.unit(TIMER), site.unit(POLL))
    assert (site.page(), state_of(site, site.unit(TIMER))) == ("one", "inactive")


def test_a_deploy_outlives_the_service_that_follows_it(
    deployed: MachineSite, compiled: Callable[[str], Path]
) -> None:
    deployed.install("--poll", "5m")
    deployed.publish(compiled("two"))
    deployed.machine.run("systemctl", "start", "--no-block", deployed.unit(POLL))
    wait_for(lambda: events(deployed, "guest.preparing")[1:])
    deployed.machine.run("systemctl", "stop", deployed.unit(POLL))
    wait_for(lambda: deployed.page() == "two")


def test_a_guest_without_a_scope_is_booted_all_the_same_and_said(site: MachineSite) -> None:
    identity = site.machine.run(
        COMMAND.with_name("python"),
        "-Ic",
        "import sys; from pathlib import Path; from mirage_hooks.boot import installation; "
        "print(installation.identify(Path(sys.argv[1])))",
        f"{site.here}/.git",
    ).stdout.strip()
    taken = f"--unit=mirage-hooks-{identity}-www-1.scope"
    occupy = f"systemd-run --scope --quiet {taken} sleep 1000 >/dev/null 2>&1 &"
    site.machine.run("sh", "-c", occupy)
    wait_for(lambda: state_of(site, taken.removeprefix("--unit=")) == "active")
    said = site.command("deploy").stdout
    assert site.page() == "one"
    assert said.count("systemd has no scope for its monitor") == 1


# The journal.


def journal(site: MachineSite, *options: str) -> list[dict[str, str]]:
    """Return what the journal has of the polls of the clone."""
    read = ("journalctl", "--sync"), ("journalctl", "-o", "json", "-u", site.unit(POLL), *options)
    said = [site.machine.run(*command).stdout for command in read][-1]
    return [json.loads(line) for line in said.splitlines()]


def test_the_journal_has_the_lines_of_a_deploy_and_what_each_weighs(site: MachineSite) -> None:
    site.install("--poll", "1d")
    site.machine.run("systemctl", "start", site.unit(POLL))
    said = [line for line in journal(site) if "is healthy" in line["MESSAGE"]]
    assert ["www: " in line["MESSAGE"] and line["PRIORITY"] for line in said] == ["5"]


def test_the_journal_shows_a_failed_deploy_among_its_errors(
    deployed: MachineSite, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(Path("/bin/false").read_bytes())
    deployed.publish(broken)
    deployed.install("--poll", "1d")
    deployed.machine.run("systemctl", "start", deployed.unit(POLL), check=False)
    errors = [line["MESSAGE"] for line in journal(deployed, "-p", "err")]
    assert any("is not healthy" in message for message in errors)


# When the host starts.


@pytest.fixture
def three(booted: Machine, compiled: Callable[[str], Path]) -> Iterator[MachineSite]:
    """A clone with three guests that boot with the host; one is held by hand."""
    made = MachineSite(booted, compiled("one"), free_port())
    made.publish(compiled("one"), ("www", "held", "dns"))
    made.machine.run("git", "pull", "-q", cwd=made.here)
    made.install("--poll", "1d", "--deploy")
    made.command("stop", "held")
    yield made
    made.command("uninstall", "--stop", "--yes", check=False)


@pytest.mark.parametrize("restart", [Machine.reboot, Machine.lose_power])
def test_what_should_run_is_booted_with_the_host_and_what_is_held_is_not(
    three: MachineSite, restart: Callable[[Machine], None]
) -> None:
    restart(three.machine)
    wait_for(lambda: (three.page(0), three.page(2)) == ("one", "one"), 20)
    wait_for(lambda: state_of(three, three.unit(UP)) == "inactive", 20)
    assert three.page(1) is None


def test_a_guest_outlives_the_service_that_booted_it_with_the_host(three: MachineSite) -> None:
    three.machine.lose_power()
    wait_for(lambda: state_of(three, three.unit(UP)) == "inactive", 20)
    assert "www" in scope_of(three)
    assert three.page() == "one"
