"""The `ping` check: a guest is asked over its own tap, as its bridge would ask it."""

import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_interface
from ipaddress import ip_address as parse
from os import getpid
from pathlib import Path
from typing import TypeVar

import psutil

from mirage_hooks.boot import packets
from mirage_hooks.boot.errors import HostError
from mirage_hooks.boot.frames import (
    BROADCAST,
    NO_MAC,
    Arp,
    Echo,
    Frame,
    Neighbour,
    decode,
    encode,
    link_local,
    solicited_node,
)

_T = TypeVar("_T")

# A question is asked again after this many seconds, then after twice as many, and so on.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.25


@dataclass(frozen=True)
class _Speaker:
    """The bridge of a tap, in whose name a guest is asked."""

    mac: str
    addresses: tuple[IPv4Interface | IPv6Interface, ...]


def ping(link: str, mac: str | None, address: str, seconds: float) -> str | None:
    """Return what is missing from a guest that answers, None where it does.

    The guest is asked over its tap `link` who has its address (ARP, or neighbour discovery), and
    then for an echo where the tap's bridge has an address that the guest can answer to. `mac` is
    what the guest was given, None where that is its own choice.

    Raises HostError without the right to send on a link (CAP_NET_RAW).
    """
    deadline = time.monotonic() + seconds
    try:
        with packets.open_socket(link, packets.ANSWERS) as opened:
            return _ping(opened, _speaker(link), mac, parse(address), deadline)
    except PermissionError:
        raise HostError(
            f"network: no right to ask {address} over {link}",
            "run this as root, or give the guest another check than ping",
        ) from None
    except OSError as error:
        return f"{address} cannot be asked over {link}: {error.strerror}"


def _ping(
    opened: socket.socket,
    speaker: _Speaker,
    mac: str | None,
    address: IPv4Address | IPv6Address,
    deadline: float,
) -> str | None:
    own = _own(speaker, address)
    question, asking = _who_has(speaker.mac, own, address)
    found = _ask(opened, question, lambda frame: _owner(frame, address), deadline)
    if found is None:
        return f"{address} does not answer {asking}"
    if mac is not None and found != mac.lower():
        return f"{address} is at {found}, not at the guest's {mac}"
    if own is None:
        return None
    echo = Echo(False, own, address, getpid() & 0xFFFF, 1)
    answer = Echo(True, address, own, echo.identifier, echo.sequence)
    request = encode(found, speaker.mac, echo)
    if _ask(opened, request, lambda frame: frame.packet == answer or None, deadline) is None:
        return f"{address} answers {asking}, but no ping"
    return None


def _ask(
    opened: socket.socket, question: bytes, read: Callable[[Frame], _T | None], deadline: float
) -> _T | None:
    """Send a question, more than once, until a frame from the guest is read as the answer."""
    pause, again = _FIRST_PAUSE, 0.0
    while (now := time.monotonic()) < deadline:
        if now >= again:
            opened.send(question)
            again, pause = now + pause, min(pause * 2, _LONGEST_PAUSE)
        # One frame a round: whatever a guest sends, the time is looked at.
        captured = packets.receive(opened)
        if captured is None:
            select.select([opened], [], [], max(0.0, min(again, deadline) - time.monotonic()))
            continue
        frame = None if captured.outgoing else decode(captured.data)
        if frame is not None and (answer := read(frame)) is not None:
            return answer
    return None


def _who_has(
    mac: str, own: IPv4Address | IPv6Address | None, address: IPv4Address | IPv6Address
) -> tuple[bytes, str]:
    """Return the frame that asks for the owner of an address, and the protocol's name."""
    if isinstance(address, IPv4Address):
        # Without an address of our own we ask as one who wants to know if this one is free.
        sender = own if isinstance(own, IPv4Address) else IPv4Address(0)
        return encode(BROADCAST, mac, Arp(False, mac, sender, NO_MAC, address)), "ARP"
    # Not from the unspecified address: a guest that just tries its own would take it for a clash
    # (RFC 4862, 5.4.3).
    source = own if isinstance(own, IPv6Address) else link_local(mac)
    group_mac, group = solicited_node(address)
    asked = Neighbour(False, source, group, address, mac)
    return encode(group_mac, mac, asked), "neighbour discovery"


def _owner(frame: Frame, address: IPv4Address | IPv6Address) -> str | None:
    match frame.packet:
        case Arp(True, mac, owned) if owned == address:
            return mac
        case Neighbour(advertisement=True, target=owned, mac=told) if owned == address:
            return told or frame.source
    return None


def _own(speaker: _Speaker, address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address | None:
    """Return the bridge's address that a guest reaches without a gateway."""
    for own in speaker.addresses:
        if address in own.network or (own.version == address.version == 6 and own.ip.is_link_local):
            return own.ip
    return None


def _speaker(link: str) -> _Speaker:
    """Return the bridge that a link is a port of, or the link itself where it is of none."""
    master = Path("/sys/class/net", link, "master")
    name = master.readlink().name if master.is_symlink() else link
    mac, addresses = NO_MAC, []
    for one in psutil.net_if_addrs().get(name, []):
        if one.family == psutil.AF_LINK:
            mac = one.address
        elif one.netmask is not None:
            addresses.append(_interface(one.address.partition("%")[0], one.netmask))
    return _Speaker(mac, tuple(addresses))


def _interface(address: str, netmask: str) -> IPv4Interface | IPv6Interface:
    prefix = int(parse(netmask)).bit_count()
    return ip_interface(f"{address}/{prefix}")
