"""A stand-in for a guest: a thread that holds a tap and answers as a small network stack would."""

import fcntl
import os
import select
import socket
import struct
import threading
from ipaddress import IPv4Address, IPv6Address, ip_address

from mirage_hooks.boot.frames import (
    BROADCAST,
    ETHERTYPE_IPV4,
    NO_MAC,
    Arp,
    Echo,
    Frame,
    Neighbour,
    checksum,
    decode,
    encode,
    solicited_node,
)
from namespace import Namespace

GUEST_MAC = "02:00:00:00:00:02"

# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000


class StandInGuest:
    """A guest on a tap; it answers ARP, neighbour solicitations and echoes as it is told."""

    def __init__(
        self,
        namespace: Namespace,
        tap: str,
        address: str,
        mac: str = GUEST_MAC,
        answers: tuple[str, ...] = ("owner", "echo"),
    ) -> None:
        self.mac = mac
        self.address = ip_address(address)
        self._answers = answers
        self.received: list[bytes] = []
        with namespace.entered():
            self._tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        request = struct.pack("16sH22x", tap.encode(), _IFF_TAP | _IFF_NO_PI)
        fcntl.ioctl(self._tap, _TUNSETIFF, request)
        self._end, self._ending = socket.socketpair()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def end(self) -> None:
        """Let go of the tap."""
        self._end.close()
        self._thread.join()
        self._ending.close()
        os.close(self._tap)

    def send(self, data: bytes) -> None:
        """Send a frame, whatever it is."""
        os.write(self._tap, data)

    def announce(self) -> None:
        """Tell the address as MirageOS does: a gratuitous ARP, or a try whether it is free."""
        if isinstance(self.address, IPv4Address):
            own = Arp(False, self.mac, self.address, NO_MAC, self.address)
            return self.send(encode(BROADCAST, self.mac, own))
        mac, group = solicited_node(self.address)
        tried = Neighbour(False, IPv6Address("::"), group, self.address, None)
        return self.send(encode(mac, self.mac, tried))

    def frames(self) -> list[Frame]:
        """Return what was received so far."""
        return [frame for data in self.received if (frame := decode(data)) is not None]

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._tap, self._ending.fileno()], [], [])
            if self._ending.fileno() in ready:
                return
            data = os.read(self._tap, 2048)
            self.received.append(data)
            frame = decode(data)
            if frame is not None and (answer := self._answer(frame)) is not None:
                self.send(encode(frame.source, self.mac, answer))

    def _answer(self, frame: Frame) -> Arp | Neighbour | Echo | None:
        match frame.packet, self.address:
            case Arp(False, mac, asker, _, asked), IPv4Address() as own if asked == own:
                return Arp(True, self.mac, own, mac, asker) if "owner" in self._answers else None
            case Neighbour(advertisement=False) as asked, IPv6Address() as own:
                if asked.target == own and "owner" in self._answers:
                    return Neighbour(True, own, asked.source, own, self.mac)
            case Echo(False, source, destination, identifier, sequence, data), own:
                if destination == own and "echo" in self._answers:
                    return Echo(True, own, source, identifier, sequence, data)
        return None


def datagram(source: str, destination: str, ports: tuple[int, int], data: bytes) -> bytes:
    """Return an IPv4 packet with a UDP datagram that has no checksum (RFC 768 allows that)."""
    ends = ip_address(source).packed + ip_address(destination).packed
    header = struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(data), 0, 0, 64, 17, 0) + ends
    header = header[:10] + checksum(header).to_bytes(2) + header[12:]
    return header + struct.pack("!HHHH", *ports, 8 + len(data), 0) + data


def ethernet(destination: str, source: str, ethertype: int, payload: bytes) -> bytes:
    """Return a frame with any payload."""
    macs = bytes.fromhex((destination + source).replace(":", ""))
    return macs + ethertype.to_bytes(2) + payload


def dhcp_message(operation: int, mac: str, address: str, options: bytes) -> bytes:
    """Return a DHCP message (RFC 2131, 2); `address` is what a server grants."""
    head = struct.pack("!BBBBIHH", operation, 1, 6, 0, 0x4D48, 0, 0x8000)
    addresses = bytes(4) + ip_address(address).packed + bytes(8)
    hardware = bytes.fromhex(mac.replace(":", "")).ljust(16, b"\0")
    return head + addresses + hardware + bytes(192) + b"\x63\x82\x53\x63" + options + b"\xff"


def dhcp_request(mac: str, options: bytes) -> bytes:
    """Return what a guest that has no address yet broadcasts to DHCP servers."""
    message = dhcp_message(1, mac, "0.0.0.0", options)
    packet = datagram("0.0.0.0", "255.255.255.255", (68, 67), message)
    return ethernet(BROADCAST, mac, ETHERTYPE_IPV4, packet)
