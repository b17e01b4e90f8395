"""Many who want something of one repository at once: one guest runs, and what is newest wins."""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirage_hooks.boot import lock
from mirage_hooks.boot.generation import Phase
from mirage_hooks.boot.record import State
from polling import events
from support import COMMAND, Site, wait_for

_AT_ONCE = 50
_SAMPLE_SECONDS = 0.005


def guests_of(state: State) -> set[int]:
    """Return the processes that execute an image of a state folder."""
    store = str(state.store.resolve())
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            executes = str((process / "exe").readlink())
        except OSError:  # it is gone, or a zombie
            continue
        if executes.startswith(store):
            found.add(int(process.name))
    return found


@contextmanager
def watched(state: State) -> Iterator[list[set[int]]]:
    """Yield where every moment goes at which more than one guest ran."""
    doubles: list[set[int]] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(_SAMPLE_SECONDS):
            # A look takes a while: those are two at once that both are there at a second one.
            if len(there := guests_of(state)) > 1 and len(there & guests_of(state)) > 1:
                doubles.append(there)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield doubles
    finally:
        over.set()
        thread.join()


def start(cwd: Path, *command: str | Path) -> "subprocess.Popen[str]":
    """Start a command, which nobody talks to."""
    return subprocess.Popen(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def mixed(site: Site, commits: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """Start pulls, pushes of ever newer commits, polls, and what is asked for by hand, in turn."""
    for commit in commits:
        yield start(site.clone, "git", "pull", "-q", "--ff-only")
        yield start(site.upstream, "git", "push", "-q", str(site.clone), f"{commit}:main")
        for words in (["poll"], ["reboot", "www"], ["rollback", "www"]):
            yield start(site.clone, COMMAND, *words)


def started(site: Site) -> int:
    """Return how many converges went to work."""
    return events(site).count("converge.started")


@pytest.mark.timeout(300)
def test_fifty_at_once_leave_one_guest_and_no_newest_state_is_lost(
    twice: Site, record_property: Callable[[str, object], None]
) -> None:
    before = started(twice)
    twice.git("config", "receive.denyCurrentBranch", "updateInstead")
    commits = [twice.publish(f"page {number}") for number in range(_AT_ONCE // 5)]
    with watched(twice.state) as doubles:
        at_work = list(mixed(twice, commits))
        said = [process.communicate(timeout=240)[0] for process in at_work]
    record_property(
        "faults",
        f"{len(at_work)} pulls, pushes, polls, reboots and rollbacks at once: "
        f"{started(twice) - before} converges, {len(doubles)} moments with two guests",
    )
    assert len(at_work) == _AT_ONCE
    assert doubles == []
    # What is asked for by hand is done, whoever else is at work. git may refuse a pull or a push,
    # and a poll's merge, while another one writes the work tree.
    by_hand = [number for number in range(_AT_ONCE) if number % 5 >= 3]
    assert [at_work[number].returncode for number in by_hand] == [0] * len(by_hand), said
    (action,) = json.loads(twice.command("plan", "--json").stdout)["actions"]
    assert action["verb"] == "keep", action
    assert twice.outcomes().count("healthy") == 1
    assert len(guests_of(twice.state)) == 1


def test_whoever_waits_converges_to_the_newest_state_once_and_not_once_each(twice: Site) -> None:
    before = started(twice)
    with lock.hold(twice.state.lock, "a test", lambda _: None):
        waiting = [start(twice.clone, COMMAND, "deploy") for _ in range(10)]
        wait_for(lambda: events(twice).count("converge.waiting") == 10, 60)
        twice.publish("three")
        twice.git("fetch", "-q")
        twice.git("-c", "core.hooksPath=/dev/null", "merge", "-q", "--ff-only", "FETCH_HEAD")
    said = [process.communicate(timeout=60)[0] for process in waiting]
    assert [process.returncode for process in waiting] == [0] * 10
    assert all(text.endswith("done: www runs as it should\n") for text in said)
    assert started(twice) == before + 1
    assert twice.page() == "three"


def test_who_waited_is_told_of_a_failure_as_if_it_were_their_own(twice: Site) -> None:
    with lock.hold(twice.state.lock, "a test", lambda _: None):
        waiting = [start(twice.clone, COMMAND, "deploy") for _ in range(2)]
        wait_for(lambda: events(twice).count("converge.waiting") == 2, 60)
        twice.args = ["--exit=3"]
        twice.publish()
        twice.git("fetch", "-q")
        twice.git("-c", "core.hooksPath=/dev/null", "merge", "-q", "--ff-only", "FETCH_HEAD")
    said = [process.communicate(timeout=60)[0] for process in waiting]
    assert [process.returncode for process in waiting] == [1, 1], said
    assert all("exited with 3" in text for text in said)
    assert [one.phase for one in twice.state.generations("www")].count(Phase.FAILED) == 1


def test_a_restart_by_hand_is_not_taken_for_done_by_a_deploy(twice: Site) -> None:
    with lock.hold(twice.state.lock, "a test", lambda _: None):
        waiting = [start(twice.clone, COMMAND, *words) for words in (["deploy"], ["reboot"])]
        wait_for(lambda: events(twice).count("converge.waiting") == 2, 60)
    for process in waiting:
        process.communicate(timeout=60)
    assert twice.outcomes() == ["ended", "ended", "healthy"]


@pytest.mark.parametrize("words", [["status"], ["history"], ["logs"], ["plan"], ["doctor"]])
def test_a_reader_never_waits_for_a_deploy(deployed: Site, words: list[str]) -> None:
    with lock.hold(deployed.state.lock, "a test", lambda _: None):
        assert deployed.command(*words).returncode == 0
