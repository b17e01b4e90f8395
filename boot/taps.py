"""Taps: how a guest gets on a bridge. We make one for each generation; root may make one for good.

Making takes a right that an operator may not have: a helper can be given it (tap_helper).
"""

import json
import os
import pwd
import socket
import subprocess
from collections.abc import Collection
from pathlib import Path

from mirage_hooks.boot import links, netlink
from mirage_hooks.boot.errors import HostError
from mirage_hooks.boot.links import NotAllowed
from mirage_hooks.boot.netlink import Link
from mirage_hooks.boot.users import user_name

HELPER = "/opt/mirage-hooks/bin/mirage-hooks-tap"
# The bridges that the helper may put taps on, one a line: root's word that it is to be used.
HELPER_BRIDGES = Path("/etc/mirage-hooks/bridges")

_HELPER_SECONDS = 20


def add_tap(name: str, bridge: str, owner: int, alias: str) -> None:
    """Make a tap that a user may open, as a port of a bridge; up, and silent.

    One that is there already with this alias is made anew. Raises HostError; no tap is left then.
    """
    try:
        make(name, bridge, owner, alias)
    except NotAllowed:
        # The helper makes taps for who asks: it takes no word on whom else.
        if owner != os.geteuid() or not HELPER_BRIDGES.exists():
            raise
        _ask_helper({"do": "add", "name": name, "bridge": bridge, "alias": alias})


def make(name: str, bridge: str, owner: int, alias: str) -> None:
    """Make a tap ourselves. Raises NotAllowed where we may not, else as add_tap."""
    port_of = links.require_bridge(bridge)
    with links.failing(f"make tap {name} on bridge {bridge}", _by_root(bridge, owner, alias)):
        # A bridge whose MAC nobody set has the lowest of its ports', and changes it with them:
        # guests would send to a gateway that is no more.
        netlink.set_mac(port_of.index, port_of.mac)
        _make_way(name, owner, alias)
        with netlink.new_tap(name, owner) as index:
            netlink.set_alias(index, alias)
            netlink.silence(index)
            netlink.switch_off_offloads(name)
            netlink.set_up(index, master=port_of.index)


def require_tap(name: str, owner: int, held: bool = False) -> None:
    """Raise HostError where a tap that was made beforehand does not serve a user.

    It may be busy if it is `held` by a guest that will have ended.
    """
    with links.failing(f"look for tap {name}"):
        link = netlink.find(name)
    if link is None:
        raise HostError(
            f"network: tap {name} does not exist",
            f"run as root: {_commands(name, 'BRIDGE', owner)}",
        )
    if not link.tap:
        raise HostError(f"network: {name} is no tap", "name a tap for its network in host.toml")
    if not _may_open(link, owner):
        raise HostError(
            f"network: tap {name} cannot be opened by {user_name(owner)}, whom the guest runs as",
            f"run as root: ip link delete dev {name} && {_commands(name, 'BRIDGE', owner)}",
        )
    if not link.up:
        raise HostError(f"network: tap {name} is down", f"run as root: ip link set dev {name} up")
    if link.carrier and not held:
        raise _busy(name)


def sweep(installation: str, keep: Collection[str]) -> list[str]:
    """Remove every tap of an installation but those with an alias to keep; return their names."""
    if not any(_may_be_stale(name, installation, keep) for _, name in socket.if_nameindex()):
        return []
    try:
        return remove(installation, keep)
    except NotAllowed:
        if not HELPER_BRIDGES.exists():
            raise
        return _ask_helper({"do": "sweep", "installation": installation, "keep": sorted(keep)})


def remove(installation: str, keep: Collection[str], owner: int | None = None) -> list[str]:
    """Remove those taps ourselves, only a user's where one is given.

    Raises NotAllowed where we may not.
    """
    with links.failing("look for taps"):
        stale = [
            link
            for link in netlink.links()
            if link.tap
            and owner in {None, link.owner}
            and _is_stale(link.alias, installation, keep)
        ]
    commands = [f"ip link delete dev {link.name}" for link in stale]
    with links.failing("remove the taps of ended guests", f"run as root: {' && '.join(commands)}"):
        for link in stale:
            netlink.remove(link.index)
    return [link.name for link in stale]


def _may_open(link: Link, uid: int) -> bool:
    """Whether a user may, by what tun_not_capable() in Linux's drivers/net/tun.c asks for."""
    if uid == 0:
        return True
    if link.owner not in {None, uid}:
        return False
    if link.group is None:
        return True
    account = pwd.getpwuid(uid)
    return link.group in os.getgrouplist(account.pw_name, account.pw_gid)


def _make_way(name: str, owner: int, alias: str) -> None:
    """Remove a tap that an earlier try has left."""
    link = netlink.find(name)
    if link is None:
        return
    if (link.tap, link.owner, link.alias) != (True, owner, alias):
        raise HostError(
            f"network: {name} exists already, and is not the tap that we would make",
            f"see whose it is: ip -details link show dev {name}",
        )
    if link.carrier:
        raise _busy(name)
    netlink.remove(link.index)


def _busy(name: str) -> HostError:
    return HostError(
        f"network: tap {name} is in use by another process",
        f"find it: grep -l 'iff:.*{name}' /proc/[0-9]*/fdinfo/*",
    )


def _is_stale(alias: str, installation: str, keep: Collection[str]) -> bool:
    return alias.startswith(f"{links.bridge_alias(installation)}:") and alias not in keep


def _may_be_stale(name: str, installation: str, keep: Collection[str]) -> bool:
    """Spare most converges the netlink library; what /sys does not know, the kernel is asked."""
    try:
        alias = Path("/sys/class/net", name, "ifalias").read_text().removesuffix("\n")
    except OSError:
        return name != "lo"
    return _is_stale(alias, installation, keep)


def _by_root(bridge: str, owner: int, alias: str) -> str:
    """Return what there is to do without the right: ours are a new one each time, root's is not."""
    tap = f"tap-{alias.split(':')[2]}"[:15]
    return (
        f"run once as root: {_commands(tap, bridge, owner)}; "
        f'then write `tap = "{tap}"` for the network in host.toml; '
        f"or give the right to {HELPER}: its documentation says how"
    )


def _commands(tap: str, bridge: str, owner: int) -> str:
    commands = (
        f"ip tuntap add dev {tap} mode tap user {user_name(owner)}",
        f"ip link set dev {tap} addrgenmode none",
        f"ethtool -K {tap} gro off gso off",
        f"ip link set dev {tap} master {bridge} up",
    )
    return " && ".join(commands)


def _ask_helper(request: dict[str, object]) -> list[str]:
    """Have the helper do what we may not; return the taps it did it to."""
    command = ["sudo", "-n", HELPER]
    text = json.dumps(request)
    try:
        done = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            timeout=_HELPER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"network: {' '.join(command)}: {error}") from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise HostError(
            f"network: {' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}",
            "give the right to run it, and nothing else, in /etc/sudoers.d; or run this as root",
        ) from None
    if done.returncode != 0:
        raise HostError(answer["error"], answer["hint"])
    taps: list[str] = answer["taps"]
    return taps
