"""What a guest is: frozen values, validated when made, and the identity of a boot."""

import hashlib
import re
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from mirage_hooks.boot.control import RestartPolicy

Target = Literal["unix", "hvt", "spt", "virtio", "xen"]

NAME = re.compile(r"[A-Za-z][-A-Za-z0-9_.]*\Z")
_DEVICE = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,66}\Z")  # Solo5's own have 67 at most
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)\Z")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

# A number of more than 4300 digits cannot be written, in no message: TOML has them in hex, too.
_MOST = 10**40

# The longest a check may take, seconds: the lock is held meanwhile.
MOST_WITHIN = 900

# The logical network of the host's own sockets: MirageOS's socket stack, on the unix target.
HOST_NETWORK = "host"


def seconds(duration: str) -> float:
    """Return a duration such as "200ms", "10s", "5m" or "1h" in seconds. Raises ValueError."""
    match = _DURATION.match(duration)
    if match is None:
        raise ValueError(f"{duration!r} is no duration: write it like '200ms', '10s' or '5m'")
    return float(match[1]) * _UNITS[match[2]]


def check_name(name: str) -> str:
    """Return a guest's name if it can be one. Raises ValueError."""
    if not NAME.match(name) or len(name) > 100:
        raise ValueError(
            f"{name!r} cannot name a guest: it starts with a letter, goes on with letters, digits, "
            "'-', '_' and '.', and has at most 100 of them"
        )
    return name


class NetworkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How one network device of a guest is attached and addressed."""

    network: str = HOST_NETWORK
    address: str | None = None
    gateway: str | None = None
    dhcp: bool = False
    baked: bool = False

    def __post_init__(self) -> None:
        modes = [self.address is not None, self.dhcp, self.baked]
        if sum(modes) > 1:
            raise ValueError("only one of address, dhcp and baked can be given")
        if self.gateway is not None and self.interface is None:
            raise ValueError("a gateway needs an address")
        if self.interface is not None:
            if "%" in str(self.address):
                raise ValueError(f"address {self.address!r} has a zone, which no guest takes")
            if "/" not in (self.address or ""):
                raise ValueError(
                    f"address {self.address!r} has no prefix: write it like '10.0.0.2/24'"
                )
            if "%" in (self.gateway or ""):
                raise ValueError(f"gateway {self.gateway!r} has a zone, which no guest takes")
            if self.gateway is not None and ip_address(self.gateway) not in self.interface.network:
                raise ValueError(f"gateway {self.gateway} is not on {self.interface.network}")
        if self.network == HOST_NETWORK and (self.dhcp or self.gateway is not None):
            raise ValueError("the host's own sockets take neither dhcp nor a gateway")

    @property
    def mode(self) -> str:
        """How the device gets its address, in a word, or the address itself."""
        if self.address is not None:
            return f"{self.address} via {self.gateway}" if self.gateway else self.address
        return "dhcp" if self.dhcp else "baked" if self.baked else "no address"

    @property
    def interface(self) -> IPv4Interface | IPv6Interface | None:
        """The static address with its prefix, or None."""
        return ip_interface(self.address) if self.address is not None else None


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What makes a guest healthy: all that is given, `within` a time; tried at `interval`."""

    alive: str | None = None
    tcp: str | None = None
    http: str | None = None
    console: str | None = None
    within: str = "10s"
    interval: str = "250ms"

    def __post_init__(self) -> None:
        for duration in (self.alive, self.within, self.interval):
            if duration is not None:
                seconds(duration)
        if seconds(self.within) > MOST_WITHIN:
            raise ValueError(f"within is at most {MOST_WITHIN} s: others wait for the deploy")
        if not 0 < seconds(self.interval) <= seconds(self.within):
            raise ValueError("interval has to be more than nothing and at most within")
        if self.alive_seconds > seconds(self.within):
            raise ValueError(f"alive ({self.alive}) has to be at most within ({self.within})")
        if self.tcp is not None:
            split_address(self.tcp)
        if self.http is not None:
            split_url(self.http)
        if self.console is not None:
            try:
                re.compile(self.console)
            except (re.error, OverflowError, RecursionError) as error:
                raise ValueError(
                    f"console {self.console!r} is no regular expression: {error}"
                ) from None

    @property
    def alive_seconds(self) -> float:
        """How long the guest must have run: 2 s where nothing else is asked."""
        if self.alive is not None:
            return seconds(self.alive)
        return 0.0 if self.tcp or self.http or self.console else 2.0


def split_address(address: str) -> tuple[str, int]:
    """Return ("10.0.0.2", 80) for "10.0.0.2:80"; IPv6 is in brackets. Raises ValueError."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not _is_host(host) or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise ValueError(f"{address!r} is no address: write it like '10.0.0.2:80' or '[::1]:80'")
    return host, int(port)


def split_url(url: str) -> tuple[str, int]:
    """Return the host and the port that an http or https URL leads to. Raises ValueError."""
    message = f"{url!r} is no address: write it like 'http://10.0.0.2/'"
    try:
        parts = urlsplit(url)
        usual = {"http": 80, "https": 443}[parts.scheme]
        port = usual if parts.port is None else parts.port
    except (ValueError, KeyError):
        raise ValueError(message) from None
    if (
        not parts.hostname
        or not port
        or not _is_host(parts.hostname)
        or not re.fullmatch("[!-~]+", url)
    ):
        raise ValueError(message)
    return parts.hostname, port


def _is_host(host: str) -> bool:
    """Whether a resolver would take it: Python raises UnicodeError for one it cannot encode."""
    try:
        return bool(host.encode("idna")) and host.isprintable()
    except UnicodeError:
        return False


class Restart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """When the monitor boots a guest that ended again."""

    on: Literal["never", "failure", "always"] = "failure"
    limit: int = 5
    window: str = "10m"

    def __post_init__(self) -> None:
        seconds(self.window)
        if self.limit < 1:
            raise ValueError("limit has to be at least 1; on = 'never' restarts nothing")
        if self.limit > _MOST:
            raise ValueError("limit has to be at most 10^40")

    def policy(self) -> RestartPolicy:
        """Return it in the monitor's terms."""
        return RestartPolicy(self.on, self.limit, seconds(self.window))


class Guest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A guest as the manifest and the host file together describe it."""

    name: str
    target: Target
    image: str
    memory: int = 32
    args: tuple[str, ...] = ()
    network: dict[str, NetworkConfig] = {}
    check: Check = Check()
    restart: Restart = Restart()
    user: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.memory < 1:
            raise ValueError("memory is in MiB and has to be at least 1")
        if self.memory > _MOST:
            raise ValueError("memory is in MiB and has to be at most 10^40")
        for device in self.network:
            if not _DEVICE.match(device):
                raise ValueError(f"{device!r} cannot name a network device")
        for arg in self.args:
            if not arg or not arg.isprintable():
                raise ValueError(f"argument {arg!r} is empty or holds a control character")


class Boot(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that makes one boot differ from another: the guest's state, to be booted again as it was.

    Defaults are omitted from the encoding, so that a field added later leaves digests as they are.
    `secrets` is the vault's digest of the secret arguments, which follow `arguments`.
    """

    target: Target
    image: str
    arguments: tuple[str, ...] = ()
    memory: int = 32
    network: dict[str, NetworkConfig] = {}
    user: str | None = None
    secrets: str | None = None

    @property
    def digest(self) -> str:
        """The boot digest: sha256, in hex. Two equal digests never need a reboot."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()


def short(identity: str) -> str:
    """Return a hash as people read it, in git's seven digits."""
    return identity[:7]
