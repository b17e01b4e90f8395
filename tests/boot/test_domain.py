"""The tender of a Xen domain, with a stand-in for xl: what it makes, says, and ends with."""

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import stand_in_xen
import stand_in_xl
from mirage_hooks.boot import control
from mirage_hooks.boot.order import Order
from mirage_hooks.boot.xl import Xl, kill, parse_list
from stand_in_xen import Folder
from support import free_port, get, wait_for

IDENTITY = str(uuid.UUID(int=7))


class Tended:
    """A domain's tender as a monitor has it: started, let go by a byte, and ended by a signal."""

    def __init__(self, order: Order) -> None:
        self.go, theirs = socket.socketpair()
        self.go.settimeout(10)

        def hand_over() -> None:
            os.dup2(theirs.fileno(), control.TRIGGER)

        self.process = subprocess.Popen(
            [sys.executable, "-I", "-m", "mirage_hooks.boot.domain", order.argument],
            stdout=subprocess.PIPE,
            text=True,
            close_fds=False,
            preexec_fn=hand_over,  # noqa: PLW1509 - there are no threads
        )
        theirs.close()

    def is_armed(self) -> bool:
        """Wait until it says so, or ends."""
        return self.go.recv(1) == b"+"

    def let_go(self) -> None:
        """Have the guest run."""
        assert self.is_armed()
        self.go.send(b"!")

    def ends(self) -> tuple[int, str]:
        """Wait for its end; return its exit code, and all that it printed."""
        said, _ = self.process.communicate(timeout=20)
        self.go.close()
        return self.process.returncode, said


@pytest.fixture
def xen(tmp_path: Path) -> Iterator[Xl]:
    """A stand-in for xl, in a folder of its own, whose domains end with the test."""
    folder = tmp_path / "xen"
    folder.mkdir()
    xl = stand_in_xl.installed(folder)
    yield Xl([str(xl)])
    stand_in_xl.leave(folder)


@pytest.fixture
def order(xen: Xl, tmp_path: Path, compiled: Callable[[str], Path]) -> Order:
    """The order for a domain that serves a page."""
    port = free_port()
    config = (
        f'name = "www.7"\nuuid = "{IDENTITY}"\nkernel = "{compiled("one")}"\nmemory = 32\n'
        f'extra = "ipv4=127.0.0.1/8 port={port}"\non_crash = "destroy"\non_poweroff = "destroy"\n'
    )
    file = str(tmp_path / "domain.cfg")
    return Order(list(xen.command), "www", "www.7", IDENTITY, file, config, 32)


def port_of(order: Order) -> int:
    return int(order.config.partition("port=")[2].partition('"')[0])


@pytest.fixture
def tend() -> Iterator[Callable[[Order], Tended]]:
    """What starts a tender; none outlives the test."""
    started: list[Tended] = []

    def start(order: Order) -> Tended:
        started.append(Tended(order))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


Tend = Callable[[Order], Tended]


def names(xen: Xl) -> dict[str, str]:
    """Return the state of each domain by its name."""
    return {one.name: one.state for one in xen.domains()}


def test_an_armed_domain_is_there_and_paused(xen: Xl, order: Order, tend: Tend) -> None:
    assert tend(order).is_armed()
    assert names(xen) == {"www.7": "--p---"}


def test_a_domain_that_was_let_go_runs_by_the_guests_name(
    xen: Xl, order: Order, tend: Tend
) -> None:
    tend(order).let_go()
    wait_for(lambda: get(port_of(order)) == "one")
    wait_for(lambda: "www" in names(xen))


def test_what_a_domain_prints_is_on_the_tenders_output(order: Order, tend: Tend) -> None:
    tender = tend(order)
    tender.let_go()
    wait_for(lambda: get(port_of(order)))
    tender.process.terminate()
    assert "listening" in tender.ends()[1]


def test_a_domain_is_gone_once_its_tender_was_asked_to_end(
    xen: Xl, order: Order, tend: Tend
) -> None:
    tender = tend(order)
    tender.let_go()
    wait_for(lambda: get(port_of(order)))
    tender.process.terminate()
    assert tender.ends()[0] == 0
    assert names(xen) == {}


def test_a_domain_that_is_not_let_go_is_taken_away(xen: Xl, order: Order, tend: Tend) -> None:
    tender = tend(order)
    assert tender.is_armed()
    tender.go.close()
    assert tender.ends()[0] == 0
    assert names(xen) == {}


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGSEGV, 85), (signal.SIGKILL, 85)])
def test_a_domain_that_crashes_is_said_to_have(
    xen: Xl, order: Order, tend: Tend, sign: int, code: int
) -> None:
    tender = tend(order)
    tender.let_go()
    wait_for(lambda: get(port_of(order)))
    os.kill(Folder(Path(xen.command[0]).parent).now().domains[0].guest, sign)
    assert tender.ends()[0] == code
    assert names(xen) == {}


def test_a_domain_that_somebody_else_destroys_is_said_to_be(
    xen: Xl, order: Order, tend: Tend
) -> None:
    tender = tend(order)
    tender.let_go()
    wait_for(lambda: "www" in names(xen))
    xen.run(("destroy", "www"))
    assert tender.ends()[0] == 87


def test_what_a_killed_tender_left_is_made_anew(xen: Xl, order: Order, tend: Tend) -> None:
    first = tend(order)
    first.let_go()
    wait_for(lambda: "www" in names(xen))
    first.process.kill()
    first.ends()
    second = tend(order)
    second.let_go()
    wait_for(lambda: get(port_of(order)) == "one")
    assert len(xen.domains()) == 1


def test_a_domain_that_cannot_be_made_ends_the_tender_with_xls_reason(
    xen: Xl, order: Order, tend: Tend
) -> None:
    tender = tend(replace(order, config=order.config.replace("kernel = ", 'kernel = "/no" #')))
    assert not tender.is_armed()
    code, said = tender.ends()
    assert code == 84
    assert "xl create ended with 3: failed to open file '/no': No such file" in said


def test_a_domain_for_which_there_is_no_memory_yet_is_made_when_it_is_let_go(
    xen: Xl, order: Order, tend: Tend
) -> None:
    config = order.config.replace("www.7", "big").replace("memory = 32", "memory = 2580")
    config = config.replace(IDENTITY, theirs := str(uuid.UUID(int=8)))
    other = tend(replace(order, uuid=theirs, config=config))
    assert other.is_armed()
    tender = tend(order)
    assert tender.is_armed()
    assert "www.7" not in names(xen)
    other.go.close()
    other.ends()
    tender.go.send(b"!")
    wait_for(lambda: get(port_of(order)) == "one")


def beside(order: Order, number: int, memory: int) -> Order:
    """Return the order for another domain, of another guest."""
    changes = {
        IDENTITY: str(uuid.UUID(int=number)),
        "www.7": f"big.{number}",
        "memory = 32": f"memory = {memory}",
        f"port={port_of(order)}": f"port={free_port()}",
    }
    config = order.config
    for old, new in changes.items():
        config = config.replace(old, new)
    file = f"{order.file}.{number}"
    return Order(order.xl, "big", f"big.{number}", changes[IDENTITY], file, config, memory)


def test_of_two_domains_that_are_armed_at_once_one_waits_where_there_is_memory_for_one(
    xen: Xl, order: Order, tend: Tend
) -> None:
    stand_in_xl.fail(Path(xen.command[0]).parent, create={"seconds": 2})
    orders = {f"big.{number}": beside(order, number, 1500) for number in (8, 9)}
    tenders = {name: tend(each) for name, each in orders.items()}
    assert [one.is_armed() for one in tenders.values()] == [True, True]
    [first] = names(xen)
    [second] = orders.keys() - {first}
    tenders[first].go.close()
    tenders[first].ends()
    tenders[second].go.send(b"!")
    wait_for(lambda: get(port_of(orders[second])) == "one", 20)


def test_memory_that_another_guests_domain_is_about_to_give_back_is_waited_for(
    xen: Xl, order: Order, tend: Tend
) -> None:
    one, other = (beside(order, number, 1500) for number in (8, 9))
    ending = tend(one)
    assert ending.is_armed()
    tender = tend(other)
    assert tender.is_armed()
    stand_in_xl.fail(Path(xen.command[0]).parent, destroy={"seconds": 2})
    ending.go.close()
    tender.go.send(b"!")
    wait_for(lambda: get(port_of(other)) == "one", 20)


def test_memory_that_nobody_gives_back_is_not_waited_for(order: Order, tend: Tend) -> None:
    tender = tend(replace(order, memory=9000, config=order.config.replace("= 32", "= 9000")))
    tender.let_go()
    began = time.monotonic()
    code, said = tender.ends()
    assert (code, "Cannot allocate memory" in said or "Out of memory" in said) == (84, True), said
    assert time.monotonic() - began < 5


def test_a_tender_says_that_its_guest_runs_once_it_does(xen: Xl, order: Order, tend: Tend) -> None:
    tender = tend(replace(order, alone=True))
    tender.let_go()
    assert tender.go.recv(1) == control.PREPARED
    assert tender.go.recv(1) == control.RUNS
    assert "p" not in "".join(names(xen).values())


def test_somebody_elses_domain_ends_for_one_that_replaces_it(
    xen: Xl, order: Order, tend: Tend, tmp_path: Path, compiled: Callable[[str], Path]
) -> None:
    theirs = str(uuid.UUID(int=9))
    file = tmp_path / "theirs.cfg"
    file.write_text(f'name = "www"\nuuid = "{theirs}"\nkernel = "{compiled("one")}"\nmemory = 32\n')
    xen.run(("create", "-p", str(file)))
    tend(replace(order, adopts=[theirs])).let_go()
    wait_for(lambda: [one.uuid for one in xen.domains() if one.name == "www"] == [IDENTITY])


def test_a_domain_that_cannot_be_there_beside_its_successor_ends_before_that_is_made(
    xen: Xl, order: Order, tend: Tend
) -> None:
    other = beside(order, 8, 32)
    Path(other.file).write_text(other.config)
    xen.run(("create", other.file))
    broken = order.config.replace("kernel = ", 'kernel = "/no" #')
    tender = tend(replace(order, config=broken, alone=True, adopts=[other.uuid]))
    tender.let_go()
    assert (tender.ends()[0], names(xen)) == (84, {})


def test_a_domain_that_cannot_be_adopted_runs_on_though_its_pause_took_effect(
    xen: Xl, order: Order, tend: Tend, tmp_path: Path
) -> None:
    theirs = [beside(order, number, 32) for number in (8, 9)]
    for each in theirs:
        Path(each.file).write_text(each.config)
        xen.run(("create", each.file))
    failing = tmp_path / "xl"
    failing.write_text(f'#!/bin/sh\n{xen.command[0]} "$@" && [ "$1" != pause ]\n')
    failing.chmod(0o755)
    tender = tend(replace(order, xl=[str(failing)], adopts=[each.uuid for each in theirs]))
    tender.let_go()
    assert tender.ends()[0] == 84
    assert names(xen) == {"big.8": "-b----", "big.9": "-b----"}


def test_a_domain_that_makes_way_is_left_paused_and_ends_for_the_next_one(
    xen: Xl, order: Order, tend: Tend
) -> None:
    first = tend(order)
    first.let_go()
    wait_for(lambda: "www" in names(xen))
    other = str(uuid.UUID(int=8))
    config = order.config.replace(IDENTITY, other).replace("www.7", "www.8")
    config = config.replace(str(port_of(order)), str(port := free_port()))
    second = tend(replace(order, uuid=other, config=config, temporary="www.8", replaces=[IDENTITY]))
    assert second.is_armed()
    first.process.send_signal(control.MAKE_WAY)
    assert first.ends()[0] == 0
    assert names(xen) == {"www": "--p---", "www.8": "--p---"}
    second.go.send(b"!")
    wait_for(lambda: get(port) == "one")
    wait_for(lambda: list(names(xen)) == ["www"])


def make_way(tender: Tended) -> None:
    tender.process.send_signal(control.MAKE_WAY)
    assert tender.ends()[0] == 0


def test_a_guest_that_says_that_it_heeds_a_shutdown_is_asked_to_end(
    xen: Xl, order: Order, tend: Tend
) -> None:
    heeding = order.config.replace("port=", f"{stand_in_xen.OBEDIENT} port=")
    tender = tend(replace(order, config=heeding))
    tender.let_go()
    wait_for(lambda: get(port_of(order)) and "www" in names(xen))
    make_way(tender)
    assert names(xen) == {}


def test_a_guest_that_does_not_say_so_is_not_asked(xen: Xl, order: Order, tend: Tend) -> None:
    heeding = order.config.replace("port=", f"{stand_in_xen.OBEDIENT} port=")
    tender = tend(replace(order, config=heeding))
    tender.let_go()
    wait_for(lambda: get(port_of(order)) and "www" in names(xen))
    with Folder(Path(xen.command[0]).parent).changing() as changed:
        changed.store["/local/domain/1/control/feature-poweroff"] = ""
    make_way(tender)
    assert names(xen) == {"www": "--p---"}


def test_a_guest_is_asked_where_nobody_may_read_xenstore(xen: Xl, order: Order, tend: Tend) -> None:
    tend(order).let_go()
    folder = Path(xen.command[0]).parent
    assert not xen.heeds(1)
    stand_in_xl.fail(folder, xenstore_read={"code": 1, "says": "sudo: a password is required"})
    assert xen.heeds(1)


def half_made(xen: Xl, order: Order, tend: Tend) -> Tended:
    """Return a tender whose domain is half made, and stays so."""
    stand_in_xl.fail(Path(xen.command[0]).parent, create={"midway": 60})
    tender = tend(order)
    wait_for(lambda: names(xen) == {"www.7": "--p---"})
    return tender


def test_a_tender_that_is_asked_to_end_leaves_no_half_made_domain(
    xen: Xl, order: Order, tend: Tend
) -> None:
    tender = half_made(xen, order, tend)
    tender.process.terminate()
    assert tender.ends()[0] == 0
    assert names(xen) == {}


def test_a_half_made_domain_that_a_killed_tender_left_is_made_anew(
    xen: Xl, order: Order, tend: Tend
) -> None:
    first = half_made(xen, order, tend)
    first.process.kill()
    first.ends()
    stand_in_xl.fail(Path(xen.command[0]).parent)
    tend(order).let_go()
    wait_for(lambda: get(port_of(order)) == "one")
    assert len(xen.domains()) == 1


def test_every_domain_of_one_uuid_ends(xen: Xl, order: Order) -> None:
    for number in range(4):
        file = Path(order.file)
        file.write_text(order.config.replace("www.7", f"www.{number}"))
        xen.run(("create", "-p", "-q", str(file)))
    xen.end(IDENTITY)
    assert names(xen) == {}


def test_a_domain_that_is_dying_is_none_any_more() -> None:
    line = f"(null)  3  0  1  --p--d  0.1 {IDENTITY}  -  -\n"
    assert (parse_list(line), len(parse_list(line.replace("d ", "- ")))) == ([], 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="root starts what another user may not kill")
def test_what_runs_as_somebody_else_is_not_waited_for(tmp_path: Path) -> None:
    program = tmp_path / "slow"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    process = Xl([str(program)]).start((), None, None)
    if (child := os.fork()) == 0:
        try:
            os.setuid(65534)
            began = time.monotonic()
            kill(process)
            os._exit(time.monotonic() - began > 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert process.poll() is None
    kill(process)
    assert process.poll() == -signal.SIGKILL


def test_an_xl_that_hangs_is_killed(xen: Xl) -> None:
    stand_in_xl.fail(Path(xen.command[0]).parent, info={"seconds": 60})
    with pytest.raises(Exception, match=r"xl info: no answer within 0\.2 s"):
        xen.run(("info",), 0.2)


def test_a_tender_takes_little_memory(order: Order, tend: Tend) -> None:
    tender = tend(order)
    assert tender.is_armed()
    lines = Path(f"/proc/{tender.process.pid}/smaps_rollup").read_text().splitlines()
    private = sum(int(line.split()[1]) for line in lines if line.startswith("Private"))
    assert private < 12 << 10
