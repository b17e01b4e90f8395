"""Network configurations: as configured; how they are logged."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_interface
from types import MappingProxyType

import msgspec

from mirage_hooks.boot.device import Forward, Interface, Nic
from mirage_hooks.boot.guest import Boot

# Unikernels name their own ports; these keys are the custom (--port, --http-port, --https-port).
_PORT = re.compile(r"--(?:[a-z0-9]+-)*port=([0-9]+)\Z")
_ADDRESS = re.compile(r"--ipv[46]=(\S+)\Z")
# What of a guest's arguments is about its network: addresses of any MirageOS, and ports.
_PASSED = re.compile(
    r"(?:--)?(?:[a-z0-9]+-)*(?:ipv[46](?:-gateway|-only)?|ip|netmask|gateways|port)=\S+\Z"
)


class NetworkRecord(msgspec.Struct, frozen=True):
    """How a device of one boot is configured, for the log: an address of it, if it has several.

    `device` is None for the host's own sockets; `link` is the bridge or tap it is bound to, `tap`
    what was made for this generation, `vif` what Xen makes for it.
    """

    device: str | None
    mode: str
    address: str | None
    prefix: int | None
    netmask: str | None
    gateway: str | None
    link: str | None
    tap: str | None
    vif: str | None
    mac: str | None
    ports: tuple[int, ...]
    passed: tuple[str, ...]

    def describe(self) -> str:
        """Return it in one line."""
        where = f"{self.address}/{self.prefix} (netmask {self.netmask})" if self.address else ""
        tap = f"tap {self.tap}" if self.tap else f"vif {self.vif}" if self.vif else ""
        link = f"on {self.link}" if self.link and self.link != self.tap else ""
        parts = [
            f"{self.device} {self.mode}" if self.device else self.mode,
            where,
            f"gateway {self.gateway}" if self.gateway else "",
            " ".join(part for part in (tap, link) if part),
            f"mac {self.mac}" if self.mac else "",
            f"port {', '.join(map(str, self.ports))}" if self.ports else "",
            f"passed as {' '.join(self.passed)}" if self.passed else "nothing passed",
        ]
        return ", ".join(part for part in parts if part)


def configured(boot: Boot, taps: Mapping[str, str] = MappingProxyType({})) -> list[NetworkRecord]:
    """Return the network configuration a boot asks for; `taps` are those of its generation."""
    if not boot.nics:
        return [_on_host_sockets(boot)]
    return [
        record
        for device, nic in boot.nics.items()
        for record in _of_device(boot, device, nic, taps.get(device))
    ]


def _of_device(boot: Boot, device: str, nic: Nic, tap: str | None) -> Iterator[NetworkRecord]:
    config = boot.network[device]
    static = "static" if nic.kind != "user" else "static in QEMU's own network"
    gateways = {gateway.version: str(gateway) for gateway in config.gateways}
    for interface in config.interfaces or (None,):
        yield NetworkRecord(
            device=device,
            mode=static if interface else config.mode,
            address=str(interface.ip) if interface else None,
            prefix=interface.network.prefixlen if interface else None,
            netmask=str(interface.netmask) if interface else None,
            gateway=gateways.get(interface.version) if interface else None,
            link=nic.link,
            tap=None if boot.target == "xen" else tap,
            vif=tap if boot.target == "xen" else None,
            mac=nic.mac,
            ports=tuple(Forward.of(text).port for text in nic.forward),
            passed=_passed(boot),
        )


def _on_host_sockets(boot: Boot) -> NetworkRecord:
    interface = _interface(boot.arguments)
    config = next(iter(boot.network.values()), None)
    sockets = "host sockets" if boot.target == "unix" else "no network"
    return NetworkRecord(
        device=None,
        mode="baked" if config is not None and config.baked else sockets,
        address=str(interface.ip) if interface else None,
        prefix=interface.network.prefixlen if interface else None,
        netmask=str(interface.netmask) if interface else None,
        gateway=str(config.gateways[0]) if config is not None and config.gateways else None,
        link=None,
        tap=None,
        vif=None,
        mac=None,
        ports=ports(boot.arguments),
        passed=_passed(boot),
    )


def _passed(boot: Boot) -> tuple[str, ...]:
    return tuple(arg for arg in boot.arguments if _PASSED.match(arg))


def ports(arguments: tuple[str, ...]) -> tuple[int, ...]:
    """Return the TCP ports that arguments name by the custom of MirageOS's unikernels.

    Raises ValueError for a number that is no port.
    """
    named = [match[1] for arg in arguments if (match := _PORT.match(arg))]
    for number in named:
        if len(number) > 5 or not 0 < int(number) < 65536:
            raise ValueError(f"{number[:20]} is no port")
    return tuple(map(int, named))


def _interface(arguments: tuple[str, ...]) -> Interface | None:
    for arg in arguments:
        if match := _ADDRESS.match(arg):
            try:
                return ip_interface(match[1])
            except ValueError:
                return None
    return None


_EVERY = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - told apart here, not bound


@dataclass(frozen=True)
class Endpoint:
    """A TCP address on this host; `address` is None for every one of them."""

    address: str | None
    port: int

    @classmethod
    def of(cls, address: str, port: int) -> "Endpoint":
        """Return what a socket listens on that is bound to an address."""
        return cls(None if address in _EVERY else address, port)

    def overlaps(self, other: "Endpoint") -> bool:
        """Whether two sockets could not listen on both."""
        return self.port == other.port and (
            self.address is None or other.address is None or self.address == other.address
        )

    def __str__(self) -> str:
        host = self.address or "*"
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


def endpoints(boot: Boot) -> list[Endpoint]:
    """Return the host's addresses that a guest listens on: its own sockets, or QEMU's forwards."""
    if boot.nics:
        forwards = [Forward.of(text) for nic in boot.nics.values() for text in nic.forward]
        return [Endpoint.of(one.address, one.port) for one in forwards if one.protocol == "tcp"]
    if boot.target != "unix":
        return []
    found = [str(one.ip) for arg in boot.arguments if (one := _interface((arg,)))]
    return [
        Endpoint.of(address, port) for port in ports(boot.arguments) for address in found or [""]
    ]


def shared(guests: Mapping[str, Iterable[Endpoint]]) -> tuple[str, str, Endpoint] | None:
    """Return two guests that would listen on one address, and that address."""
    by_port: dict[int, list[tuple[str, Endpoint]]] = defaultdict(list)
    for name, wanted in guests.items():
        for endpoint in wanted:
            for other, taken in by_port[endpoint.port]:
                if other != name and endpoint.overlaps(taken):
                    return other, name, endpoint
            by_port[endpoint.port].append((name, endpoint))
    return None
