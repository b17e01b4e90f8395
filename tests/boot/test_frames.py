"""Frames as bytes: what is written is read again, and nothing that is read raises."""

from ipaddress import IPv4Address, IPv4Interface, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirage_hooks.boot.dhcp import Lease
from mirage_hooks.boot.frames import (
    BROADCAST,
    ETHERTYPE_IPV4,
    Arp,
    Echo,
    Frame,
    Neighbour,
    checksum,
    decode,
    encode,
    link_local,
    solicited_node,
)
from stand_in_guest import datagram, dhcp_message, ethernet

HOST, GUEST = "02:00:00:00:00:01", "02:00:00:00:00:02"
ECHO = Echo(False, IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2"), 7, 1, b"data")
ECHO6 = Echo(False, IPv6Address("fe80::1"), IPv6Address("fd00::2"), 7, 1, b"odd")
SOLICITATION = Neighbour(
    False, IPv6Address("fe80::1"), IPv6Address("ff02::1:ff00:2"), IPv6Address("fd00::2"), HOST
)
ARP = Arp(False, HOST, IPv4Address("10.0.0.1"), "00:00:00:00:00:00", IPv4Address("10.0.0.2"))

MACS = st.binary(min_size=6, max_size=6).map(lambda octets: octets.hex(":"))
V4, V6 = st.ip_addresses(v=4), st.ip_addresses(v=6)
NUMBERS, DATA = st.integers(0, 0xFFFF), st.binary(max_size=64)
PACKETS = (
    st.builds(Arp, st.booleans(), MACS, V4, MACS, V4)
    | st.builds(Neighbour, st.booleans(), V6, V6, V6, st.none() | MACS)
    | st.builds(Echo, st.booleans(), V4, V4, NUMBERS, NUMBERS, DATA)
    | st.builds(Echo, st.booleans(), V6, V6, NUMBERS, NUMBERS, DATA)
)


@given(MACS, MACS, PACKETS)
def test_what_is_written_is_read_again(
    destination: str, source: str, packet: Arp | Neighbour | Echo
) -> None:
    assert decode(encode(destination, source, packet)) == Frame(destination, source, packet)


@given(MACS, MACS, PACKETS)
def test_a_frame_may_be_padded_to_the_least_that_a_wire_takes(
    destination: str, source: str, packet: Arp | Neighbour | Echo
) -> None:
    padded = encode(destination, source, packet).ljust(60, b"\0")
    assert decode(padded) == Frame(destination, source, packet)


@given(st.binary(max_size=100))
def test_no_bytes_raise(data: bytes) -> None:
    assert (decode(data) is None) == (len(data) < 14)


@given(st.sampled_from([0x0800, 0x0806, 0x86DD]), st.binary(max_size=100))
def test_no_payload_raises(ethertype: int, data: bytes) -> None:
    assert decode(ethernet(BROADCAST, GUEST, ethertype, data)) is not None


@given(PACKETS, st.data())
def test_no_packet_that_was_cut_or_changed_raises(
    packet: Arp | Neighbour | Echo, data: st.DataObject
) -> None:
    whole = bytearray(encode(HOST, GUEST, packet))
    for at in data.draw(st.lists(st.integers(14, len(whole) - 1), max_size=4)):
        whole[at] = data.draw(st.integers(0, 255))
    assert decode(bytes(whole[: data.draw(st.integers(14, len(whole)))])) is not None


@given(st.sampled_from([ECHO, ECHO6, SOLICITATION]), st.data())
def test_a_message_that_was_damaged_in_one_bit_is_not_read(
    packet: Echo | Neighbour, data: st.DataObject
) -> None:
    whole = bytearray(encode(HOST, GUEST, packet))
    start = 34 if packet is ECHO else 54
    whole[data.draw(st.integers(start, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert decode(bytes(whole)) == Frame(HOST, GUEST, None)


@given(st.sampled_from([ARP, ECHO, ECHO6, SOLICITATION]), st.data())
def test_a_packet_that_was_cut_short_is_not_read(
    packet: Arp | Echo | Neighbour, data: st.DataObject
) -> None:
    whole = encode(HOST, GUEST, packet)
    cut = data.draw(st.integers(14, len(whole) - 1))
    assert decode(whole[:cut]) == Frame(HOST, GUEST, None)


def test_a_solicitation_from_beyond_the_link_is_not_read() -> None:
    whole = bytearray(encode(HOST, GUEST, SOLICITATION))
    whole[14 + 7] = 254  # hops; ICMPv6's checksum does not cover them
    assert decode(bytes(whole)) == Frame(HOST, GUEST, None)


@pytest.mark.parametrize("flags", [0x2000, 0x0001])
def test_a_fragment_is_not_read(flags: int) -> None:
    whole = encode(HOST, GUEST, ECHO)
    header = whole[14:20] + flags.to_bytes(2) + whole[22:24] + bytes(2) + whole[26:34]
    header = header[:10] + checksum(header).to_bytes(2) + header[12:]
    assert decode(whole[:14] + header + whole[34:]) == Frame(HOST, GUEST, None)


def test_an_echo_between_ipv4_and_ipv6_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="no echo goes from"):
        encode(HOST, GUEST, Echo(False, IPv4Address("10.0.0.1"), IPv6Address("fd00::2"), 1, 1))


def test_an_arp_packet_without_a_sender_is_a_probe() -> None:
    assert Arp(False, GUEST, IPv4Address(0), HOST, IPv4Address("10.0.0.2")).is_probe
    assert not ARP.is_probe


# The examples of the RFCs.


def test_the_checksum_is_that_of_rfc_1071() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2


def test_the_group_of_an_address_is_that_of_rfc_4291() -> None:
    mac, group = solicited_node(IPv6Address("4037::01:800:200e:8c6c"))
    assert (mac, group) == ("33:33:ff:0e:8c:6c", IPv6Address("ff02::1:ff0e:8c6c"))


def test_the_address_made_from_a_mac_is_that_of_rfc_2464() -> None:
    assert link_local("34:56:78:9a:bc:de") == IPv6Address("fe80::3656:78ff:fe9a:bcde")


# DHCP.

ACK, MASK, ROUTERS = b"\x35\x01\x05", b"\x01\x04\xff\xff\xff\0", b"\x03\x08\x0a\0\0\1\x0a\0\0\xfe"


def granted(options: bytes, address: str = "10.0.0.50", operation: int = 2) -> Lease | None:
    """Return what a server's message with options is read as."""
    message = dhcp_message(operation, GUEST, address, options)
    packet = datagram("10.0.0.1", "255.255.255.255", (67, 68), message)
    frame = decode(ethernet(BROADCAST, HOST, ETHERTYPE_IPV4, packet))
    assert frame is not None
    assert frame.packet is None or isinstance(frame.packet, Lease)
    return frame.packet


def test_an_acknowledgement_tells_address_prefix_and_routers() -> None:
    routers = (IPv4Address("10.0.0.1"), IPv4Address("10.0.0.254"))
    assert granted(ACK + b"\0" + MASK + ROUTERS) == Lease(
        GUEST, IPv4Interface("10.0.0.50/24"), routers
    )


@pytest.mark.parametrize(
    "mask", [b"", b"\x01\x04\xff\0\xff\0", b"\x01\x04\0\0\0\0", b"\x01\x01\xff"]
)
def test_an_acknowledgement_without_a_mask_that_is_one_has_a_prefix_of_32(mask: bytes) -> None:
    assert granted(ACK + mask) == Lease(GUEST, IPv4Interface("10.0.0.50/32"), ())


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 6, 7, 8])
def test_no_other_message_grants_anything(kind: int) -> None:
    assert granted(bytes([0x35, 1, kind]) + MASK) is None


def test_an_acknowledgement_without_an_address_grants_none() -> None:
    assert granted(ACK + MASK, address="0.0.0.0") is None


def test_a_client_grants_nothing() -> None:
    assert granted(ACK + MASK, operation=1) is None


@given(st.binary(max_size=60))
def test_no_options_raise(options: bytes) -> None:
    lease = granted(ACK + options)
    assert lease is None or lease.mac == GUEST
