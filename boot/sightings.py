"""What was seen of a guest's addresses while it booted, held against what was configured."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_interface
from typing import Literal

import msgspec

from mirage_hooks.boot.console import text_of

# mirage-tcpip's tcpip_stack_direct.ml: one MAC, then the addresses, from 7.0 on with a prefix. A
# guest that logs the line in other words is seen on the wire only.
_ASSEMBLED = re.compile(
    r"TCP/IP stack assembled: "
    r"mac=((?:[0-9a-f]{2}:){5}[0-9a-f]{2}),ip=([0-9a-f.:/]+(?:, ?[0-9a-f.:/]+)*)"
)

# A guest can print and announce what it likes: as many addresses are kept.
MOST_SIGHTINGS = 64


class Sighting(msgspec.Struct, frozen=True):
    """An address as a guest announced it, `at` seconds of the wall clock.

    `address` has a prefix where the announcement tells one, `gateway` is a DHCP server's word.
    """

    address: str
    mac: str
    how: Literal["ARP", "DHCP", "ND", "console"]
    at: float
    gateway: str | None = None

    @property
    def ip(self) -> IPv4Address | IPv6Address:
        """The address without its prefix."""
        return ip_interface(self.address).ip

    def describe(self, since: float) -> str:
        """Return it in words, with the time that has gone by since a moment."""
        gateway = f" via {self.gateway}" if self.gateway else ""
        how = "on the console" if self.how == "console" else f"by {self.how}"
        return (
            f"{self.address}{gateway} at {self.mac} {how} after {_span(max(0.0, self.at - since))}"
        )


@dataclass(frozen=True)
class Configured:
    """What a device was told: addresses and gateways, or DHCP, or neither where it is baked in."""

    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()
    gateways: tuple[IPv4Address | IPv6Address, ...] = ()
    dhcp: bool = False
    mac: str | None = None

    def describe(self) -> str:
        """Return it in words."""
        told = [f"{address}{self._via(address.version)}" for address in self.addresses]
        return ", ".join(told + ["DHCP"] * self.dhcp) or "what is baked in"

    def _via(self, version: int) -> str:
        return "".join(f" via {one}" for one in self.gateways if one.version == version)


def describe(
    configured: Configured, sightings: Iterable[Sighting], fired_at: float, late: bool = False
) -> tuple[str, str | None]:
    """Return what was configured and observed, in a line, and the difference if there is one.

    `late` says that the guest was fired before anybody watched: what was not seen may have been.
    """
    seen = first_of_each(sightings)
    # A link-local address comes with every IPv6 stack: it is told where it was asked for, or alone.
    asked = {address.ip for address in configured.addresses}
    told = [one for one in seen if not one.ip.is_link_local or one.ip in asked] or seen
    observed = ", ".join(one.describe(fired_at) for one in told) or "nothing"
    text = f"configured {configured.describe()}; observed {observed}"
    return text, "; ".join(_differences(configured, seen, late)) or None


def from_console(lines: Iterable[str]) -> list[Sighting]:
    """Return what MirageOS's own stack said of its addresses in dated lines of a console."""
    found = []
    for line in lines:
        match = _ASSEMBLED.search(text_of(line))
        if match is not None and (at := _date(line)) is not None:
            for text in re.split(", ?", match[2]):
                if (address := _address(text)) is not None:
                    found.append(Sighting(address, match[1], "console", at))
    return found[:MOST_SIGHTINGS]


def first_of_each(sightings: Iterable[Sighting]) -> list[Sighting]:
    """Return one sighting of each address at each MAC: what the wire says goes before words."""
    first: dict[tuple[object, str], Sighting] = {}
    for one in sorted(sightings, key=lambda one: (one.how == "console", one.at)):
        first.setdefault((one.ip, one.mac), one)
    return sorted(first.values(), key=lambda one: one.at)


def _differences(configured: Configured, seen: list[Sighting], late: bool) -> Iterable[str]:
    asked = {address.ip for address in configured.addresses}
    if not late:
        yield from _missing(configured, seen)
    # Where no IPv6 was configured, the network's own routers may give addresses of it.
    versions = {address.version for address in asked}
    for one in seen:
        if one.ip.version in versions and one.ip not in asked and not one.ip.is_link_local:
            yield f"{one.ip} was observed, and not configured"
    if configured.mac is not None:
        for mac in sorted({one.mac for one in seen} - {configured.mac.lower()}):
            yield f"the guest was given the MAC {configured.mac}, and speaks as {mac}"


def _missing(configured: Configured, seen: list[Sighting]) -> Iterable[str]:
    asked = {address.ip for address in configured.addresses}
    for address in sorted(asked - {one.ip for one in seen}, key=str):
        yield f"{address} was configured, and not observed"
    if configured.dhcp and not any(one.ip.version == 4 for one in seen):
        yield "DHCP was configured, and no address observed"
    # One that is known by the console alone may come from a lease that nobody could watch.
    for one in seen:
        if configured.dhcp and one.how == "ARP":
            yield f"DHCP was configured, and {one.ip} is from no lease"


def _span(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _date(line: str) -> float | None:
    try:
        return datetime.fromisoformat(line.partition(" ")[0]).timestamp()
    except ValueError:
        return None


def _address(text: str) -> str | None:
    try:
        found = ip_interface(text)
    except ValueError:
        return None
    return None if found.ip.is_unspecified else text
