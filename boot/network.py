"""Network configurations: as configured; how they are logged."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_interface

import msgspec

from mirage_hooks.boot.guest import Boot

# Unikernels name their own ports; these keys are the custom (--port, --http-port, --https-port).
_PORT = re.compile(r"--(?:[a-z0-9]+-)*port=([0-9]+)\Z")
_ADDRESS = re.compile(r"--ipv[46]=(\S+)\Z")


class NetworkRecord(msgspec.Struct, frozen=True):
    """The network configuration of one boot, for the log."""

    mode: str
    address: str | None
    prefix: int | None
    netmask: str | None
    gateway: str | None
    ports: tuple[int, ...]
    passed: tuple[str, ...]

    def describe(self) -> str:
        """Return it in one line."""
        where = f"{self.address}/{self.prefix} (netmask {self.netmask})" if self.address else ""
        parts = [
            self.mode,
            where,
            f"gateway {self.gateway}" if self.gateway else "",
            f"port {', '.join(map(str, self.ports))}" if self.ports else "",
            f"passed as {' '.join(self.passed)}" if self.passed else "nothing passed",
        ]
        return ", ".join(part for part in parts if part)


def configured(boot: Boot) -> NetworkRecord:
    """Return the network configuration a boot asks for."""
    passed = tuple(arg for arg in boot.arguments if _ADDRESS.match(arg) or _PORT.match(arg))
    interface = _interface(boot.arguments)
    config = next(iter(boot.network.values()), None)
    return NetworkRecord(
        mode="baked" if config is not None and config.baked else "host sockets",
        address=str(interface.ip) if interface else None,
        prefix=interface.network.prefixlen if interface else None,
        netmask=str(interface.netmask) if interface else None,
        gateway=config.gateway if config is not None else None,
        ports=ports(boot.arguments),
        passed=passed,
    )


def ports(arguments: tuple[str, ...]) -> tuple[int, ...]:
    """Return the TCP ports that arguments name by the custom of MirageOS's unikernels.

    Raises ValueError for a number that is no port.
    """
    named = [match[1] for arg in arguments if (match := _PORT.match(arg))]
    for number in named:
        if len(number) > 5 or not 0 < int(number) < 65536:
            raise ValueError(f"{number[:20]} is no port")
    return tuple(map(int, named))


def _interface(arguments: tuple[str, ...]) -> IPv4Interface | IPv6Interface | None:
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


def endpoints(arguments: tuple[str, ...]) -> list[Endpoint]:
    """Return the host's addresses that a socket-stack guest with these arguments listens on."""
    found = [str(interface.ip) for arg in arguments if (interface := _interface((arg,)))]
    return [Endpoint.of(address, port) for port in ports(arguments) for address in found or [""]]


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
