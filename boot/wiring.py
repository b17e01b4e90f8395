"""A generation's devices on this host: made before it boots, and taken away once it is over."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mirage_hooks.boot import access, binding, domains, links, taps, targets, users, volumes
from mirage_hooks.boot.device import Nic
from mirage_hooks.boot.generation import Generation
from mirage_hooks.boot.guest import Boot
from mirage_hooks.boot.host import Host
from mirage_hooks.boot.plan import Known
from mirage_hooks.boot.record import State

_COPY = ".img"
# Who attaches to a tap opens this, and needs no other right (tun(4) of Linux's networking docs).
_TUN = "/dev/net/tun"


@dataclass(frozen=True)
class Wiring:
    """The links and files of this host behind a generation's devices, by the devices' names."""

    taps: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Held:
    """What guests have that run until one is fired: taps made beforehand, volumes they write."""

    taps: frozenset[str] = frozenset()
    written: frozenset[str] = frozenset()

    @classmethod
    def by(cls, known: Mapping[str, Known]) -> "Held":
        """Return what those guests have that live."""
        boots = [one.live.boot for one in known.values() if one.live is not None]
        nics = [nic for boot in boots for nic in boot.nics.values()]
        return cls(
            taps=frozenset(str(nic.link) for nic in nics if nic.kind == "tap"),
            written=frozenset().union(*map(binding.written, boots)),
        )


def attach(state: State, generation: Generation, copies: bool, held: Held) -> Wiring:
    """Make a generation's taps, and have its volumes ready. Raises HostError.

    `copies` says that a tender writes to what is to be read only. What was made is taken away by
    `sweep`, if this fails as well.
    """
    boot = generation.boot
    made = taps_of(state, generation)
    if targets.named(boot.target).outside:
        return _attach_outside(boot, made, _paths(state, boot))
    for device, name in made.items():
        _have_tap(state, generation, boot.nics[device], name, held.taps)
    files = {}
    for device, path in _paths(state, boot).items():
        files[device] = path
        volumes.refuse_unfit(path)
        volume = boot.volumes[device]
        if volume.readonly and copies:
            volumes.refuse_torn(path, held.written)
            own = _folder(state, generation) / f"{device}{_COPY}"
            volumes.copy(path, own, boot.user)
            files[device] = str(own)
        elif volume.image is None:
            volumes.refuse_closed(path, boot.user, volume.readonly)
    return Wiring(made, files)


def _paths(state: State, boot: Boot) -> dict[str, str]:
    """Return the files behind a boot's block devices: the host's own, and disks in the store."""
    return {
        device: volume.path if volume.image is None else str(state.store / volume.image)
        for device, volume in boot.volumes.items()
    }


def _attach_outside(boot: Boot, made: Mapping[str, str], files: Mapping[str, str]) -> Wiring:
    """Look whether what somebody else will attach is there. Raises HostError."""
    for nic in boot.nics.values():
        if nic.link is not None and nic.script is None:
            links.require_bridge(nic.link)
    for path in files.values():
        volumes.refuse_unfit(path)
    return Wiring(made, files)


def taps_of(state: State, generation: Generation) -> dict[str, str]:
    """Return the names of a generation's taps, or vifs, by the devices' names, there or not."""
    number, guest = generation.number, generation.guest
    return {
        device: nic.link
        if nic.kind == "tap" and nic.link is not None
        else links.tap_name(state.installation, guest, number, device)
        for device, nic in generation.boot.nics.items()
        if nic.kind != "user"
    }


def make_bridge(state: State, bound: Host, network: str) -> None:
    """Make the bridge of a logical network, where the host file says so. Raises HostError."""
    where = bound.networks.get(network)
    if where is not None and where.create and where.bridge is not None:
        links.create_bridge(
            where.bridge,
            where.interfaces,
            links.bridge_mac(state.installation, where.bridge),
            links.bridge_alias(state.installation),
        )


def sweep(state: State, bound: Host, known: Mapping[str, Known]) -> None:
    """Take away what generations that are over have left: taps, copies of volumes, domains.

    The domain of a guest that is adrift serves until the next one takes its place.
    """
    over = [
        generation
        for one in known.values()
        for generation in one.generations
        if generation != one.live
    ]
    for generation in over:
        if any(volume.readonly for volume in generation.boot.volumes.values()):
            for copy in _folder(state, generation).glob(f"*{_COPY}"):
                copy.unlink(missing_ok=True)
    everything = [*over, *(one.live for one in known.values() if one.live is not None)]
    if any(generation.boot.nics for generation in everything):
        keep = {alias(state, one.live) for one in known.values() if one.live is not None}
        taps.sweep(state.installation, keep)
    # The last: it is all that fails where xl does.
    domains.sweep(state, bound, [one for one in over if not known[one.guest].adrift])


def remove(state: State) -> list[str]:
    """Take away every link that this installation made; return what was done, a line each."""
    gone = taps.sweep(state.installation, keep=())
    bridges, left = links.remove_bridges(state.installation)
    return [*(f"network: {name} removed" for name in [*gone, *bridges]), *left]


def alias(state: State, generation: Generation) -> str:
    """Return what the links of a generation are known by."""
    return links.tap_alias(state.installation, generation.guest, generation.number)


def _have_tap(
    state: State, generation: Generation, nic: Nic, name: str, held: Container[str]
) -> None:
    owner = users.uid_of(generation.boot.user)
    refuse_no_taps(generation.boot.user)
    if nic.kind == "tap":
        taps.require_tap(name, owner, name in held)
    elif nic.link is not None:
        taps.add_tap(name, nic.link, owner, alias(state, generation))


def refuse_no_taps(user: str | None) -> None:
    """Raise HostError where a user, None being who runs this, can attach to no tap."""
    access.refuse_closed(_TUN, user, hint=f"run as root: chmod 666 {_TUN}, as udev does")


def _folder(state: State, generation: Generation) -> Path:
    return state.generation_folder(generation.guest, generation.number)
