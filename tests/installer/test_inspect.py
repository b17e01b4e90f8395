"""Commands that show: status, history, logs, logs -f."""

import json
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from support import COMMAND, Site, free_port, monitors_of, wait_for

STATUS_KEYS = [
    *["repository", "branch", "commit", "behind", "last_fetch"],
    *["converging", "paused", "problem", "damaged"],
]
GUEST_KEYS = [
    *["guest", "target", "image", "commit", "generation", "since", "address"],
    *["health", "restarts", "intent", "pid", "warnings"],
]
HISTORY_KEYS = [
    *["guest", "generation", "booted", "image", "commit", "origin", "outcome", "reason"],
    *["healthy_at", "ended_at", "exit", "restarts", "digest", "path", "arguments"],
    *["observed", "warnings", "converge", "collected"],
]
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")


def status(site: Site) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(site.command("status", "--json").stdout)
    return value


def www(site: Site) -> dict[str, Any]:
    """Return what the status says of the guest."""
    guests = {guest["guest"]: guest for guest in status(site)["guests"]}
    found: dict[str, Any] = guests["www"]
    return found


def history(site: Site, *arguments: str) -> list[dict[str, Any]]:
    value: list[dict[str, Any]] = json.loads(site.command("history", "--json", *arguments).stdout)
    return value


@pytest.fixture
def failed(deployed: Site) -> Site:
    """A clone whose second state was rolled back."""
    deployed.args = ["--exit=3"]
    deployed.publish()
    deployed.pull()
    return deployed


# status.


def test_status_shows_a_guest_that_runs(deployed: Site) -> None:
    said = deployed.command("status").stdout
    assert re.search(
        rf"^www +unix +.* tcp 127\.0\.0\.1:{deployed.port} +healthy +0 +follow$", said, re.M
    )


def test_status_shows_what_is_checked_out(deployed: Site) -> None:
    commit = deployed.git("rev-parse", "HEAD").stdout[:7]
    first = deployed.command("status").stdout.splitlines()[0]
    assert first.startswith(f"{deployed.clone}: main at {commit}, 0 behind its upstream, fetched ")


def test_status_shows_a_guest_that_was_never_booted(installed: Site) -> None:
    assert (www(installed)["health"], www(installed)["generation"]) == ("down", None)


def test_status_shows_since_when_a_guest_runs(deployed: Site) -> None:
    assert MOMENT.fullmatch(www(deployed)["since"])


def test_status_shows_the_process_of_a_guest(deployed: Site) -> None:
    tender = deployed.monitor().tender
    assert tender is not None
    assert www(deployed)["pid"] == tender.pid


def test_status_shows_the_commit_that_a_guest_came_from(twice: Site) -> None:
    assert twice.git("rev-parse", "HEAD").stdout.startswith(www(twice)["commit"])


def test_status_shows_a_guest_that_is_held(deployed: Site) -> None:
    deployed.command("stop", "www")
    assert (www(deployed)["health"], www(deployed)["intent"]) == ("down", "held")


def test_status_shows_a_guest_that_is_held_before_its_first_boot(installed: Site) -> None:
    installed.command("stop", "www")
    assert www(installed)["intent"] == "held"


def test_status_shows_a_guest_that_is_pinned(twice: Site) -> None:
    twice.command("rollback", "www")
    assert (www(twice)["health"], www(twice)["intent"]) == ("healthy", "pinned")


def test_status_shows_a_guest_whose_monitor_was_killed(deployed: Site) -> None:
    monitor = deployed.monitor().monitor
    monitor.kill()
    monitor.wait_gone(5)
    assert www(deployed)["health"] == "down"


def test_status_counts_restarts(deployed: Site) -> None:
    tender = deployed.monitor().tender
    assert tender is not None
    tender.kill(signal.SIGKILL)
    wait_for(lambda: deployed.monitor().restarts == 1 and deployed.page() == "one")
    assert www(deployed)["restarts"] == 1


def test_status_shows_a_guest_that_waits_for_its_restart(deployed: Site) -> None:
    monitor = deployed.monitor()
    assert monitor.tender is not None
    monitor.tender.kill(signal.SIGKILL)
    wait_for(lambda: deployed.monitor().phase == "backing-off")
    # Else it may be over before anybody looks.
    monitor.monitor.kill(signal.SIGSTOP)
    assert www(deployed)["health"] == "restarting"
    monitor.monitor.kill(signal.SIGCONT)


def test_status_shows_a_guest_that_was_given_up(site: Site) -> None:
    site.tables = '[guest.www.restart]\non = "never"\n'
    site.publish()
    site.pull()
    site.install("--deploy")
    tender = site.monitor().tender
    assert tender is not None
    tender.kill(signal.SIGKILL)
    wait_for(lambda: not monitors_of(site.state))
    assert www(site)["health"] == "given up"


def test_status_shows_how_far_behind_the_clone_is(deployed: Site) -> None:
    deployed.publish("two")
    deployed.publish("three")
    deployed.git("fetch", "-q")
    assert status(deployed)["behind"] == 2


def test_status_shows_when_it_was_fetched(deployed: Site) -> None:
    deployed.git("fetch", "-q")
    assert MOMENT.fullmatch(status(deployed)["last_fetch"])


def test_status_without_a_fetch_says_nothing_of_its_time(deployed: Site) -> None:
    assert status(deployed)["last_fetch"] is None


def test_status_without_an_upstream_says_so(deployed: Site) -> None:
    deployed.git("branch", "--unset-upstream")
    assert "no upstream" in deployed.command("status").stdout.splitlines()[0]


def test_status_says_that_another_branch_is_checked_out(deployed: Site) -> None:
    deployed.git("checkout", "-q", "-b", "other")
    said = deployed.command("status").stdout
    assert "other is checked out: pulls of it deploy nothing" in said


def test_status_says_that_the_next_deploy_will_be_refused(deployed: Site) -> None:
    deployed.tables = 'colour = "red"'
    deployed.publish()
    deployed.pull_unhooked()
    assert "unknown key 'colour'" in status(deployed)["problem"]


def test_status_shows_what_runs_though_the_manifest_cannot_be_read(deployed: Site) -> None:
    deployed.tables = 'colour = "red"'
    deployed.publish()
    deployed.pull_unhooked()
    assert www(deployed)["health"] == "healthy"


def test_status_says_who_is_deploying(installed: Site) -> None:
    installed.args = ["--delay=1500"]
    installed.publish()
    installed.pull_unhooked()
    quiet = subprocess.DEVNULL
    with subprocess.Popen([COMMAND, "deploy"], cwd=installed.clone, stdout=quiet):
        wait_for(installed.live)
        said = installed.command("status").stdout
    assert re.search(r"^a deploy is going on: deploy \(pid \d+, for \d+ s\)$", said, re.M)


def test_status_shows_a_guest_that_is_being_checked(installed: Site) -> None:
    installed.args = ["--delay=1500"]
    installed.publish()
    installed.pull_unhooked()
    quiet = subprocess.DEVNULL
    with subprocess.Popen([COMMAND, "deploy"], cwd=installed.clone, stdout=quiet):
        wait_for(installed.live)
        health = www(installed)["health"]
    assert health == "checking"


def test_status_has_these_keys(deployed: Site) -> None:
    assert list(status(deployed)) == [*STATUS_KEYS, "guests"]


def test_status_shows_no_pause_where_there_is_none(deployed: Site) -> None:
    assert status(deployed)["paused"] is None
    assert "paused" not in deployed.command("status").stdout


def test_status_shows_a_pause(deployed: Site) -> None:
    deployed.command("pause", "moving the disks")
    paused = status(deployed)["paused"]
    assert (list(paused), paused["why"]) == (["why", "since", "by"], "moving the disks")
    assert MOMENT.fullmatch(paused["since"])
    assert (
        f"\npaused since {paused['since']} by {paused['by']}: moving the disks; "
        "`mirage-hooks resume` ends that\n"
    ) in deployed.command("status").stdout


def test_status_has_these_keys_for_a_guest_that_runs(deployed: Site) -> None:
    assert list(www(deployed)) == GUEST_KEYS


def test_status_has_the_same_keys_for_a_guest_that_does_not_run(installed: Site) -> None:
    assert list(www(installed)) == GUEST_KEYS


# history.


def test_history_lists_the_newest_first(twice: Site) -> None:
    assert [one["generation"] for one in history(twice)] == [2, 1]


def test_history_says_how_generations_ended(twice: Site) -> None:
    assert [(one["outcome"], one["reason"]) for one in history(twice)] == [
        ("healthy", f"http http://127.0.0.1:{twice.port}/"),
        ("ended", "replaced by generation 2"),
    ]


def test_history_says_what_booted_a_generation(twice: Site) -> None:
    assert [one["origin"] for one in history(twice)] == ["pull", "deploy"]


def test_history_says_why_a_generation_failed(failed: Site) -> None:
    _, second, _ = history(failed)
    assert (second["outcome"], second["reason"]) == ("failed", "the guest exited with 3")


def test_history_says_what_was_observed_of_the_network(deployed: Site) -> None:
    assert history(deployed)[0]["observed"] == [f"tcp 127.0.0.1:{deployed.port}"]


def test_history_says_that_a_guest_was_stopped_by_hand(deployed: Site) -> None:
    deployed.command("stop", "www")
    assert history(deployed)[0]["reason"] == "held by hand"


def test_history_lists_no_more_than_asked_for(twice: Site) -> None:
    assert [one["generation"] for one in history(twice, "-n", "1")] == [2]


def test_history_is_a_table(twice: Site) -> None:
    lines = twice.command("history").stdout.splitlines()
    assert [lines[0].split()[:2], *(line.split()[:2] for line in lines[1:])] == [
        ["GUEST", "GENERATION"],
        ["www", "2"],
        ["www", "1"],
    ]


def test_history_lists_only_the_guests_that_are_named(site: Site) -> None:
    args = f'["--ipv4=127.0.0.1/8", "--port={free_port()}"]'
    image = 'image = "unix/{latest}/www.unix"'
    check = 'check.alive = "100ms"'
    site.tables = f'[guest.dns]\ntarget = "unix"\n{image}\nargs = {args}\n{check}\n'
    site.publish()
    site.pull()
    site.install("--deploy")
    assert [one["guest"] for one in history(site, "dns")] == ["dns"]


def test_history_without_generations_is_empty(installed: Site) -> None:
    assert history(installed) == []


def test_history_has_these_keys(deployed: Site) -> None:
    assert list(history(deployed)[0]) == HISTORY_KEYS


@pytest.mark.parametrize("command", ["history", "logs"])
def test_what_is_said_of_an_unknown_guest_ends_with_3(deployed: Site, command: str) -> None:
    done = deployed.command(command, "wwww", check=False)
    assert (done.returncode, done.stderr) == (
        3,
        "mirage-hooks: no guest 'wwww' was ever booted here\n  these were: www\n",
    )


@pytest.mark.parametrize("command", ["status", "history", "logs"])
def test_without_an_installation_there_is_nothing_to_show(site: Site, command: str) -> None:
    done = site.command(command, check=False)
    assert (done.returncode, "run: mirage-hooks install" in done.stderr) == (4, True)


@pytest.mark.parametrize("arguments", [("history", "-n", "0"), ("logs", "--generation", "0")])
def test_numbers_start_at_one(deployed: Site, arguments: tuple[str, ...]) -> None:
    assert deployed.command(*arguments, check=False).returncode == 2


# logs.


def test_logs_of_a_guest_show_its_console_with_dates(deployed: Site) -> None:
    said = deployed.command("logs", "www").stdout
    line = rf"\d\d\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\dZ .*127\.0\.0\.1:{deployed.port}"
    assert re.search(f"^{line}$", said, re.M)


def test_logs_show_no_more_lines_than_asked_for(site: Site) -> None:
    site.args = ["--chatter=100"]
    site.publish()
    site.pull()
    site.install("--deploy")
    assert len(site.command("logs", "www", "-n", "7").stdout.splitlines()) == 7


def test_logs_show_the_newest_generation(failed: Site) -> None:
    assert f"127.0.0.1:{failed.port}" in failed.command("logs", "www").stdout


def test_logs_show_another_generation_by_its_number(failed: Site) -> None:
    assert "asked to exit" in failed.command("logs", "www", "--generation", "2").stdout


def test_logs_of_a_generation_that_never_was_end_with_3(deployed: Site) -> None:
    done = deployed.command("logs", "www", "--generation", "9", check=False)
    assert (done.returncode, "www has no generation 9" in done.stderr) == (3, True)


@pytest.mark.parametrize("words", [("logs", "dns"), ("history",), ("status",)])
def test_a_generation_that_was_not_recorded_any_more_is_passed_over(
    deployed: Site, words: tuple[str, ...]
) -> None:
    # As a converger leaves it that is killed after it took the number.
    deployed.state.next_number("dns")
    assert deployed.command(*words, check=False).returncode in {0, 3}


def test_logs_without_a_guest_show_what_deploys_did(deployed: Site) -> None:
    assert "www: generation 1 is healthy" in deployed.command("logs").stdout


def test_logs_of_deploys_are_dated(deployed: Site) -> None:
    lines = [line for line in deployed.command("logs").stdout.splitlines() if line[0] != " "]
    assert [line for line in lines if not MOMENT.match(line)] == []


def test_logs_of_deploys_as_json_have_an_event_a_line(deployed: Site) -> None:
    events = [json.loads(line) for line in deployed.command("logs", "--json").stdout.splitlines()]
    assert [
        event for event in events if not {"time", "event", "converge", "message"} <= set(event)
    ] == []


def test_logs_of_a_guest_as_json_are_json_or_refused(deployed: Site) -> None:
    done = deployed.command("logs", "www", "--json", check=False)
    if done.returncode != 2:
        assert [json.loads(line) for line in done.stdout.splitlines()] != []


def test_logs_obey_no_escape_sequence_of_a_guest(site: Site) -> None:
    site.check = 'alive = "200ms"'
    site.publish(image=b"#!/bin/sh\nprintf '\\033[2Jclear\\r\\n\\033]0;title\\007\\n'\nsleep 100\n")
    site.pull()
    site.install("--deploy")
    said = site.command("logs", "www").stdout
    assert ("clear" in said, "\x1b" in said, "\x07" in said) == (True, False, False)


# logs -f.


class Following:
    """`logs -f`, and what it printed so far."""

    def __init__(self, site: Site, *arguments: str) -> None:
        self.text = ""
        self._process = subprocess.Popen(
            # A background job of a shell, as which the tests may run, is born to ignore SIGINT.
            ["env", "--default-signal=INT", COMMAND, "logs", "-f", *arguments],
            cwd=site.clone,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.text += line

    def wait_for(self, text: str) -> None:
        """Wait until a text was printed."""
        wait_for(lambda: text in self.text)

    def interrupt(self) -> int:
        """Press Ctrl-C; return what it ends with."""
        self._process.send_signal(signal.SIGINT)
        code = self._process.wait(10)
        self._reader.join()
        return code

    def end(self) -> None:
        """End it however it stands."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def following(deployed: Site) -> Iterator[Following]:
    """`logs -f www` of a guest that runs, past what it printed before."""
    process = Following(deployed, "www")
    process.wait_for(f"127.0.0.1:{deployed.port}")
    yield process
    process.end()


def test_logs_go_on_with_the_next_generation(deployed: Site, following: Following) -> None:
    deployed.command("reboot", "www")
    following.wait_for("--- generation 2")


def test_logs_go_on_with_what_the_next_generation_prints(
    deployed: Site, following: Following
) -> None:
    deployed.args = ["--chatter=3"]
    deployed.publish()
    deployed.pull()
    following.wait_for(" 000002 0000")


def test_logs_go_on_to_the_last_words_of_a_guest(deployed: Site, following: Following) -> None:
    tender = deployed.monitor().tender
    assert tender is not None
    tender.kill(signal.SIGKILL)
    following.wait_for("[mirage-hooks: the guest was killed by SIGKILL]")


def test_logs_go_on_over_a_restart(deployed: Site, following: Following) -> None:
    tender = deployed.monitor().tender
    assert tender is not None
    tender.kill(signal.SIGKILL)
    wait_for(lambda: following.text.count(f"127.0.0.1:{deployed.port}") == 2)


# It prints five thousand lines in about four seconds.
TALKATIVE = b"""\
#!/bin/sh
i=0
while [ $i -lt 5000 ]; do
    echo line $i
    i=$((i + 1))
    [ $((i % 20)) != 0 ] || sleep 0.01
done
sleep 60
"""


def test_logs_lose_no_line_and_repeat_none_while_the_guest_talks(site: Site) -> None:
    site.check = 'alive = "100ms"'
    site.publish(image=TALKATIVE)
    site.pull()
    site.install("--deploy")
    process = Following(site, "www", "-n", "1000")
    try:
        wait_for(lambda: " line 4999\n" in process.text, 30)
    finally:
        process.end()
    numbers = [int(match) for match in re.findall(r" line (\d+)$", process.text, re.M)]
    assert numbers == list(range(numbers[0], 5000))


def test_logs_of_an_older_generation_stay_with_it(deployed: Site) -> None:
    process = Following(deployed, "www", "--generation", "1")
    process.wait_for(f"127.0.0.1:{deployed.port}")
    deployed.command("reboot", "www")
    process.end()
    assert "--- generation 2" not in process.text


def test_logs_of_deploys_go_on(deployed: Site) -> None:
    process = Following(deployed)
    process.wait_for("done: www runs as it should")
    deployed.publish("two")
    deployed.pull()
    process.wait_for("www: generation 2 is healthy")
    process.end()


def test_an_interrupted_following_ends_with_130(following: Following) -> None:
    assert following.interrupt() == 130


def test_an_interrupted_following_leaves_no_traceback(following: Following) -> None:
    following.interrupt()
    assert "Traceback" not in following.text


def test_the_end_of_the_following_is_not_the_end_of_the_guest(
    deployed: Site, following: Following
) -> None:
    following.interrupt()
    assert deployed.page() == "one"
