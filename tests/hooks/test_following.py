"""Who follows a deploy, and what ends the following: never the deploy."""

import os
import signal
import subprocess
import threading
import time

from mirage_hooks.boot import lock
from mirage_hooks.boot.process import identify
from polling import events
from support import Site, monitors_of, run, wait_for


def start_pull(site: Site) -> "subprocess.Popen[str]":
    """Start a pull in a process group of its own, as a terminal would."""
    return subprocess.Popen(
        ["git", "pull"],
        cwd=site.clone,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def slow_start(site: Site) -> None:
    """Publish a guest that opens its port after a second."""
    site.args.append("--delay=1000")
    site.publish("two")


def test_ctrl_c_ends_the_following_and_not_the_deploy(deployed: Site) -> None:
    slow_start(deployed)
    pull = start_pull(deployed)
    wait_for(lambda: len(deployed.outcomes()) == 2)
    os.killpg(pull.pid, signal.SIGINT)
    _, stderr = pull.communicate(timeout=10)
    assert "the deploy goes on" in stderr
    assert "Traceback" not in stderr
    wait_for(lambda: deployed.outcomes() == ["ended", "healthy"])
    assert deployed.page() == "two"


def test_a_terminal_that_is_gone_ends_the_following_and_not_the_deploy(deployed: Site) -> None:
    slow_start(deployed)
    pull = start_pull(deployed)
    wait_for(lambda: len(deployed.outcomes()) == 2)
    os.killpg(pull.pid, signal.SIGHUP)
    pull.communicate(timeout=10)
    wait_for(lambda: deployed.outcomes() == ["ended", "healthy"])
    assert deployed.page() == "two"


def test_a_captured_pull_ends_with_its_deploy_and_not_with_the_guest(deployed: Site) -> None:
    deployed.publish("two")
    began = time.monotonic()
    captured = run("sh", "-c", "git pull 2>&1 | cat", cwd=deployed.clone)
    assert time.monotonic() - began < 10
    assert "done: www runs as it should" in captured.stdout
    assert deployed.page() == "two"


def test_two_pulls_at_once_boot_the_new_image_once(deployed: Site) -> None:
    deployed.publish("two")
    pulls = [start_pull(deployed) for _ in range(2)]
    for pull in pulls:
        pull.communicate(timeout=30)
    # git itself may have failed both: each truncates the FETCH_HEAD that the other reads.
    deployed.pull()
    assert deployed.page() == "two"
    assert deployed.outcomes() == ["ended", "healthy"]
    assert len(monitors_of(deployed.state)) == 1


def test_converges_that_wait_for_one_another_boot_the_new_image_once(deployed: Site) -> None:
    deployed.git("config", "core.hooksPath", "/nonexistent")
    deployed.publish("two")
    deployed.pull()
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(deployed.command("deploy")))
        for _ in range(4)
    ]
    with lock.hold(deployed.state.lock, "a test", lambda _: None):
        for thread in threads:
            thread.start()
        wait_for(lambda: events(deployed).count("converge.waiting") == 4, 60)
    for thread in threads:
        thread.join()
    assert [done.returncode for done in results] == [0] * 4
    assert deployed.outcomes() == ["ended", "healthy"]
    assert all("waiting for a test (pid" in done.stdout for done in results)


def test_a_killed_converger_is_said_and_the_next_pull_goes_on(deployed: Site) -> None:
    slow_start(deployed)
    pull = start_pull(deployed)
    wait_for(deployed.booting)
    converger = int(deployed.state.lock.read_text().partition('"pid": ')[2].partition(",")[0])
    identify(converger).kill()
    _, stderr = pull.communicate(timeout=10)
    assert pull.returncode == 0
    assert "was killed before it had finished" in stderr
    (deployed.upstream / "README").write_text("words\n")
    deployed.commit("words only")
    deployed.pull()
    assert deployed.page() == "two"
    assert deployed.outcomes() == ["ended", "healthy"]
