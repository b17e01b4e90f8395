"""The `ping` check, over a real tap: who answers, and what is missing where nobody does."""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from mirage_hooks.boot.frames import Arp, Echo, Neighbour, link_local
from namespace import Namespace, network_namespace
from stand_in_guest import GUEST_MAC, StandInGuest

TAP, BRIDGE = "tap0", "br0"
ADDRESS, ADDRESS6 = "10.0.0.2", "fd00::2"
BOTH = ("owner", "echo")

# In a process of its own: whose bridge a link is a port of, /sys tells for the namespace that it
# was mounted in.
PING = """
import json, os, sys
from mirage_hooks.boot.errors import HostError
from mirage_hooks.boot.ping import ping
link, mac, address, seconds, user = sys.argv[1:]
os.setuid(int(user))
try:
    print(json.dumps(ping(link, mac or None, address, float(seconds))))
except HostError as error:
    print(json.dumps(f"HostError: {error.message}"))
"""


def ping(
    namespace: Namespace,
    address: str = ADDRESS,
    mac: str = GUEST_MAC,
    seconds: float = 2.0,
    link: str = TAP,
    user: int = 0,
) -> str | None:
    """Return what `ping` says in a namespace."""
    command = [sys.executable, "-c", PING, link, mac, address, str(seconds), str(user)]
    said = json.loads(namespace.run(*command).stdout)
    assert said is None or isinstance(said, str)
    return said


@pytest.fixture
def bridged(namespace: Namespace) -> Namespace:
    """A namespace with a tap that is a port of a bridge with addresses in the guest's subnets."""
    namespace.bridge(BRIDGE, "10.0.0.1/24", "fd00::1/64")
    namespace.tap(TAP, BRIDGE)
    return namespace


@pytest.fixture
def unaddressed(namespace: Namespace) -> Namespace:
    """A namespace with a tap that is a port of a bridge without any address."""
    namespace.bridge(BRIDGE)
    namespace.run("ip", "link", "set", BRIDGE, "addrgenmode", "none")
    namespace.run("ip", "address", "flush", "dev", BRIDGE)
    namespace.tap(TAP, BRIDGE)
    return namespace


@pytest.fixture
def start(namespace: Namespace) -> Iterator[Callable[..., StandInGuest]]:
    """Return a function that starts a guest on the tap."""
    guests = []

    def started(address: str, answers: tuple[str, ...] = BOTH) -> StandInGuest:
        guests.append(StandInGuest(namespace, TAP, address, answers=answers))
        return guests[-1]

    yield started
    for guest in guests:
        guest.end()


Start = Callable[..., StandInGuest]


@pytest.mark.parametrize("address", [ADDRESS, ADDRESS6])
def test_a_guest_that_answers_is_healthy(bridged: Namespace, start: Start, address: str) -> None:
    start(address)
    assert ping(bridged, address) is None


@pytest.mark.parametrize("address", [ADDRESS, ADDRESS6])
def test_a_guest_that_is_a_linux_of_its_own_answers(bridged: Namespace, address: str) -> None:
    with network_namespace() as other:
        peer = ["type", "veth", "peer", "name", "eth0", "address", GUEST_MAC]
        bridged.run("ip", "link", "add", "veth0", *peer, "netns", other.name)
        bridged.run("ip", "link", "set", "veth0", "master", BRIDGE, "up")
        for one in (f"{ADDRESS}/24", f"{ADDRESS6}/64"):
            other.run("ip", "address", "add", one, "dev", "eth0")
        other.run("ip", "link", "set", "eth0", "up")
        # IPv6 addresses are tried for a second or two before they answer.
        assert ping(bridged, address, link="veth0", seconds=10) is None


def test_the_guest_is_asked_as_its_bridge_would_ask(bridged: Namespace, start: Start) -> None:
    guest = start(ADDRESS)
    mac = bridged.run("cat", f"/sys/class/net/{BRIDGE}/address").stdout.strip()
    ping(bridged)
    asked = [one.packet for one in guest.frames() if isinstance(one.packet, Arp | Echo)]
    assert {(one.mac, str(one.address)) for one in asked if isinstance(one, Arp)} == {
        (mac, "10.0.0.1")
    }
    assert {str(one.source) for one in asked if isinstance(one, Echo)} == {"10.0.0.1"}


def test_other_guests_on_the_bridge_are_not_asked(bridged: Namespace, start: Start) -> None:
    bridged.tap("tap1", BRIDGE)
    other = StandInGuest(bridged, "tap1", ADDRESS, "02:00:00:00:00:09")
    start("10.0.0.3")
    said = ping(bridged, seconds=0.3)
    other.end()
    assert said == "10.0.0.2 does not answer ARP"


def test_a_guest_that_may_choose_its_mac_may_have_any(bridged: Namespace, start: Start) -> None:
    start(ADDRESS)
    assert ping(bridged, mac="") is None


def test_a_mac_is_the_same_in_capitals(bridged: Namespace, start: Start) -> None:
    start(ADDRESS)
    assert ping(bridged, mac=GUEST_MAC.upper()) is None


# What is missing.


@pytest.mark.parametrize(
    ("address", "asking"), [(ADDRESS, "ARP"), (ADDRESS6, "neighbour discovery")]
)
def test_a_guest_that_does_not_say_where_it_is_is_told(
    bridged: Namespace, start: Start, address: str, asking: str
) -> None:
    start(address, answers=("echo",))
    assert ping(bridged, address, seconds=0.3) == f"{address} does not answer {asking}"


@pytest.mark.parametrize(
    ("address", "asking"), [(ADDRESS, "ARP"), (ADDRESS6, "neighbour discovery")]
)
def test_a_guest_that_answers_no_echo_is_told(
    bridged: Namespace, start: Start, address: str, asking: str
) -> None:
    start(address, answers=("owner",))
    assert ping(bridged, address, seconds=0.3) == f"{address} answers {asking}, but no ping"


@pytest.mark.parametrize("address", [ADDRESS, ADDRESS6])
def test_an_answer_from_another_mac_is_told(bridged: Namespace, start: Start, address: str) -> None:
    start(address)
    expected = "02:00:00:00:00:09"
    assert ping(bridged, address, mac=expected) == (
        f"{address} is at {GUEST_MAC}, not at the guest's {expected}"
    )


def test_a_guest_that_sends_without_end_does_not_hold_the_check_up(
    bridged: Namespace, start: Start
) -> None:
    guest = start(ADDRESS, answers=())
    over = threading.Event()

    def babble() -> None:
        while not over.wait(0.0001):
            guest.announce()

    thread = threading.Thread(target=babble)
    thread.start()
    began = time.monotonic()
    said = ping(bridged, seconds=0.5)
    took = time.monotonic() - began
    over.set()
    thread.join()
    assert said == "10.0.0.2 does not answer ARP"
    assert 0.5 <= took < 3.0


def test_a_tap_that_nobody_holds_does_not_answer(bridged: Namespace) -> None:
    assert ping(bridged, seconds=0.1) == "10.0.0.2 does not answer ARP"


def test_a_link_that_is_missing_is_told(namespace: Namespace) -> None:
    assert ping(namespace, link="tap9") == "10.0.0.2 cannot be asked over tap9: No such device"


def test_a_link_that_is_down_is_told(bridged: Namespace) -> None:
    bridged.run("ip", "link", "set", TAP, "down")
    assert ping(bridged) == "10.0.0.2 cannot be asked over tap0: Network is down"


def test_nobody_asks_without_the_right_to(bridged: Namespace) -> None:
    said = ping(bridged, user=65534)
    assert said == "HostError: network: no right to ask 10.0.0.2 over tap0"


# A bridge without an address in the guest's subnet.


def test_without_an_address_of_ours_the_guest_is_asked_where_it_is_and_no_more(
    unaddressed: Namespace, start: Start
) -> None:
    guest = start(ADDRESS, answers=("owner",))
    assert ping(unaddressed) is None
    asked = [one.packet for one in guest.frames() if isinstance(one.packet, Arp)]
    assert asked
    assert all(one.is_probe for one in asked)


def test_an_address_of_ours_in_another_subnet_is_none(namespace: Namespace, start: Start) -> None:
    namespace.bridge(BRIDGE, "192.168.0.1/24")
    namespace.tap(TAP, BRIDGE)
    start(ADDRESS, answers=("owner",))
    assert ping(namespace) is None


def test_without_an_ipv6_address_the_guest_is_asked_from_one_made_of_the_mac(
    unaddressed: Namespace, start: Start
) -> None:
    guest = start(ADDRESS6, answers=("owner",))
    mac = unaddressed.run("cat", f"/sys/class/net/{BRIDGE}/address").stdout.strip()
    assert ping(unaddressed, ADDRESS6) is None
    asked = [one.packet for one in guest.frames() if isinstance(one.packet, Neighbour)]
    assert link_local(mac) in {one.source for one in asked if one.target == guest.address}


def test_a_tap_that_is_of_no_bridge_asks_as_itself(namespace: Namespace, start: Start) -> None:
    namespace.tap(TAP)
    namespace.run("ip", "address", "add", "10.0.0.1/24", "dev", TAP)
    start(ADDRESS)
    assert ping(namespace) is None
