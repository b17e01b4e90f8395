"""What of the host's network is ours, and the bridges that guests are on.

An installation is known by 12 hex digits. What it made is known by the alias that it gave to a
link, and by nothing else: links of any name may be somebody else's.
"""

import hashlib
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface

from mirage_hooks.boot import netlink
from mirage_hooks.boot.errors import HostError

INSTALLATION = r"[0-9a-f]{12}"
TAP_NAME = re.compile(r"mh[0-9a-f]{12}")
TAP_ALIAS = re.compile(
    rf"mirage-hooks:({INSTALLATION}):([A-Za-z][-A-Za-z0-9_.]{{0,99}}):([0-9]{{1,10}})"
)


def tap_name(installation: str, guest: str, generation: int, device: str) -> str:
    """Return the name of a generation's tap: always the same, of 14 characters.

    A link's name has 15 at most (IFNAMSIZ in linux/if.h).
    """
    return f"mh{_digest(installation, guest, str(generation), device).hex()[:12]}"


def tap_alias(installation: str, guest: str, generation: int) -> str:
    """Return the alias by which the taps of a generation are known to be ours."""
    return f"mirage-hooks:{installation}:{guest}:{generation}"


def bridge_alias(installation: str) -> str:
    """Return the alias by which a bridge is known to be ours."""
    return f"mirage-hooks:{installation}"


def mac_address(installation: str, guest: str, device: str) -> str:
    """Return the MAC of a guest's device: always the same, unicast, locally administered.

    The two lowest bits of the first octet say that (IEEE 802, 8.4).
    """
    return _mac(installation, guest, device)


def bridge_mac(installation: str, bridge: str) -> str:
    """Return the MAC of a bridge that we make: always the same, and no guest's."""
    return _mac(installation, bridge)


def _mac(*parts: str) -> str:
    first, *others = _digest(*parts)[:6]
    return ":".join(f"{octet:02x}" for octet in (first & 0xFC | 0x02, *others))


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode()).digest()


class NotAllowed(HostError):  # noqa: N818 - a HostError, whose name says enough
    """Changing links takes a right (CAP_NET_ADMIN, capabilities(7)) that we do not have."""


@dataclass(frozen=True)
class Bridge:
    """A bridge of the host's, as it is. `stp`: it keeps each new port waiting."""

    index: int
    name: str
    mac: str
    up: bool
    stp: bool
    addresses: tuple[IPv4Interface | IPv6Interface, ...]


def require_bridge(name: str) -> Bridge:
    """Return a bridge. Raises HostError where it is missing, or is none."""
    with failing(f"look for bridge {name}"):
        link = netlink.find(name)
        if link is None:
            raise HostError(
                f"network: bridge {name} does not exist",
                "make it, or have it made: `create = true` and an `address` for its network "
                "in host.toml",
            )
        if link.kind != "bridge":
            raise HostError(
                f"network: {name} is no bridge, but {_words(link)}",
                "name a bridge for its network in host.toml",
            )
        addresses = netlink.addresses(link.index)
    ordered = sorted(addresses, key=lambda one: (one.version, one))
    return Bridge(link.index, name, link.mac, link.up, link.stp, tuple(ordered))


def create_bridge(name: str, addresses: Collection[netlink.Address], mac: str, alias: str) -> None:
    """Have a bridge of ours: made where it is missing, with that MAC and those addresses, up.

    Raises HostError where the name is taken by a link that is not ours.
    """
    commands = [
        f"ip link add dev {name} address {mac} type bridge",
        f"ip link set dev {name} alias {alias} up",
        *(f"ip address add {address} dev {name}" for address in addresses),
    ]
    with failing(f"make bridge {name}", f"run as root: {' && '.join(commands)}"):
        link = netlink.find(name)
        if link is None:
            netlink.add_bridge(name, mac)
            link = netlink.find(name)
        elif _is_finished(link, addresses, mac, alias):
            return  # root may have made it, for one who may not even set what is set
        if link is None or not _is_ours(link, mac, alias):
            raise HostError(
                f"network: {name} exists already, and was not made for this repository",
                "take `create = true` from its network in host.toml, or name another bridge there",
            )
        netlink.set_alias(link.index, alias)
        netlink.set_mac(link.index, mac)
        for address in netlink.addresses(link.index) - set(addresses):
            netlink.remove_address(link.index, address)
        for address in set(addresses) - netlink.addresses(link.index):
            netlink.add_address(link.index, address)
        netlink.set_up(link.index)


def remove_bridges(installation: str) -> tuple[list[str], list[str]]:
    """Remove an installation's bridges that have no port left.

    Returns the names of those that went, and for each that stays a line that says why.
    """
    with failing("look for bridges"):
        links = netlink.links()
    gone, left = [], []
    for bridge in links:
        if bridge.kind != "bridge" or bridge.alias != bridge_alias(installation):
            continue
        if ports := [link.name for link in links if link.master == bridge.index]:
            left.append(f"bridge {bridge.name} is left: {', '.join(ports)} in it")
            continue
        command = f"ip link delete dev {bridge.name}"
        with failing(f"remove bridge {bridge.name}", f"run as root: {command}"):
            netlink.remove(bridge.index)
        gone.append(bridge.name)
    return gone, left


@contextmanager
def failing(doing: str, hint: str = "run this as root") -> Iterator[None]:
    """Raise HostError where the kernel fails what is done here, NotAllowed where only root may."""
    try:
        yield
    except PermissionError:
        raise NotAllowed(f"network: no right to {doing}", hint) from None
    except OSError as error:
        raise HostError(f"network: cannot {doing}: {error.strerror}") from None


def _is_ours(link: netlink.Link, mac: str, alias: str) -> bool:
    """An alias cannot be set at once: one that we left half made has our MAC, and is down."""
    half_made = not link.alias and not link.up and link.mac == mac
    return link.kind == "bridge" and (link.alias == alias or half_made)


def _is_finished(
    link: netlink.Link, addresses: Collection[netlink.Address], mac: str, alias: str
) -> bool:
    made = (link.kind, link.mac, link.alias, link.up) == ("bridge", mac, alias, True)
    return made and netlink.addresses(link.index) == set(addresses)


def _words(link: netlink.Link) -> str:
    if link.kind == "tun":
        return "a tap" if link.tap else "a tun"
    return f"a link of kind {link.kind}" if link.kind else "a plain network device"
