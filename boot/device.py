"""What a guest's devices are: as the manifest describes them, and as this host binds them."""

import re
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    ip_address,
    ip_interface,
)
from typing import Literal, NamedTuple, TypeVar

import msgspec

# The logical network of the host's own sockets: MirageOS's socket stack, on the unix target.
HOST_NETWORK = "host"

NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,66}\Z")  # Solo5's own have 67 at most (mft_abi.h)
_GROUP = re.compile(r"[a-z][-a-z0-9]{0,30}\Z")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z", re.IGNORECASE)
_FORWARD = re.compile(
    r"(?:(?P<protocol>tcp|udp):)?(?P<address>[0-9.]{7,15}):(?P<port>[0-9]{1,5}):(?P<guest>[0-9]{1,5})\Z"
)
# The address, gateways and mask that a Makefile of MirageOS 1 and 2 passed to its configure.
_TRIPLE = ("ADDR", "GWS", "MASK")

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface

T = TypeVar("T", IPv4Address | IPv6Address, IPv4Interface | IPv6Interface)


class NetworkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How one network device of a guest is attached and addressed.

    `address` and `gateway` are one of a kind, or one of each: IPv4 and IPv6. `group` is what
    MirageOS calls this stack where an image has several: its arguments start with it.
    """

    network: str = HOST_NETWORK
    address: str | tuple[str, ...] | None = None
    gateway: str | tuple[str, ...] | None = None
    dhcp: bool = False
    baked: bool = False
    mac: str | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        if () in {self.address, self.gateway}:
            raise ValueError("an empty list names no address: leave it out")
        modes = [self.address is not None, self.dhcp, self.baked]
        if sum(modes) > 1:
            raise ValueError("only one of address, dhcp and baked can be given")
        for interface in _one_a_family([_interface(text) for text in _texts(self.address)]):
            if self.network != HOST_NETWORK:
                _refuse_unusable(interface)
        for gateway in _one_a_family([_gateway(text) for text in _texts(self.gateway)]):
            self._refuse_gateway(gateway)
        if self.network == HOST_NETWORK:
            if self.dhcp or self.gateway is not None:
                raise ValueError("the host's own sockets take neither dhcp nor a gateway")
            if self.mac is not None or len(self.interfaces) > 1:
                raise ValueError("the host's own sockets take one address, and no mac")
        if self.mac is not None and not _is_guests_mac(self.mac):
            raise ValueError(f"mac {self.mac!r} is no guest's: write it like '02:00:00:00:00:01'")
        if self.group is not None and not _GROUP.match(self.group):
            raise ValueError(f"group {self.group!r} cannot be the start of an argument")

    @property
    def mode(self) -> str:
        """How the device gets its address, in a word, or the addresses themselves."""
        if self.address is not None:
            addresses = ", ".join(map(str, self.interfaces))
            gateways = ", ".join(map(str, self.gateways))
            return f"{addresses} via {gateways}" if gateways else addresses
        return "dhcp" if self.dhcp else "baked" if self.baked else "no address"

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        """The static addresses, each with its prefix."""
        return tuple(ip_interface(text) for text in _texts(self.address))

    @property
    def gateways(self) -> tuple[Address, ...]:
        """The gateways."""
        return tuple(ip_address(text) for text in _texts(self.gateway))

    def _refuse_gateway(self, gateway: Address) -> None:
        own = next((one for one in self.interfaces if one.version == gateway.version), None)
        if own is None:
            raise ValueError("a gateway needs an address")
        # An IPv6 router's link-local address is on every link (RFC 4291 2.8, RFC 4861 6.1.2).
        if gateway not in own.network and not (gateway.version == 6 and gateway.is_link_local):
            raise ValueError(f"gateway {gateway} is not on {own.network}")
        if gateway == own.ip:
            raise ValueError(f"gateway {gateway} is the guest itself")
        _refuse_unusable(type(own)((gateway, own.network.prefixlen)), "gateway")


class BlockConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A block device of a guest: the logical name of a volume; a private copy if `readonly`.

    Or the path of a disk `image` in the repository, which stays as it was committed.
    """

    volume: str | None = None
    readonly: bool = False
    image: str | None = None

    def __post_init__(self) -> None:
        if (self.volume is None) == (self.image is None):
            raise ValueError("give a volume of the host's, or an image of the repository's")


class Forward(NamedTuple):
    """A TCP or UDP port of the host that leads to one of a guest, in QEMU's own network."""

    protocol: str
    address: str
    port: int
    guest_port: int

    @classmethod
    def of(cls, text: str) -> "Forward":
        """Return what "127.0.0.1:8080:80" or "udp:127.0.0.1:5353:53" means. Raises ValueError."""
        message = f"forward {text!r}: write it like '127.0.0.1:8080:80', the guest's port last"
        match = _FORWARD.match(text)
        if match is None:
            raise ValueError(message)
        ports = int(match["port"]), int(match["guest"])
        try:
            address = str(IPv4Address(match["address"]))
        except ValueError as error:
            raise ValueError(f"{message}: {error}") from None
        if not all(0 < port < 65536 for port in ports):
            raise ValueError(f"{message}: a port is 1 to 65535")
        return cls(match["protocol"] or "tcp", address, *ports)

    @property
    def host_end(self) -> str:
        """The host's end of it, which one program at a time can have."""
        return f"{self.protocol} {self.address}:{self.port}"


class Nic(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A network device as this host binds it.

    `link` is the bridge that a tap is put into, or the tap that was made for it beforehand; a
    `user` network has none. `mac` is None where the guest chooses its own. `forward` are ports of
    the host as the host file has them. `script` is what attaches a domain's vif, if not the usual.
    """

    kind: Literal["bridge", "tap", "user"]
    link: str | None = None
    mac: str | None = None
    forward: tuple[str, ...] = ()
    script: str | None = None


class Volume(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A block device as this host binds it.

    One whose `image`, the sha256 of a disk in the store, is given has no path, and is `readonly`.
    """

    path: str = ""
    readonly: bool = False
    image: str | None = None


def normalise(table: dict[str, object]) -> dict[str, object]:
    """Return a network's table with ADDR, GWS and MASK written as an address and a gateway.

    Raises ValueError.
    """
    given = {key: table[key] for key in _TRIPLE if key in table}
    if not given:
        return table
    if "ADDR" not in given or "MASK" not in given or "address" in table or "gateway" in table:
        raise ValueError("ADDR, MASK and GWS go together, in place of address and gateway")
    texts = {key: value for key, value in given.items() if isinstance(value, str)}
    if len(texts) < len(given):
        raise ValueError("ADDR, MASK and GWS are written in quotes, like ADDR = '10.0.0.2'")
    gateways = texts.get("GWS", "").replace(",", " ").split()
    if len(gateways) > 1:
        raise ValueError(f"GWS names {len(gateways)} gateways: a guest takes one")
    rest = {key: value for key, value in table.items() if key not in given}
    try:
        interface = ip_interface(f"{texts['ADDR']}/{texts['MASK']}")
    except ValueError as error:
        raise ValueError(f"ADDR and MASK: {error}") from None
    return {**rest, "address": str(interface), **({"gateway": gateways[0]} if gateways else {})}


def _texts(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value or ()


def _interface(text: str) -> Interface:
    interface = ip_interface(text)
    if "%" in text:
        raise ValueError(f"address {text!r} has a zone, which no guest takes")
    if "/" not in text:
        raise ValueError(f"address {text!r} has no prefix: write it like '10.0.0.2/24'")
    return interface


def _gateway(text: str) -> Address:
    gateway = ip_address(text)
    if "%" in text:
        raise ValueError(f"gateway {text!r} has a zone, which no guest takes")
    return gateway


def _one_a_family(found: list[T]) -> list[T]:
    if len({one.version for one in found}) < len(found):
        raise ValueError(f"{', '.join(map(str, found))}: one of IPv4 and one of IPv6 at most")
    return found


def _is_guests_mac(mac: str) -> bool:
    """Whether it is unicast (IEEE 802, 8.4), and not all zero: to QEMU that says to choose one."""
    return bool(_MAC.match(mac) and not int(mac[:2], 16) & 1 and mac.strip("0:"))


def _refuse_unusable(interface: Interface, what: str = "address") -> None:
    """Raise ValueError for an address that no host can have (RFC 1122 3.2.1.3, RFC 4291 2.6.1)."""
    address, network = interface.ip, interface.network
    reserved = address.version == 4 and address.is_reserved
    if reserved or address.is_multicast or address.is_unspecified or address.is_loopback:
        raise ValueError(f"{what} {address} cannot be a host's on a network")
    if network.prefixlen >= network.max_prefixlen - 1:
        return
    if address == network.network_address:
        raise ValueError(f"{what} {address} is that of the network {network} itself")
    if address.version == 4 and address == network.broadcast_address:
        raise ValueError(f"{what} {address} is the broadcast address of {network}")
