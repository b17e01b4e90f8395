"""A guest's devices bound to this host: logical names to links and files."""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping

import msgspec

from mirage_hooks.boot import host, links, network
from mirage_hooks.boot.device import HOST_NETWORK, Forward, NetworkConfig, Nic, Volume
from mirage_hooks.boot.errors import ConfigError
from mirage_hooks.boot.guest import Boot, Guest
from mirage_hooks.boot.host import Host, HostNetwork


def nics(guest: Guest, bound: Host, installation: str) -> dict[str, Nic]:
    """Return a guest's network devices as bound to this host. Raises ConfigError.

    None for those on the host's own sockets.
    """
    found = {}
    for device, config in guest.network.items():
        if config.network == HOST_NETWORK:
            continue
        if config.network not in bound.networks:
            raise ConfigError(
                f"network {device}: {config.network!r} is not bound on this host",
                f"bind it: [networks.{config.network}] with bridge = '...' in {host.NAME}",
            )
        where = bound.networks[config.network]
        if where.user:
            _refuse_inside_qemu(guest, device, config)
        for interface in config.interfaces:
            if interface.ip in {own.ip for own in where.interfaces}:
                raise ConfigError(
                    f"network {device}: address {interface.ip} is this host's own on {where.bridge}"
                )
        own = config.mac or links.mac_address(installation, guest.name, device)
        if guest.target == "xen" and where.bridge is None:
            raise ConfigError(
                f"network {device}: a domain is on a bridge, and {config.network} has none",
                f"bind it: [networks.{config.network}] with bridge = '...' in {host.NAME}",
            )
        nic = _nic(where, None if guest.target == "unix" else own.lower())
        script = where.script if guest.target == "xen" else None
        found[device] = msgspec.structs.replace(nic, script=script)
    if guest.check.ping and not found:
        raise ConfigError("check ping: the guest has no network device of its own")
    return found


def _nic(where: HostNetwork, mac: str | None) -> Nic:
    if where.bridge is not None:
        return Nic("bridge", where.bridge, mac)
    if where.tap is not None:
        return Nic("tap", where.tap, mac)
    return Nic("user", None, mac, where.forward)


def _refuse_inside_qemu(guest: Guest, device: str, config: NetworkConfig) -> None:
    """Raise ConfigError for what cannot be in QEMU's own network (net_slirp_init of net/slirp.c).

    It needs addresses for a router, a name server and a DHCP server, beside the guest's.
    """
    if guest.target != "virtio":
        raise ConfigError(
            f"network {device}: {config.network} is QEMU's own network, for target virtio alone",
            f"bind {config.network} to a bridge in {host.NAME}",
        )
    if guest.check.ping:
        raise ConfigError("check ping: nobody but QEMU reaches a guest in QEMU's own network")
    for interface in config.interfaces:
        if interface.version == 6:
            raise ConfigError(f"network {device}: {interface}: QEMU's own network is IPv4 here")
        if not 4 <= interface.network.prefixlen <= 29:
            raise ConfigError(
                f"network {device}: {interface}: QEMU's own network takes a prefix of /4 to /29"
            )


def volumes(guest: Guest, bound: Host) -> dict[str, Volume]:
    """Return a guest's block devices that are volumes of this host's. Raises ConfigError."""
    found = {}
    for device, config in guest.block.items():
        if config.volume is None:
            continue
        if config.volume not in bound.volumes:
            raise ConfigError(
                f"block {device}: volume {config.volume!r} is not bound on this host",
                f"bind it: [volumes.{config.volume}] with path = '...' in {host.NAME}",
            )
        found[device] = Volume(bound.volumes[config.volume].path, config.readonly)
    return found


def admit(boot: Boot, bound: Host) -> None:
    """Raise ConfigError where a recorded boot has devices that this host no longer binds so."""
    hint = f"bind it so again in {host.NAME}, or boot another state"
    for device, nic in boot.nics.items():
        name = boot.network[device].network
        if name not in bound.networks:
            raise ConfigError(
                f"network {device}: {name!r} is not bound on this host any more", hint
            )
        now = _nic(bound.networks[name], nic.mac)
        if (now.kind, now.link) != (nic.kind, nic.link):
            raise ConfigError(
                f"network {device}: {name} is bound to {_place(now)}, no longer to {_place(nic)}",
                hint,
            )
        if gone := sorted(set(nic.forward) - set(now.forward)):
            raise ConfigError(f"network {device}: {name} has no forward {gone[0]!r} any more", hint)
    paths = {volume.path for volume in bound.volumes.values()}
    for device, one in boot.volumes.items():
        if one.image is None and one.path not in paths:
            raise ConfigError(
                f"block {device}: {one.path} is no volume of this host any more", hint
            )


def _place(nic: Nic) -> str:
    return f"{nic.kind} {nic.link}" if nic.link is not None else "QEMU's own network"


def contested(one: tuple[str, Boot], other: tuple[str, Boot]) -> str:
    """Return, in words, what two guests booted so would both have, and cannot; "" for nothing."""
    theirs = dict(_claims(*other))
    both = [what for what, alone in _claims(*one) if what in theirs and (alone or theirs[what])]
    return min(both, default="")


def torn(one: Boot, other: Boot) -> bool:
    """Whether two guests booted so have a volume that one of them writes to."""
    theirs = _volumes(other)
    return any(
        path in theirs and (writes or theirs[path]) for path, writes in _volumes(one).items()
    )


def written(boot: Boot) -> frozenset[str]:
    """Return the real paths of the volumes that a guest may write to."""
    return frozenset(path for path, writes in _volumes(boot).items() if writes)


def _volumes(boot: Boot) -> dict[str, bool]:
    """Return the real paths of a guest's volumes, and whether it may write to each."""
    found: dict[str, bool] = {}
    for volume in boot.volumes.values():
        if volume.image is None:
            path = os.path.realpath(volume.path)
            found[path] = not volume.readonly or found.get(path, False)
    return found


def _claims(guest: str, boot: Boot) -> Iterator[tuple[str, bool]]:
    """Yield what a guest has of the host, in words, and whether it has to have it alone.

    A volume that one guest writes is read by no other: what that would read is torn.
    """
    if boot.target == "xen":
        yield f"domain {boot.domain.called(guest)}", True
    for device, nic in boot.nics.items():
        if nic.kind == "user":
            ends = (Forward.of(text).host_end for text in nic.forward)
            yield from ((f"port {end}", True) for end in ends)
            continue
        config = boot.network[device]
        yield from ((f"address {one.ip} on {nic.link}", True) for one in config.interfaces)
        if nic.mac is not None:
            yield f"mac {nic.mac} on {nic.link}", True
        if nic.kind == "tap":
            yield f"tap {nic.link}", True
    for volume in boot.volumes.values():
        if volume.image is None:
            yield f"volume {os.path.realpath(volume.path)}", not volume.readonly


def refuse_shared(boots: Mapping[str, Boot]) -> None:
    """Raise ConfigError where two guests would have one port, address, tap, volume or domain."""
    if shared := network.shared({name: network.endpoints(boot) for name, boot in boots.items()}):
        one, other, endpoint = shared
        raise ConfigError(
            f"guests {one} and {other} have one address: {endpoint}",
            "give each its own, or its own port",
        )
    holders: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    for name, boot in boots.items():
        for what, alone in _claims(name, boot):
            holders[what].append((name, alone))
    for what, found in sorted(holders.items()):
        if len(found) > 1 and any(alone for _, alone in found):
            names = dict.fromkeys(name for name, _ in found)
            if len(names) > 1:
                raise ConfigError(
                    f"guests {' and '.join(names)} have one {what}", "give each its own"
                )
            raise ConfigError(f"guest {found[0][0]} has {what} for two of its devices")
