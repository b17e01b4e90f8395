"""What a host does to what runs on it: stops processes, sets its clock, reuses pids, goes down."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faulty import FULL, QUICK, Faulty, untrue, wrong_with
from mirage_hooks.boot import control, process
from mirage_hooks.boot.process import ProcessId, identify
from mounts import cover
from networked import NetSite, on
from support import Site, wait_for

YEAR = 365 * 86400.0
OTHER_BOOT = "00000000-0000-4000-8000-000000000000"
slow = pytest.mark.skipif(not FULL, reason="waits for patience to end: make test-faults")


# Processes that are stopped.


def halt(site: Site, kind: str) -> ProcessId:
    """Stop the monitor, or the tender, of what runs, as a debugger or the host's freezer does."""
    monitor = site.monitor()
    found = monitor.monitor if kind == "monitor" else monitor.tender
    assert found is not None
    found.kill(signal.SIGSTOP)
    return found


@slow
@pytest.mark.parametrize("kind", ["monitor", "tender"])
def test_what_is_stopped_is_replaced(
    frail: Faulty, publish: Callable[[str], None], kind: str
) -> None:
    stopped = halt(frail.site, kind)
    publish("two")
    assert frail.converge() == 0, frail.said()
    assert not stopped.alive
    # A monitor that could not end has left its last word as it was: the new one killed it.
    halted = {"generation 1 was not replaced: its monitor was killed"}
    assert set(wrong_with(frail, "two")) <= (halted if kind == "monitor" else set())
    assert frail.site.outcomes() == ["ended", "healthy"]


@slow
@pytest.mark.parametrize("kind", ["monitor", "tender"])
def test_what_is_stopped_can_be_stopped_for_good(frail: Faulty, kind: str) -> None:
    stopped = halt(frail.site, kind)
    assert frail.converge("stop", guests=["www"]) == 0
    assert not stopped.alive
    assert frail.site.live() is None
    assert frail.page() is None


def test_the_status_does_not_wait_for_a_monitor_that_is_stopped(frail: Faulty) -> None:
    stopped = halt(frail.site, "monitor")
    try:
        shown = json.loads(frail.site.command("status", "--json").stdout)
    finally:
        stopped.kill(signal.SIGCONT)
    assert [guest["health"] for guest in shown["guests"]] == ["healthy"]


# A clock that is set.


@pytest.mark.parametrize("jump", [YEAR, -YEAR], ids=["forwards", "back"])
def test_a_clock_that_is_set_between_deploys_changes_nothing(
    frail: Faulty, publish: Callable[[str], None], jump: float
) -> None:
    for page, clock in (("two", jump), ("one", 0.0)):
        frail.plan(clock=clock)
        publish(page)
        assert frail.converge() == 0, frail.said()
        assert wrong_with(frail, page) == []
    assert frail.site.outcomes() == ["ended", "ended", "healthy"]


@pytest.mark.parametrize("jump", [YEAR, -YEAR], ids=["forwards", "back"])
def test_a_clock_that_is_set_during_a_check_fails_no_guest(
    frail: Faulty, publish: Callable[[str], None], jump: float
) -> None:
    publish("two")
    frail.plan(step="after event guest.fired of +1", victim="clock", clock=0.0, jump=jump)
    assert frail.converge() == 0, frail.said()
    assert frail.take("struck") == ["clock"]
    assert wrong_with(frail, "two") == []


def test_convergers_of_a_time_to_come_do_not_cost_the_present_its_log(frail: Faulty) -> None:
    frail.site.command("deploy")
    for number in range(60):
        (frail.site.state.runs / f"29990101T000000-{number}.jsonl").touch()
    deploy = frail.site.command("deploy")
    assert "www runs as it should" in deploy.stdout
    assert len(list(frail.site.state.runs.iterdir())) <= 51


# Pids that somebody else has by now.


@pytest.fixture
def foreign() -> Iterator[subprocess.Popen[bytes]]:
    """A process of somebody else's."""
    with subprocess.Popen(["sleep", "300"]) as started:
        yield started
        started.kill()


@pytest.mark.parametrize("verb", ["deploy", "stop", "reboot"])
def test_who_has_the_pid_of_a_dead_monitor_is_never_signalled(
    frail: Faulty, foreign: subprocess.Popen[bytes], verb: str
) -> None:
    live = frail.site.live()
    assert live is not None
    monitor = frail.site.monitor()
    assert monitor.tender is not None
    monitor.monitor.kill()
    assert monitor.tender.wait_gone(5)
    path = frail.site.state.generation_folder("www", live.number) / control.STATE
    raw = json.loads(path.read_bytes())
    for kind in ("monitor", "tender"):
        raw[kind] |= {"pid": foreign.pid, "start": identify(foreign.pid).start - 1}
    path.write_text(json.dumps(raw))
    frail.converge(verb, guests=[] if verb == "deploy" else ["www"])
    assert foreign.poll() is None
    assert list(untrue(frail.site.state)) == []


# A host that goes down.


@pytest.fixture
def kernel(mounts: None, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Return a function that makes it another boot of the kernel, as far as one can see its id."""
    del mounts
    told = Path("/proc/sys/kernel/random/boot_id")
    told_instead = tmp_path / "boot_id"
    told_instead.write_text(told.read_text())
    cover(told, told_instead)

    def another() -> None:
        told_instead.write_text(f"{OTHER_BOOT}\n")
        process.boot_id.cache_clear()

    yield another
    process.boot_id.cache_clear()


@pytest.fixture
def machine(kernel: Callable[[], None], net: NetSite, tmp_path: Path) -> Iterator[Faulty]:
    """A clone on a host of its own, whose kernel can be booted."""
    del kernel
    made = Faulty(net, tmp_path / "faulty", net.host.inside)
    net.check = QUICK
    net.publish()
    net.pull()
    with made.serving():
        assert made.converge() == 0
        yield made


def go_down(faulty: Faulty, another: Callable[[], None]) -> None:
    """Take away what a host that goes down takes along."""
    net = faulty.site
    assert isinstance(net, NetSite)
    for pid in net.host.pids:
        if pid != faulty.forker:
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: net.host.pids == [faulty.forker])
    for tap in faulty.taps():
        net.host.run("ip", "link", "delete", tap)
    shutil.rmtree(Path(os.environ["XDG_RUNTIME_DIR"], "mirage-hooks"))
    another()


@on("unix")
def test_after_a_reboot_of_the_host_what_ran_comes_back(
    machine: Faulty, kernel: Callable[[], None]
) -> None:
    go_down(machine, kernel)
    assert machine.converge() == 0, machine.said()
    assert wrong_with(machine, "one") == []
    first = machine.site.state.generations("www")[0]
    assert (first.phase, first.reason) == ("ended", "the host went down")


@on("unix")
def test_after_a_reboot_of_the_host_what_is_held_stays_down(
    machine: Faulty, kernel: Callable[[], None]
) -> None:
    machine.converge("stop", guests=["www"])
    go_down(machine, kernel)
    assert machine.converge() == 0, machine.said()
    assert machine.site.live() is None
    assert machine.page() is None


@on("unix")
def test_a_process_that_has_pid_and_start_of_one_before_the_reboot_is_never_signalled(
    machine: Faulty, kernel: Callable[[], None], foreign: subprocess.Popen[bytes]
) -> None:
    live = machine.site.live()
    assert live is not None
    go_down(machine, kernel)
    path = machine.site.state.generation_folder("www", live.number) / control.STATE
    raw = json.loads(path.read_bytes())
    for kind in ("monitor", "tender"):
        raw[kind] |= {"pid": foreign.pid, "start": identify(foreign.pid).start}
    path.write_text(json.dumps(raw))
    assert machine.converge() == 0, machine.said()
    assert foreign.poll() is None
    assert wrong_with(machine, "one") == []
