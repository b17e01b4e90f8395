"""A guest's tap is watched: what the guest says of itself, what it is granted, and nothing else."""

import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from mirage_hooks.boot.dhcp import Lease
from mirage_hooks.boot.errors import HostError
from mirage_hooks.boot.frames import (
    BROADCAST,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    NO_MAC,
    Arp,
    Echo,
    Neighbour,
    encode,
)
from mirage_hooks.boot.observer import Observer
from mirage_hooks.boot.sightings import MOST_SIGHTINGS, Sighting
from namespace import Namespace, network_namespace
from stand_in_guest import (
    GUEST_MAC,
    StandInGuest,
    datagram,
    dhcp_message,
    dhcp_request,
    ethernet,
)
from support import wait_for

TAP, BRIDGE, SERVER = "tap0", "br0", "10.0.0.1"
ADDRESS, ADDRESS6 = IPv4Address("10.0.0.2"), IPv6Address("fd00::2")
DISCOVER, REQUEST = b"\x35\x01\x01", b"\x35\x01\x03"
ACKNOWLEDGED = b"\x35\x01\x05\x01\x04\xff\xff\xff\0\x03\x04\x0a\0\0\x01"

# Watches a link as a user who has no right to.
UNPRIVILEGED = """
import os, sys
from mirage_hooks.boot.observer import Observer
os.setuid(65534)
print(Observer.open(sys.argv[1]))
"""


@pytest.fixture
def watched(namespace: Namespace) -> Iterator[Observer]:
    """An observer of a tap that is a port of a bridge."""
    namespace.bridge(BRIDGE, f"{SERVER}/24")
    namespace.tap(TAP, BRIDGE)
    observer = watch(namespace, TAP)
    yield observer
    observer.close()


@pytest.fixture
def guest(namespace: Namespace, watched: Observer) -> Iterator[StandInGuest]:
    """A guest on the tap that is watched."""
    started = StandInGuest(namespace, TAP, str(ADDRESS))
    yield started
    started.end()


def watch(namespace: Namespace, link: str) -> Observer:
    """Return an observer of a link in a namespace."""
    with namespace.entered():
        observer = Observer.open(link)
    assert observer is not None
    return observer


def seen(observer: Observer, count: int = 1) -> list[Sighting]:
    """Return the sightings once there are as many."""
    wait_for(lambda: len(observer.sightings()) >= count)
    return observer.sightings()


def only_the_mark_is_seen(observer: Observer, guest: StandInGuest) -> bool:
    """Whether of all that was sent until now nothing counts as an announcement.

    A tap keeps the order: once an announcement is seen, what went before it was there to be.
    """
    guest.announce()
    return [one.address for one in seen(observer)] == [str(ADDRESS)]


# What a guest says of itself.


def test_a_gratuitous_arp_tells_address_and_mac(watched: Observer, guest: StandInGuest) -> None:
    before = time.time()
    guest.announce()
    (found,) = seen(watched)
    assert (found.address, found.mac, found.how) == (str(ADDRESS), GUEST_MAC, "ARP")
    assert before <= found.at <= time.time()


def test_an_announcement_waits_until_it_is_asked_for_and_keeps_its_time(
    watched: Observer, guest: StandInGuest
) -> None:
    guest.announce()
    sent = time.time()
    time.sleep(0.3)
    (found,) = watched.sightings()
    assert found.at <= sent + 0.1


def test_what_others_say_on_the_bridge_takes_no_room_from_an_announcement(
    namespace: Namespace, watched: Observer, guest: StandInGuest
) -> None:
    asked = IPv4Address("10.0.0.99")
    others = encode(BROADCAST, NO_MAC, Arp(False, NO_MAC, IPv4Address(0), NO_MAC, asked))
    with namespace.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as neighbour:
        neighbour.bind((BRIDGE, 0))
        for _ in range(2000):
            neighbour.send(others)
    guest.announce()
    assert [one.address for one in seen(watched)] == [str(ADDRESS)]


def test_the_mac_is_the_one_that_is_announced_and_not_that_of_the_frame(
    watched: Observer, guest: StandInGuest
) -> None:
    told = Arp(False, "02:00:00:00:00:09", ADDRESS, NO_MAC, ADDRESS)
    guest.send(encode(BROADCAST, GUEST_MAC, told))
    assert [one.mac for one in seen(watched)] == ["02:00:00:00:00:09"]


def test_a_try_whether_an_ipv6_address_is_free_tells_it(
    namespace: Namespace, watched: Observer
) -> None:
    guest = StandInGuest(namespace, TAP, str(ADDRESS6))
    guest.announce()
    (found,) = seen(watched)
    guest.end()
    assert (found.address, found.mac, found.how) == (str(ADDRESS6), GUEST_MAC, "ND")


@pytest.mark.parametrize("advertisement", [True, False])
def test_neighbour_discovery_tells_the_address_that_the_guest_speaks_from(
    watched: Observer, guest: StandInGuest, advertisement: bool
) -> None:
    everybody = IPv6Address("ff02::1")
    asked = ADDRESS6 if advertisement else IPv6Address("fd00::1")
    told = Neighbour(advertisement, ADDRESS6, everybody, asked, GUEST_MAC)
    guest.send(encode("33:33:00:00:00:01", GUEST_MAC, told))
    (found,) = seen(watched)
    assert (found.address, found.mac, found.how) == (str(ADDRESS6), GUEST_MAC, "ND")


def test_what_is_said_twice_is_seen_once_at_its_first_time(
    watched: Observer, guest: StandInGuest
) -> None:
    guest.announce()
    first = seen(watched)
    guest.announce()
    guest.announce()
    assert watched.sightings() == first


def test_a_guest_is_seen_that_is_a_linux_of_its_own(namespace: Namespace) -> None:
    with network_namespace() as other:
        peer = ["type", "veth", "peer", "name", "eth0", "netns", other.name]
        namespace.run("ip", "link", "add", "veth0", *peer)
        namespace.run("ip", "link", "set", "veth0", "up")
        observer = watch(namespace, "veth0")
        other.run("ip", "address", "add", f"{ADDRESS}/24", "dev", "eth0")
        other.run("ip", "address", "add", f"{ADDRESS6}/64", "dev", "eth0")
        other.run("ip", "link", "set", "eth0", "up")
        with other.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", ("10.0.0.77", 9))
        found = seen(observer, 3)
        observer.close()
    ways = {one.address: one.how for one in found if not one.ip.is_link_local}
    assert ways == {str(ADDRESS): "ARP", str(ADDRESS6): "ND"}


# What is none.


def test_what_others_say_on_the_bridge_is_not_the_guests(
    namespace: Namespace, watched: Observer, guest: StandInGuest
) -> None:
    namespace.tap("tap1", BRIDGE)
    other = StandInGuest(namespace, "tap1", "10.0.0.9", "02:00:00:00:00:09")
    other.announce()
    wait_for(lambda: len(guest.received) > 0)
    other.end()
    assert only_the_mark_is_seen(watched, guest)


def test_a_probe_announces_nothing(watched: Observer, guest: StandInGuest) -> None:
    probe = Arp(False, GUEST_MAC, IPv4Address(0), NO_MAC, IPv4Address("10.0.0.9"))
    guest.send(encode(BROADCAST, GUEST_MAC, probe))
    assert only_the_mark_is_seen(watched, guest)


def test_frames_that_make_no_sense_announce_nothing(watched: Observer, guest: StandInGuest) -> None:
    for ethertype in (ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6):
        for size in (0, 1, 20, 28, 40, 60):
            guest.send(ethernet(BROADCAST, GUEST_MAC, ethertype, os.urandom(size)))
    assert only_the_mark_is_seen(watched, guest)


def test_a_guest_cannot_fill_the_buffer_with_other_traffic(
    watched: Observer, guest: StandInGuest
) -> None:
    echo = encode(BROADCAST, GUEST_MAC, Echo(False, ADDRESS, ADDRESS, 1, 1, bytes(1000)))
    echo6 = encode(BROADCAST, GUEST_MAC, Echo(False, ADDRESS6, ADDRESS6, 1, 1, bytes(1000)))
    for ports in ((53, 53), (68, 69), (67, 66)):
        packet = datagram(str(ADDRESS), SERVER, ports, bytes(1000))
        other = ethernet(BROADCAST, GUEST_MAC, ETHERTYPE_IPV4, packet)
        for _ in range(200):
            guest.send(echo)
            guest.send(echo6)
            guest.send(other)
    assert only_the_mark_is_seen(watched, guest)


def test_a_guest_that_announces_without_end_is_heard_out_no_further(
    watched: Observer, guest: StandInGuest
) -> None:
    for number in range(MOST_SIGHTINGS + 20):
        address = IPv4Address(f"10.0.1.{number}")
        guest.send(encode(BROADCAST, GUEST_MAC, Arp(False, GUEST_MAC, address, NO_MAC, address)))
    assert len(watched.sightings()) == MOST_SIGHTINGS


# DHCP.


@pytest.fixture
def dnsmasq(namespace: Namespace, watched: Observer, tmp_path: Path) -> Path:
    """A DHCP server on the bridge; the file that its log goes to."""
    if shutil.which("dnsmasq") is None:
        pytest.skip("DHCP takes dnsmasq: apt-get install dnsmasq-base")
    console = tmp_path / "dnsmasq.log"
    namespace.popen(
        *("dnsmasq", "--keep-in-foreground", "--log-facility=-", "--conf-file=/dev/null"),
        *("--port=0", f"--interface={BRIDGE}", "--bind-interfaces", "--no-ping", "--user=root"),
        *("--dhcp-range=10.0.0.50,10.0.0.50,255.255.255.0", f"--dhcp-option=3,{SERVER}"),
        *(f"--dhcp-leasefile={tmp_path / 'leases'}", "--pid-file="),
        console=console,
    )
    wait_for(lambda: "sockets bound exclusively" in console.read_text())
    return console


def test_a_lease_is_seen_with_its_prefix_and_gateway(
    watched: Observer, guest: StandInGuest, dnsmasq: Path
) -> None:
    guest.send(dhcp_request(GUEST_MAC, DISCOVER))
    wait_for(lambda: "DHCPOFFER" in dnsmasq.read_text())
    wanted = b"\x32\x04\x0a\0\0\x32" + b"\x36\x04\x0a\0\0\x01"
    guest.send(dhcp_request(GUEST_MAC, REQUEST + wanted))
    wait_for(lambda: any(isinstance(one.packet, Lease) for one in guest.frames()))
    (found,) = [one for one in watched.sightings() if one.how == "DHCP"]
    assert (found.address, found.mac, found.gateway) == ("10.0.0.50/24", GUEST_MAC, SERVER)


def acknowledge(namespace: Namespace, mac: str) -> None:
    """Broadcast a grant to a MAC on the bridge."""
    message = dhcp_message(2, mac, "10.0.0.60", ACKNOWLEDGED)
    packet = datagram(SERVER, "255.255.255.255", (67, 68), message)
    with namespace.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((BRIDGE, 0))
        sender.send(ethernet(BROADCAST, "02:00:00:00:00:01", ETHERTYPE_IPV4, packet))


def test_a_lease_that_is_broadcast_is_of_the_guest_that_asked(
    namespace: Namespace, watched: Observer, guest: StandInGuest
) -> None:
    guest.send(dhcp_request(GUEST_MAC, REQUEST))
    acknowledge(namespace, "02:00:00:00:00:09")
    acknowledge(namespace, GUEST_MAC)
    (found,) = seen(watched)
    assert (found.address, found.mac, found.how) == ("10.0.0.60/24", GUEST_MAC, "DHCP")


def test_a_guest_cannot_grant_itself_a_lease(watched: Observer, guest: StandInGuest) -> None:
    message = dhcp_message(2, GUEST_MAC, "10.0.0.60", ACKNOWLEDGED)
    packet = datagram(SERVER, "255.255.255.255", (67, 68), message)
    guest.send(ethernet(BROADCAST, GUEST_MAC, ETHERTYPE_IPV4, packet))
    assert only_the_mark_is_seen(watched, guest)


# The link.


def test_a_link_that_is_missing_cannot_be_watched(namespace: Namespace) -> None:
    with namespace.entered(), pytest.raises(HostError, match="cannot watch tap9: No such device"):
        Observer.open("tap9")


def test_nobody_watches_without_the_right_to(namespace: Namespace) -> None:
    namespace.tap(TAP)
    assert namespace.run(sys.executable, "-c", UNPRIVILEGED, TAP).stdout == "None\n"


def test_what_was_seen_outlives_the_link(
    namespace: Namespace, watched: Observer, guest: StandInGuest
) -> None:
    guest.announce()
    seen(watched)
    namespace.run("ip", "link", "set", TAP, "down")
    assert [one.address for one in watched.sightings()] == [str(ADDRESS)]


def test_a_link_that_goes_down_and_up_is_watched_on(
    namespace: Namespace, watched: Observer, guest: StandInGuest
) -> None:
    for state in ("down", "up"):
        namespace.run("ip", "link", "set", TAP, state)
    watched.sightings()
    guest.announce()
    assert [one.address for one in seen(watched)] == [str(ADDRESS)]
