"""Ethernet frames as bytes: ARP, neighbour discovery, echo, and what a DHCP server grants.

A guest can send anything: what is cut short, damaged or of no interest is read as None, and no
bytes raise.
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from mirage_hooks.boot import dhcp
from mirage_hooks.boot.dhcp import Lease

BROADCAST = "ff:ff:ff:ff:ff:ff"
NO_MAC = "00:00:00:00:00:00"

# IEEE 802 numbers (IANA), and IANA's protocol numbers.
ETHERTYPE_IPV4, ETHERTYPE_ARP, ETHERTYPE_IPV6 = 0x0800, 0x0806, 0x86DD
_ICMP, _UDP, _ICMPV6 = 1, 17, 58

_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_ECHO = struct.Struct("!BBHHH")
_NEIGHBOUR = struct.Struct("!BBHI16s")


@dataclass(frozen=True)
class Arp:
    """An ARP packet for IPv4 on Ethernet (RFC 826)."""

    reply: bool
    mac: str
    address: IPv4Address
    target_mac: str
    target: IPv4Address

    @property
    def is_probe(self) -> bool:
        """Whether the sender only asks who has an address, and claims none (RFC 5227, 1.1)."""
        return self.address.is_unspecified


@dataclass(frozen=True)
class Neighbour:
    """An IPv6 neighbour solicitation, or advertisement (RFC 4861, 4.3 and 4.4).

    `target` is the address that is asked for or advertised, `mac` the link-layer address that the
    sender tells. A solicitation whose source is unspecified tries whether an address is free
    (RFC 4862, 5.4.2).
    """

    advertisement: bool
    source: IPv6Address
    destination: IPv6Address
    target: IPv6Address
    mac: str | None


@dataclass(frozen=True)
class Echo:
    """An echo request or reply: ICMP in IPv4 (RFC 792), ICMPv6 in IPv6 (RFC 4443, 4.1 and 4.2)."""

    reply: bool
    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    identifier: int
    sequence: int
    data: bytes = b""


@dataclass(frozen=True)
class Frame:
    """An Ethernet frame, `packet` None where it holds nothing that is read here."""

    destination: str
    source: str
    packet: Arp | Neighbour | Echo | Lease | None


def encode(destination: str, source: str, packet: Arp | Neighbour | Echo) -> bytes:
    """Return a packet as an Ethernet II frame, without its check sequence (RFC 894, 2464).

    Raises ValueError where an echo goes from IPv4 to IPv6, or the other way round.
    """
    match packet:
        case Arp():
            ethertype, payload = ETHERTYPE_ARP, _encode_arp(packet)
        case Neighbour():
            ethertype = ETHERTYPE_IPV6
            payload = _encode_ipv6(packet.source, packet.destination, _encode_neighbour(packet))
        case Echo():
            ethertype, payload = _encode_echo(packet)
    return _ETHERNET.pack(_packed(destination), _packed(source), ethertype) + payload


def decode(data: bytes) -> Frame | None:
    """Return what a frame holds, None where it is too short for an Ethernet header."""
    if len(data) < _ETHERNET.size:
        return None
    destination, source, ethertype = _ETHERNET.unpack_from(data)
    payload = data[_ETHERNET.size :]
    packet: Arp | Neighbour | Echo | Lease | None = None
    if ethertype == ETHERTYPE_ARP:
        packet = _decode_arp(payload)
    elif ethertype == ETHERTYPE_IPV4:
        packet = _decode_ipv4(payload)
    elif ethertype == ETHERTYPE_IPV6:
        packet = _decode_ipv6(payload)
    return Frame(_mac(destination), _mac(source), packet)


def solicited_node(address: IPv6Address) -> tuple[str, IPv6Address]:
    """Return the MAC and the group by which the owner of an address is asked for.

    RFC 4291, 2.7.1, and RFC 2464, 7.
    """
    group = IPv6Address(IPv6Address("ff02::1:ff00:0").packed[:13] + address.packed[13:])
    return _mac(b"\x33\x33" + group.packed[12:]), group


def link_local(mac: str) -> IPv6Address:
    """Return the link-local address that is made from a MAC (RFC 4291, appendix A)."""
    octets = _packed(mac)
    first, rest = octets[0] ^ 0x02, octets[1:3] + b"\xff\xfe" + octets[3:]
    return IPv6Address(b"\xfe\x80" + bytes(6) + bytes([first]) + rest)


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071): 0 over data that holds its own."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1]))
    total += data[-1] << 8 if len(data) % 2 else 0
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _encode_arp(packet: Arp) -> bytes:
    return _ARP.pack(
        *(1, ETHERTYPE_IPV4, 6, 4, 2 if packet.reply else 1),
        *(_packed(packet.mac), packet.address.packed),
        *(_packed(packet.target_mac), packet.target.packed),
    )


def _decode_arp(data: bytes) -> Arp | None:
    if len(data) < _ARP.size:
        return None
    *kind, operation, mac, address, target_mac, target = _ARP.unpack_from(data)
    if kind != [1, ETHERTYPE_IPV4, 6, 4] or operation not in {1, 2}:
        return None
    sender, asked = IPv4Address(address), IPv4Address(target)
    return Arp(operation == 2, _mac(mac), sender, _mac(target_mac), asked)


def _encode_echo(packet: Echo) -> tuple[int, bytes]:
    numbers = (packet.identifier, packet.sequence)
    match packet.source, packet.destination:
        case IPv4Address() as source, IPv4Address() as destination:
            message = _ECHO.pack(0 if packet.reply else 8, 0, 0, *numbers) + packet.data
            message = _with(message, 2, checksum(message))
            return ETHERTYPE_IPV4, _encode_ipv4(source, destination, message)
        case IPv6Address() as source, IPv6Address() as destination:
            message = _ECHO.pack(129 if packet.reply else 128, 0, 0, *numbers) + packet.data
            return ETHERTYPE_IPV6, _encode_ipv6(source, destination, message)
    raise ValueError(f"no echo goes from {packet.source} to {packet.destination}")


def _encode_ipv4(source: IPv4Address, destination: IPv4Address, message: bytes) -> bytes:
    """RFC 791, 3.1: no options, no fragments, 64 hops."""
    size = _IPV4.size + len(message)
    header = _IPV4.pack(0x45, 0, size, 0, 0, 64, _ICMP, 0, source.packed, destination.packed)
    return _with(header, 10, checksum(header)) + message


def _encode_ipv6(source: IPv6Address, destination: IPv6Address, message: bytes) -> bytes:
    """RFC 8200, 3. 255 hops: nobody beyond the link can have sent it (RFC 4861, 7.1)."""
    message = _with(message, 2, checksum(_pseudo_header(source, destination, message) + message))
    header = (6 << 28, len(message), _ICMPV6, 255, source.packed, destination.packed)
    return _IPV6.pack(*header) + message


def _pseudo_header(source: IPv6Address, destination: IPv6Address, message: bytes) -> bytes:
    """RFC 8200, 8.1: what the checksum covers besides the message."""
    return struct.pack("!16s16sII", source.packed, destination.packed, len(message), _ICMPV6)


def _encode_neighbour(packet: Neighbour) -> bytes:
    # Options 1 and 2 are the sender's link-layer address, in one unit of 8 bytes. Solicited and
    # override are set where an advertisement answers, override alone where nobody asked.
    kind, option, flags = 135, 1, 0
    if packet.advertisement:
        kind, option = 136, 2
        flags = 0x20000000 if packet.destination.is_multicast else 0x60000000
    message = _NEIGHBOUR.pack(kind, 0, 0, flags, packet.target.packed)
    return message + (bytes([option, 1]) + _packed(packet.mac) if packet.mac else b"")


def _decode_ipv4(data: bytes) -> Echo | Lease | None:
    if len(data) < _IPV4.size:
        return None
    first, _, size, _, fragment, _, protocol, _, source, destination = _IPV4.unpack_from(data)
    start = (first & 15) * 4
    if first >> 4 != 4 or not _IPV4.size <= start <= size <= len(data) or checksum(data[:start]):
        return None
    message = data[start:size]
    if fragment & 0x3FFF:  # more are to come, or this is not the first
        return None
    if protocol == _UDP:
        return _decode_udp(message)
    if protocol != _ICMP or checksum(message):
        return None
    return _decode_echo(IPv4Address(source), IPv4Address(destination), message, (8, 0))


def _decode_ipv6(data: bytes) -> Echo | Neighbour | None:
    if len(data) < _IPV6.size:
        return None
    first, size, protocol, hops, *between = _IPV6.unpack_from(data)
    source, destination = map(IPv6Address, between)
    message = data[_IPV6.size : _IPV6.size + size]
    if first >> 28 != 6 or protocol != _ICMPV6 or len(message) < size:
        return None
    if checksum(_pseudo_header(source, destination, message) + message):
        return None
    if hops == 255 and message[:2] in {b"\x87\0", b"\x88\0"}:
        return _decode_neighbour(source, destination, message)
    return _decode_echo(source, destination, message, (128, 129))


def _decode_echo(
    source: IPv4Address | IPv6Address,
    destination: IPv4Address | IPv6Address,
    message: bytes,
    kinds: tuple[int, int],
) -> Echo | None:
    if len(message) < _ECHO.size:
        return None
    kind, code, _, identifier, sequence = _ECHO.unpack_from(message)
    if kind not in kinds or code:
        return None
    data = message[_ECHO.size :]
    return Echo(kind == kinds[1], source, destination, identifier, sequence, data)


def _decode_neighbour(
    source: IPv6Address, destination: IPv6Address, message: bytes
) -> Neighbour | None:
    if len(message) < _NEIGHBOUR.size:
        return None
    kind, _, _, _, target = _NEIGHBOUR.unpack_from(message)
    told, mac = 2 if kind == 136 else 1, None
    options = message[_NEIGHBOUR.size :]
    while len(options) >= 8 and options[1]:
        if options[:2] == bytes([told, 1]):
            mac = _mac(options[2:8])
        options = options[options[1] * 8 :]
    return Neighbour(kind == 136, source, destination, IPv6Address(target), mac)


def _decode_udp(message: bytes) -> Lease | None:
    """RFC 768. The checksum is not looked at: a tap shows what the host sends before it has one."""
    ports, size = message[:4], int.from_bytes(message[4:6])
    if ports != struct.pack("!HH", 67, 68) or not 8 <= size <= len(message):
        return None
    return dhcp.decode(message[8:size])


def _with(data: bytes, at: int, number: int) -> bytes:
    """Return data with a 16 bit number in its place."""
    return data[:at] + number.to_bytes(2) + data[at + 2 :]


def _mac(octets: bytes) -> str:
    return octets.hex(":")


def _packed(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
