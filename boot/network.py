"""Network configurations: as configured, and as observed; how they are logged."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_interface

import msgspec
import psutil

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


@dataclass(frozen=True)
class Endpoint:
    """A TCP address on this host; `address` is None for every one of them."""

    address: str | None
    port: int

    def overlaps(self, other: "Endpoint") -> bool:
        """Whether two sockets could not listen on both."""
        return self.port == other.port and (
            self.address is None or other.address is None or self.address == other.address
        )

    def __str__(self) -> str:
        host = self.address or "*"
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


_EVERY = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - told apart here, not bound


def _endpoint(address: str, port: int) -> Endpoint:
    return Endpoint(None if address in _EVERY else address, port)


def endpoints(arguments: tuple[str, ...]) -> list[Endpoint]:
    """Return the host's addresses that a socket-stack guest with these arguments listens on."""
    found = [str(interface.ip) for arg in arguments if (interface := _interface((arg,)))]
    return [_endpoint(address, port) for port in ports(arguments) for address in found or [""]]


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


# The addresses that processes listen on, and the process of each where it can be seen.
Listening = dict[int, list[tuple[Endpoint, int | None]]]


def listening(but: frozenset[int]) -> Listening:
    """Return, by port, what processes other than `but` listen on now."""
    found: Listening = defaultdict(list)
    for connection in psutil.net_connections(kind="tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.pid not in but:
            endpoint = _endpoint(*connection.laddr)
            found[endpoint.port].append((endpoint, connection.pid))
    return found


def taken(wanted: Iterable[Endpoint], listening: Listening) -> tuple[Endpoint, str] | None:
    """Return the first wanted address that a process listens on, and that process's name."""
    for endpoint in wanted:
        for found, pid in listening.get(endpoint.port, []):
            if endpoint.overlaps(found):
                return endpoint, _process_name(pid)
    return None


def _process_name(pid: int | None) -> str:
    if pid is None:
        return "another user's process"
    try:
        return f"{psutil.Process(pid).name()} (pid {pid})"
    except psutil.NoSuchProcess:
        return f"pid {pid}"


def family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def families(pids: Iterable[int]) -> frozenset[int]:
    """Return processes and their descendants: one look at all processes, however many are asked."""
    children: dict[int, list[int]] = defaultdict(list)
    for process in psutil.process_iter(["ppid"]):
        children[process.info["ppid"]].append(process.pid)
    found, left = set[int](), list(pids)
    while left:
        if (pid := left.pop()) not in found:
            found.add(pid)
            left.extend(children.get(pid, []))
    return frozenset(found)


def observed(pid: int) -> list[Endpoint]:
    """Return the TCP addresses that a process and its descendants listen on now."""
    found = set()
    for member in family(pid):
        try:
            for connection in psutil.Process(member).net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    found.add(_endpoint(*connection.laddr))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return sorted(found, key=str)
