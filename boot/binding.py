"""A guest's devices bound to this host: logical names to links and files. Pure."""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping

from mirage_hooks.boot import host, links, network
from mirage_hooks.boot.device import HOST_NETWORK, Nic, Volume
from mirage_hooks.boot.errors import ConfigError
from mirage_hooks.boot.guest import Boot, Guest
from mirage_hooks.boot.host import Host


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
        if guest.check.ping and where.user:
            raise ConfigError("check ping: nobody but QEMU reaches a guest on its own network")
        own = config.mac or links.mac_address(installation, guest.name, device)
        mac = None if guest.target == "unix" else own.lower()
        if where.bridge is not None:
            found[device] = Nic("bridge", where.bridge, mac)
        elif where.tap is not None:
            found[device] = Nic("tap", where.tap, mac)
        else:
            found[device] = Nic("user", None, mac, where.forward)
    if guest.check.ping and not found:
        raise ConfigError("check ping: the guest has no network device of its own")
    return found


def volumes(guest: Guest, bound: Host) -> dict[str, Volume]:
    """Return a guest's block devices as bound to this host. Raises ConfigError."""
    for device, config in guest.block.items():
        if config.volume not in bound.volumes:
            raise ConfigError(
                f"block {device}: volume {config.volume!r} is not bound on this host",
                f"bind it: [volumes.{config.volume}] with path = '...' in {host.NAME}",
            )
    return {
        device: Volume(bound.volumes[config.volume].path, config.readonly)
        for device, config in guest.block.items()
    }


def admit(boot: Boot, bound: Host) -> None:
    """Raise ConfigError where a recorded boot has devices that this host no longer binds."""
    for device, nic in boot.nics.items():
        where = bound.networks.get(boot.network[device].network)
        if where is None or nic.link not in {where.bridge, where.tap}:
            name = boot.network[device].network
            raise ConfigError(f"network {device}: {name} is bound to {nic.link} no longer")
    paths = {volume.path for volume in bound.volumes.values()}
    for device, one in boot.volumes.items():
        if one.path not in paths:
            raise ConfigError(f"block {device}: {one.path} is no volume of this host any more")


def exclusive(boot: Boot) -> frozenset[str]:
    """Return what only one guest at a time can have, in words: its addresses, taps and volumes."""
    return frozenset(_exclusive(boot))


def _exclusive(boot: Boot) -> Iterator[str]:
    for device, nic in boot.nics.items():
        config = boot.network[device]
        if nic.kind == "user":
            continue
        where = f"network {config.network}"
        yield from (f"address {interface.ip} on {where}" for interface in config.interfaces)
        if nic.mac is not None:
            yield f"mac {nic.mac} on {where}"
        if nic.kind == "tap":
            yield f"tap {nic.link}"
    for volume in boot.volumes.values():
        if not volume.readonly:
            yield f"volume {os.path.realpath(volume.path)}"


def refuse_shared(boots: Mapping[str, Boot]) -> None:
    """Raise ConfigError where two guests would have the same port, address, tap or volume."""
    if shared := network.shared({name: network.endpoints(boot) for name, boot in boots.items()}):
        one, other, endpoint = shared
        raise ConfigError(
            f"guests {one} and {other} have one address: {endpoint}",
            "give each its own, or its own port",
        )
    holders: dict[str, list[str]] = defaultdict(list)
    for name, boot in boots.items():
        for what in exclusive(boot):
            holders[what].append(name)
    for what, names in sorted(holders.items()):
        if len(names) > 1:
            raise ConfigError(f"guests {' and '.join(names)} have one {what}", "give each its own")
