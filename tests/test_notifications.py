"""An operator is told how things come out, and nothing ever waits for that."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mirage_hooks.boot import journal, severity
from mirage_hooks.boot.process import ProcessId
from support import Site, monitors_of, wait_for

# Tells of three events, and is killed.
KILLED = """
import os, sys
from mirage_hooks.boot.tell import Teller
teller = Teller(sys.argv[1])
for number in range(3):
    teller.tell({"event": "guest.fault", "message": str(number)})
os.kill(os.getpid(), 9)
"""

NEVER = '[guest.www.restart]\non = "never"\n'


class Told:
    """What the operator of a site was told so far."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.site = site
        self.file = folder / "told.jsonl"
        self.script = folder / "tell"
        self.use(f"cat >>{self.file}")
        site.tell_host(notify={"command": [str(self.script)]})

    def use(self, text: str) -> None:
        """Have another command."""
        self.script.write_text(f"#!/bin/sh\n{text}\n")
        self.script.chmod(0o755)

    def hang(self) -> None:
        """Have a command that hangs until the test is over."""
        self.use(f"until [ -e {self.script}.over ]; do sleep 0.1; done")

    def end(self) -> None:
        """Have nobody left who tells."""
        self.use("exit 0")
        self.script.with_suffix(".over").touch()
        wait_for(lambda: not self.tellers(), 30)

    def events(self) -> list[dict[str, Any]]:
        """Return what was told, once who tells has ended."""
        wait_for(lambda: not self.tellers(), 30)
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        return [json.loads(line) for line in lines]

    def kinds(self) -> list[str]:
        """Return the kinds of what was told."""
        return [event["event"] for event in self.events()]

    def tellers(self) -> list[int]:
        """Return the processes that tell of this site."""
        found, state = [], str(self.site.state.folder).encode()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if {b"mirage_hooks.boot.notify", state} <= {*words}:
                found.append(int(entry.name))
        return found

    def failures(self) -> list[dict[str, Any]]:
        """Return what was logged of events that could not be told."""
        self.events()
        events = journal.read(str(self.site.state.events))
        return [event for event in events if event["event"] == "notify.failed"]


@pytest.fixture
def told(installed: Site, tmp_path: Path) -> Iterator[Told]:
    """A clone with an operator who is told; nothing was deployed yet."""
    made = Told(installed, tmp_path)
    yield made
    made.end()


def tender(site: Site) -> ProcessId:
    found = site.monitor().tender
    assert found is not None
    return found


# From a deploy.


def test_a_deploy_that_succeeds_is_told_by_the_health_of_its_guest(told: Told) -> None:
    told.site.command("deploy")
    assert told.kinds() == ["guest.healthy"]


def test_what_is_told_is_what_is_logged(told: Told) -> None:
    told.site.command("deploy")
    (event,) = told.events()
    del event["repository"], event["branch"], event["host"]
    assert event in list(journal.read(str(told.site.state.events)))


def test_what_is_told_names_repository_and_branch(told: Told) -> None:
    told.site.command("deploy")
    (event,) = told.events()
    assert (event["repository"], event["branch"]) == (str(told.site.clone), "main")


def test_a_pull_that_is_rolled_back_is_told_in_order(told: Told) -> None:
    told.site.command("deploy")
    told.site.args = ["--exit=3"]
    told.site.publish()
    told.site.pull()
    assert told.kinds()[1:] == [
        "guest.unhealthy",
        "guest.planned",
        "guest.healthy",
        "converge.finished",
    ]


def test_a_deploy_that_is_refused_is_told(told: Told) -> None:
    told.site.tables = 'colour = "red"'
    told.site.publish()
    told.site.pull()
    (event,) = told.events()
    assert (event["exit_code"], "unknown key 'colour'" in event["message"]) == (3, True)


def test_a_pull_that_changes_nothing_is_not_told(told: Told) -> None:
    told.site.command("deploy")
    (told.site.upstream / "README").write_text("read me")
    told.site.commit("a README")
    told.site.pull()
    assert told.kinds() == ["guest.healthy"]


def test_all_that_is_told_is_an_outcome(told: Told) -> None:
    told.site.command("deploy")
    told.site.command("stop", "www")
    told.site.command("start", "www")
    assert [event for event in told.events() if severity.outcome(event) is None] == []


def test_a_deploy_does_not_wait_for_the_command(told: Told) -> None:
    told.hang()
    told.site.command("deploy")
    assert told.tellers() != []


def test_a_command_that_hangs_holds_up_nothing_of_the_next_deploy(told: Told) -> None:
    told.hang()
    told.site.command("deploy")
    told.site.publish("two")
    told.site.pull()
    assert (told.site.page(), told.tellers() != []) == ("two", True)


def test_what_was_sent_is_told_though_who_sent_it_was_killed(told: Told) -> None:
    state = str(told.site.state.folder)
    subprocess.run([sys.executable, "-I", "-c", KILLED, state], timeout=30, check=False)
    assert [event["message"] for event in told.events()] == ["0", "1", "2"]


# From a monitor, when no deploy goes on.


def test_a_restart_is_told(told: Told) -> None:
    told.site.command("deploy")
    tender(told.site).kill(signal.SIGKILL)
    wait_for(lambda: told.site.monitor().restarts == 1)
    assert told.kinds() == ["guest.healthy", "guest.restarting"]


def test_a_guest_that_is_given_up_is_told_after_its_last_restart(told: Told) -> None:
    told.site.tables = "[guest.www.restart]\nlimit = 1\n"
    told.site.publish()
    told.site.pull()
    for _ in range(2):
        wait_for(lambda: told.site.monitor().phase == "running")
        tender(told.site).kill(signal.SIGKILL)
        wait_for(lambda: told.site.live() is None or told.site.monitor().phase == "backing-off")
    assert told.kinds()[1:] == ["guest.restarting", "guest.given-up"]


def test_a_guest_that_ends_for_good_is_told(told: Told) -> None:
    told.site.tables = NEVER
    told.site.publish()
    told.site.pull()
    tender(told.site).kill(signal.SIGKILL)
    wait_for(lambda: not monitors_of(told.site.state))
    assert told.kinds() == ["guest.healthy", "guest.ended"]


def test_a_command_that_is_named_later_is_told_at_once(told: Told) -> None:
    told.site.tell_host(notify={"command": []})
    told.site.command("deploy")
    told.events()
    told.site.tell_host(notify={"command": [str(told.script)]})
    tender(told.site).kill(signal.SIGKILL)
    wait_for(lambda: told.site.monitor().restarts == 1)
    assert told.kinds() == ["guest.restarting"]


def test_a_monitor_keeps_nothing_of_who_told_for_it(told: Told) -> None:
    told.site.command("deploy")
    monitor = told.site.monitor().monitor.pid
    descriptors = Path(f"/proc/{monitor}/fd")
    before = len([*descriptors.iterdir()])
    tender(told.site).kill(signal.SIGKILL)
    wait_for(lambda: told.site.monitor().restarts == 1)
    told.events()
    children = Path(f"/proc/{monitor}/task/{monitor}/children")
    wait_for(lambda: children.read_text().split() == [str(tender(told.site).pid)])
    wait_for(lambda: len([*descriptors.iterdir()]) == before)


def test_a_guest_is_restarted_while_the_command_hangs(told: Told) -> None:
    told.site.command("deploy")
    told.events()
    told.hang()
    tender(told.site).kill(signal.SIGKILL)
    wait_for(lambda: told.site.monitor().restarts == 1 and told.site.page() == "one")
    assert told.tellers() != []


# Where telling fails.


def test_a_command_that_fails_is_logged(told: Told) -> None:
    told.use("echo no such channel; exit 3")
    told.site.command("deploy")
    (failure,) = told.failures()
    assert failure["message"] == (
        f"guest.healthy is not told: {told.script} ended with 3: no such channel"
    )


def test_a_command_that_fails_fails_no_deploy(told: Told) -> None:
    told.use("exit 3")
    assert told.site.command("deploy").returncode == 0


def test_a_command_that_fails_for_each_event_is_logged_once(told: Told) -> None:
    told.use("exit 3")
    told.site.args = ["--exit=3"]
    told.site.publish()
    told.site.pull()
    assert len(told.failures()) == 1


def test_that_telling_failed_is_told_to_nobody(told: Told) -> None:
    told.use(f"cat >>{told.file}; exit 3")
    told.site.command("deploy")
    assert told.kinds() == ["guest.healthy"]


def test_a_host_file_that_cannot_be_read_is_logged(told: Told) -> None:
    told.site.command("deploy")
    told.events()
    with told.site.state.host_file.open("a") as file:
        file.write("[notify\n")
    tender(told.site).kill(signal.SIGKILL)
    wait_for(lambda: told.site.monitor().restarts == 1)
    assert "is no valid TOML" in told.failures()[0]["message"]


def test_the_doctor_finds_a_command_that_cannot_be_run(told: Told) -> None:
    told.site.tell_host(notify={"command": ["/nonexistent/tell"]})
    done = told.site.command("doctor", check=False)
    assert (done.returncode, "/nonexistent/tell is no program" in done.stdout) == (1, True)


def test_the_doctor_names_a_command_that_can_be_run(told: Told) -> None:
    told.site.command("deploy")
    assert f"{told.script} is told how things come out" in told.site.command("doctor").stdout
