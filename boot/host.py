"""The host file: what this host lets the repository touch. Never read from a commit."""

import math
import re
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from mirage_hooks.boot import device, ownership, tables
from mirage_hooks.boot.device import Forward
from mirage_hooks.boot.errors import ConfigError, HostError, RepositoryError
from mirage_hooks.boot.guest import Target, XenMode, check_name, seconds

T = TypeVar("T")

NAME = "host.toml"

# A link's name in the kernel (dev_valid_name of net/core/dev.c), without what needs quoting.
_LINK = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,14}\Z")

# Without what a vif's own syntax takes apart.
_SCRIPT = re.compile(r"[-A-Za-z0-9_./]+\Z")

# git-check-ref-format(1): `main~1` would be read as a revision, not as a branch.
_NO_BRANCH = re.compile(r"[\0- ~^:?*\[\\\x7f]|\.\.|@\{|//|^[-/.]|[/.]$")


# Nobody waits longer for an upstream; seconds.
_LONGEST_FETCH = 3600.0


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What commits may ask for at most: targets, memory in MiB, an unpacked image in MiB.

    Of Xen: CPUs of a domain, and how it is booted; for HVM root runs a QEMU in the first domain.
    """

    targets: tuple[Target, ...] = ("unix",)
    memory: int = 1024
    image: int = 256
    vcpus: int = 1
    domains: tuple[XenMode, ...] = ("pv", "pvh")


class Secrets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a guest's secret arguments are."""

    args_file: str

    def __post_init__(self) -> None:
        check_path("args_file", self.args_file)


class HostNetwork(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a logical network is on this host: a bridge, a tap of its own, or QEMU's own network.

    A bridge is there already, or made by us with `create`, with `address` for the host itself.
    `forward` are ports of the host that lead to a guest in QEMU's own network. `script` attaches
    the vifs of Xen domains, where the usual one does not (xl-network-configuration(5)).
    """

    bridge: str | None = None
    create: bool = False
    address: str | tuple[str, ...] | None = None
    tap: str | None = None
    user: bool = False
    forward: tuple[str, ...] = ()
    script: str | None = None

    def __post_init__(self) -> None:
        if self.script is not None and (self.bridge is None or not _SCRIPT.match(self.script)):
            raise ValueError(f"script {self.script!r}: a program's name or path, beside a bridge")
        if [self.bridge is not None, self.tap is not None, self.user].count(True) != 1:
            raise ValueError("it has to have one of bridge, tap and user = true")
        for link in (self.bridge, self.tap):
            if link is not None and not _LINK.match(link):
                raise ValueError(f"{link!r} cannot name a link: it has at most 15 characters")
        if (self.create or self.address) and self.bridge is None:
            raise ValueError("create and address are for a bridge")
        if bool(self.address) != self.create:
            raise ValueError("create = true and address go together: a bridge that exists has one")
        device.NetworkConfig(network="create", address=self.address)
        if self.forward and not self.user:
            raise ValueError("forward is for user = true: elsewhere a guest has an address")
        ends = [Forward.of(text).host_end for text in self.forward]
        for end in ends:
            if ends.count(end) > 1:
                raise ValueError(f"forward: {end} is given more than once")

    @property
    def interfaces(self) -> tuple[device.Interface, ...]:
        """The host's own addresses on a bridge that we make."""
        return device.NetworkConfig(network="create", address=self.address).interfaces


class HostVolume(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a logical volume is."""

    path: str

    def __post_init__(self) -> None:
        check_path("path", self.path)


class Tenders(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where tenders are that are not on the PATH; `kvm` is false where it is not to be used.

    `xen` is where xl is, or the words that start it, such as `sudo -n xl`.
    """

    hvt: str | None = None
    spt: str | None = None
    virtio: str | None = None
    xen: str | tuple[str, ...] | None = None
    kvm: bool = True

    def __post_init__(self) -> None:
        if self.xen is not None and not all(self.xen):
            raise ValueError("xen has to name xl")
        for key in ("hvt", "spt", "virtio"):
            if (path := getattr(self, key)) is not None:
                check_path(key, path)


class Notify(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The command that is told of outcomes: a program and its arguments, none for no command."""

    command: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for program in self.command[:1]:
            check_path("command", program)
        for word in self.command:
            if not word.isprintable():
                raise ValueError(f"command: {word!r} holds a control character")


class Poll(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How this host polls: how long a fetch may take, and what is done about diverged history.

    `stop` deploys nothing new then; `follow` takes what the upstream has, and keeps what it lacks.
    """

    timeout: str = "60s"
    upstream: Literal["stop", "follow"] = "stop"

    def __post_init__(self) -> None:
        if not 1 <= seconds(self.timeout) <= _LONGEST_FETCH:
            raise ValueError("timeout has to be between 1s and 1h")

    @property
    def seconds(self) -> int:
        """How long a fetch may take."""
        return math.ceil(seconds(self.timeout))


def check_path(key: str, path: str) -> None:
    """Raise ValueError for what is no whole path."""
    if not path.startswith("/") or not path.isprintable():
        raise ValueError(f"{key} {path!r} has to be a whole path: one that starts with '/'")


class Host(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The host file. `guests` are those that are to run here, None for all.

    `keep` is how many healthy states of each guest can be gone back to.
    """

    branch: str
    user: str | None = None
    guests: tuple[str, ...] | None = None
    keep: int = 3
    limits: Limits = Limits()
    guest: dict[str, dict[str, object]] = {}
    secrets: dict[str, Secrets] = {}
    networks: dict[str, HostNetwork] = {}
    volumes: dict[str, HostVolume] = {}
    tenders: Tenders = Tenders()
    notify: Notify = Notify()
    poll: Poll = Poll()

    def __post_init__(self) -> None:
        if not self.branch or _NO_BRANCH.search(self.branch):
            raise ValueError(f"branch {self.branch!r} is no branch")
        if self.keep < 1:
            raise ValueError(
                "keep has to be at least 1: a failed deploy goes back to what was healthy"
            )
        for name in self.guests or ():
            check_name(name)

    def selects(self, name: str) -> bool:
        """Whether a guest is among those that are to run here."""
        return self.guests is None or name in self.guests


def load(path: Path) -> tuple[Host, bytes]:
    """Return a host file, and its bytes as they were read.

    Raises ConfigError; RepositoryError where mirage-hooks is not installed.
    """
    try:
        path.stat()
        ownership.refuse_foreign([path])
        data = path.read_bytes()
        text = data.decode()
    except (FileNotFoundError, NotADirectoryError):
        raise RepositoryError(
            f"not installed in {path.parent.parent}",
            "run: mirage-hooks install",
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise HostError(f"{path} cannot be read: {error.strerror}") from None
    return parse(text, str(path)), data


def parse(text: str, source: str) -> Host:
    """Return the host file in a text. Raises ConfigError."""
    host = tables.parse(text, source)
    guests = tables.take_table(host, "guest", source)
    limits = tables.convert(host.pop("limits", {}), Limits, source, "limits")
    tenders = tables.convert(host.pop("tenders", {}), Tenders, source, "tenders")
    notify = tables.convert(host.pop("notify", {}), Notify, source, "notify")
    poll = tables.convert(host.pop("poll", {}), Poll, source, "poll")
    secrets = _take(host, "secrets", Secrets, source)
    networks = _take(host, "networks", HostNetwork, source)
    volumes = _take(host, "volumes", HostVolume, source)
    if device.HOST_NETWORK in networks:
        raise ConfigError(f"{source}: networks host: that is the name of the host's own sockets")
    made = [one.bridge for one in networks.values() if one.create]
    for bridge in made:
        if made.count(bridge) > 1:
            raise ConfigError(
                f"{source}: two networks create bridge {bridge}",
                "give one of them both addresses; the other names the bridge, and no more",
            )
    rest = tables.convert(host, Host, source, "")
    return msgspec.structs.replace(
        rest,
        limits=limits,
        guest=guests,
        secrets=secrets,
        networks=networks,
        volumes=volumes,
        tenders=tenders,
        notify=notify,
        poll=poll,
    )


def _take(host: dict[str, object], key: str, to: type[T], source: str) -> dict[str, T]:
    found = tables.take_table(host, key, source)
    return {name: tables.convert(one, to, source, f"{key} {name}") for name, one in found.items()}
