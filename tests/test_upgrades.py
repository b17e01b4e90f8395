"""An upgrade leaves guests alone, and goes on with what an earlier version left."""

import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import installations
import old_state
from installations import Installation
from mirage_hooks.boot.generation import Generation
from support import USER, Site, get, leave, monitors_of, run, wait_for

# What the stored state was left with.
STORED = [
    ("healthy", "alive for 200ms"),
    ("failed", "the guest exited with 2 (an uncaught exception, such as a port in use)"),
    ("ended", "replaced by generation 3"),
    ("ended", "replaced by generation 2"),
]


# A stored state, of a host that went down.


@pytest.fixture
def restored(tmp_path: Path) -> Iterator[Site]:
    """A clone with the state that an earlier version left; the host was booted since."""
    upstream, clone = old_state.restore(tmp_path)
    made = Site(upstream, clone, 0, Path)
    made.install()
    yield made
    leave(made)


def console(site: Site) -> str:
    return site.command("logs", "www").stdout


def booted(site: Site) -> Generation:
    live = site.live()
    assert live is not None
    return live


def test_the_history_of_an_old_state_is_shown(restored: Site) -> None:
    rows = json.loads(restored.command("history", "--json").stdout)
    assert [(row["outcome"], row["reason"]) for row in rows] == STORED


def test_the_status_of_an_old_state_is_shown(restored: Site) -> None:
    assert re.search(r"^www +unix .* down ", restored.command("status").stdout, re.MULTILINE)


def test_the_console_of_an_old_generation_is_shown(restored: Site) -> None:
    assert "I am broken" in restored.command("logs", "www", "--generation", "3").stdout


def test_all_that_an_old_deploy_logged_is_shown(restored: Site) -> None:
    first = restored.state.generations("www")[0].converge
    shown = restored.command("logs", "--deploy", first).stdout
    assert ("www 1| I am one" in shown, "done: www runs as it should" in shown) == (True, True)


def test_a_state_that_failed_under_an_old_version_is_not_tried_again(restored: Site) -> None:
    (restored.upstream / "README").write_text("read me")
    restored.commit("a README")
    restored.pull()
    assert (booted(restored).number, "I am two" in console(restored)) == (5, True)


def test_an_old_state_is_rolled_back_to(restored: Site) -> None:
    restored.command("reboot", "www", check=False)
    restored.command("rollback", "www", "--to", "1")
    assert (booted(restored).number, "I am one" in console(restored)) == (6, True)


def test_a_deploy_goes_on_from_an_old_state(restored: Site) -> None:
    old_state.publish(restored.upstream, "four", b"#!/bin/sh\necho I am four\nexec sleep 1000\n")
    restored.pull()
    assert (booted(restored).number, "I am four" in console(restored)) == (5, True)


def test_a_deploy_of_what_ran_under_an_old_version_has_its_boot_digest(restored: Site) -> None:
    before = restored.state.generations("www")[-1].digest
    (restored.upstream / "README").write_text("read me")
    restored.commit("a README")
    restored.pull()
    assert booted(restored).digest == before


def test_what_an_old_state_kept_is_collected(restored: Site) -> None:
    restored.tell_host(keep=1)
    restored.command("reboot", "www", check=False)
    assert restored.command("gc").returncode == 0


# A monitor of an earlier version, that runs.


@pytest.fixture(scope="session")
def old(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The earlier version, installed."""
    folder = tmp_path_factory.mktemp("old")
    return installations.make(folder, installations.old_sources(folder))


@pytest.fixture
def upgraded(site: Site, old: Installation) -> Site:
    """A clone whose guest was booted by the earlier version, and that has the present one now."""
    user = ["--user", USER] if USER else []
    run(old.command, "install", *user, cwd=site.clone)
    run(old.command, "deploy", cwd=site.clone)
    before = site.monitor().monitor
    site.install()
    assert (site.page(), site.monitor().monitor) == ("one", before)
    return site


def test_the_status_of_a_guest_of_an_old_monitor_is_shown(upgraded: Site) -> None:
    said = upgraded.command("status").stdout
    assert re.search(r"^www +unix .* healthy +0 +follow$", said, re.MULTILINE)


def test_a_deploy_leaves_a_guest_of_an_old_monitor_alone(upgraded: Site) -> None:
    before = upgraded.monitor().monitor
    upgraded.command("deploy")
    assert (upgraded.monitor().monitor, upgraded.outcomes()) == (before, ["healthy"])


def test_an_old_monitor_takes_a_restart_policy(upgraded: Site) -> None:
    upgraded.tables = '[guest.www.restart]\non = "never"\n'
    upgraded.publish()
    upgraded.pull()
    tender = upgraded.monitor().tender
    assert tender is not None
    tender.kill(signal.SIGKILL)
    wait_for(lambda: not monitors_of(upgraded.state))
    assert upgraded.outcomes() == ["healthy"]


def test_an_old_monitor_restarts_its_guest(upgraded: Site) -> None:
    tender = upgraded.monitor().tender
    assert tender is not None
    tender.kill(signal.SIGKILL)
    wait_for(lambda: upgraded.monitor().restarts == 1 and upgraded.page() == "one")


def test_a_guest_of_an_old_monitor_is_replaced(upgraded: Site) -> None:
    before = upgraded.monitor().monitor
    upgraded.publish("two")
    upgraded.pull()
    assert (upgraded.page(), upgraded.outcomes()) == ("two", ["ended", "healthy"])
    assert before.wait_gone(5)


def test_what_an_old_version_booted_is_rolled_back_to(upgraded: Site) -> None:
    upgraded.publish("two")
    upgraded.pull()
    upgraded.command("rollback", "www")
    assert upgraded.page() == "one"


def test_a_guest_of_an_old_monitor_is_stopped(upgraded: Site) -> None:
    upgraded.command("stop", "www")
    wait_for(lambda: monitors_of(upgraded.state) == [])
    assert upgraded.page() is None


# The same version, installed again while a guest runs.


class Asking:
    """Somebody who asks a guest over and over, and counts what is not answered."""

    def __init__(self, port: int) -> None:
        self.asked = self.missed = 0
        self._port = port
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        while not self._over.is_set():
            self.asked += 1
            self.missed += get(self._port) != "one"
            time.sleep(0.02)

    def end(self) -> None:
        """Stop asking."""
        self._over.set()
        self._thread.join()


@pytest.fixture(scope="session")
def present(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The present version, installed."""
    folder = tmp_path_factory.mktemp("present")
    return installations.make(folder, installations.present_sources(folder))


@pytest.fixture
def reinstalled(site: Site, present: Installation) -> Site:
    """A clone whose guest runs from an environment that was installed again meanwhile."""
    user = ["--user", USER] if USER else []
    run(present.command, "install", *user, cwd=site.clone)
    run(present.command, "deploy", cwd=site.clone)
    before = site.monitor().monitor
    asking = Asking(site.port)
    present.install("--force-reinstall")
    asking.end()
    assert (asking.missed, asking.asked > 10, site.monitor().monitor) == (0, True, before)
    return site


def test_a_monitor_whose_files_were_replaced_restarts_its_guest(reinstalled: Site) -> None:
    tender = reinstalled.monitor().tender
    assert tender is not None
    tender.kill(signal.SIGKILL)
    wait_for(lambda: reinstalled.monitor().restarts == 1 and reinstalled.page() == "one")


def test_a_hook_goes_on_working_when_its_program_was_installed_again(reinstalled: Site) -> None:
    reinstalled.publish("two")
    reinstalled.pull()
    assert (reinstalled.page(), reinstalled.outcomes()) == ("two", ["ended", "healthy"])


def test_a_monitor_whose_files_were_replaced_tells_of_what_happens(
    reinstalled: Site, tmp_path: Path
) -> None:
    script, told = tmp_path / "tell", tmp_path / "told"
    script.write_text(f"#!/bin/sh\ncat >{told}\n")
    script.chmod(0o755)
    reinstalled.tell_host(notify={"command": [str(script)]})
    tender = reinstalled.monitor().tender
    assert tender is not None
    tender.kill(signal.SIGKILL)
    wait_for(lambda: told.exists() and "guest.restarting" in told.read_text())
