"""What a guest is: frozen values, validated when made, and the identity of a boot."""

import hashlib
import re
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from mirage_hooks.boot import device
from mirage_hooks.boot.control import RestartPolicy
from mirage_hooks.boot.device import BlockConfig, NetworkConfig, Nic, Volume

Target = Literal["unix", "hvt", "spt", "virtio", "xen"]

# How Xen boots a kernel (xl.cfg(5), `type`).
XenMode = Literal["pv", "pvh", "hvm"]

NAME = re.compile(r"[A-Za-z][-A-Za-z0-9_.]*\Z")
_VERSION = re.compile(r"([1-9])\.([0-9]{1,3})\Z")
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)\Z")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

# A number of more than 4300 digits cannot be written, in no message: TOML has them in hex, too.
_MOST = 10**40

# As many as Xen gives a domain (HVM_MAX_VCPUS of its public headers).
_MOST_VCPUS = 128

# The longest a check may take, seconds: the lock is held meanwhile.
MOST_WITHIN = 900


def seconds(duration: str) -> float:
    """Return a duration such as "200ms", "10s", "5m" or "1d" in seconds. Raises ValueError."""
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


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What makes a guest healthy: all that is given, `within` a time; tried at `interval`."""

    alive: str | None = None
    ping: bool = False
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
        return 0.0 if self.ping or self.tcp or self.http or self.console else 2.0


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


class Domain(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a guest of target xen is beside its devices and its memory.

    `name` is the domain's where that is another than the guest's. `type` is the image's own where
    it is not given, and so is the form of `arguments`: `--key=value` or, before MirageOS 3.9,
    `key=value`.
    """

    name: str | None = None
    type: XenMode | None = None
    vcpus: int = 1
    arguments: Literal["bare", "dashed"] | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            check_name(self.name)
        if not 1 <= self.vcpus <= _MOST_VCPUS:
            raise ValueError(f"vcpus has to be 1 to {_MOST_VCPUS}")

    def called(self, guest: str) -> str:
        """Return what the domain of a guest is called once it runs."""
        return self.name or guest


# One object: msgspec leaves a default out of the encoding, and so out of digests, by identity.
_USUAL = Domain()


class Guest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A guest as the manifest and the host file together describe it.

    `mirage` is the version of MirageOS that its image was built with: arguments differ by it.
    Guests with a lower `startup` are booted, and judged, before those with the next. `template` is
    the path of one in the repository that says of a domain what is not said elsewhere.
    """

    name: str
    target: Target
    image: str
    memory: int = 32
    args: tuple[str, ...] = ()
    network: dict[str, NetworkConfig] = {}
    block: dict[str, BlockConfig] = {}
    mirage: str | None = None
    check: Check = Check()
    restart: Restart = Restart()
    user: str | None = None
    startup: int = 0
    template: str | None = None
    domain: Domain = _USUAL

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.target != "xen" and (self.template is not None or self.domain != Domain()):
            raise ValueError("template and domain are for target xen")
        if self.memory < 1:
            raise ValueError("memory is in MiB and has to be at least 1")
        if self.memory > _MOST:
            raise ValueError("memory is in MiB and has to be at most 10^40")
        if not 0 <= self.startup <= _MOST:
            raise ValueError("startup has to be at least 0, and at most 10^40")
        for kind, names in (("network", self.network), ("block", self.block)):
            for name in names:
                if not device.NAME.match(name):
                    raise ValueError(f"{name!r} cannot name a {kind} device")
        if both := sorted(self.network.keys() & self.block.keys()):
            raise ValueError(f"{both[0]!r} names a network and a block device")
        if self.mirage is not None and not _VERSION.match(self.mirage):
            raise ValueError(f"mirage {self.mirage!r} is no version: write it like '3.10'")
        for arg in self.args:
            if not arg or not arg.isprintable():
                raise ValueError(f"argument {arg!r} is empty or holds a control character")

    @property
    def disks(self) -> dict[str, str]:
        """The paths of its disk images in the repository, by block device."""
        images = {device: config.image for device, config in self.block.items()}
        return {device: image for device, image in images.items() if image is not None}

    @property
    def mirage_version(self) -> tuple[int, int]:
        """The version of MirageOS, as numbers: 4.0 where nothing is said."""
        major, _, minor = (self.mirage or "4.0").partition(".")
        return int(major), int(minor)


class Boot(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that makes one boot differ from another: the guest's state, to be booted again as it was.

    Defaults are omitted from the encoding, so that a field added later leaves digests as they are.
    `nics` and `volumes` are the devices as bound to this host, by their names in the image.
    `secrets` is the vault's digest of the secret arguments, which follow `arguments`.
    """

    target: Target
    image: str
    arguments: tuple[str, ...] = ()
    memory: int = 32
    network: dict[str, NetworkConfig] = {}
    user: str | None = None
    secrets: str | None = None
    nics: dict[str, Nic] = {}
    volumes: dict[str, Volume] = {}
    domain: Domain = _USUAL

    @property
    def digest(self) -> str:
        """The boot digest: sha256, in hex. Two equal digests never need a reboot."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()

    @property
    def disks(self) -> frozenset[str]:
        """The disk images that it has of the store, by sha256."""
        images = (volume.image for volume in self.volumes.values())
        return frozenset(image for image in images if image is not None)

    @property
    def stored(self) -> frozenset[str]:
        """All that it has of the store: its image and its disks, by sha256."""
        return self.disks | {self.image}


def short(identity: str) -> str:
    """Return a hash as people read it, in git's seven digits."""
    return identity[:7]
