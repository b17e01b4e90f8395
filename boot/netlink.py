"""What is asked of the kernel about network links: each request in one place.

Links are read and changed by rtnetlink(7), through pyroute2; taps are made at /dev/net/tun. Every
function here raises OSError where the kernel says no. pyroute2 is imported when it is first needed:
that takes 150 ms and 22 MB, and most of what we do changes no link.
"""

import errno
import fcntl
import os
import socket
import struct
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import Any

Address = IPv4Interface | IPv6Interface

# linux/if_tun.h; the numbers of requests are those of x86, arm, riscv and s390.
_TUNSETIFF, _TUNSETPERSIST, _TUNSETOWNER = 0x400454CA, 0x400454CB, 0x400454CC
_IFF_TAP, _IFF_NO_PI, _IFF_TUN_EXCL = 0x0002, 0x1000, 0x8000
_TYPE_TAP = 2
# linux/sockios.h, linux/ethtool.h: what switches TSO, GSO and GRO.
_SIOCETHTOOL = 0x8946
_ETHTOOL_STSO, _ETHTOOL_SGSO, _ETHTOOL_SGRO = 0x1F, 0x24, 0x2C
# linux/if.h and linux/if_addr.h.
_IFF_UP = 0x1
_IFA_F_NODAD = 0x02
# linux/if_link.h: the kernel makes up no IPv6 address for the link.
_IN6_ADDR_GEN_MODE_NONE = 1


@dataclass(frozen=True)
class Link:
    """A network link. `kind` is the kernel's word, such as `bridge` or `veth`; "" for a card.

    `carrier` of a tap: whether a process has it open. `owner` and `group` are the ids of who may
    open it, None where that is anybody. `master` is the index of the bridge it is in.
    """

    index: int
    name: str
    kind: str
    mac: str
    alias: str
    up: bool
    carrier: bool
    master: int | None
    tap: bool
    owner: int | None
    group: int | None
    stp: bool


def find(name: str) -> Link | None:
    """Return the link of a name, None where there is none."""
    try:
        with _route() as route:
            return _link(route.link("get", ifname=name)[0])
    except OSError as error:
        # ERANGE: a name that no link can have, with more than 15 bytes.
        if error.errno in {errno.ENODEV, errno.ERANGE}:
            return None
        raise


def links() -> list[Link]:
    """Return every link."""
    with _route() as route:
        return [_link(message) for message in route.link("dump")]


def add_bridge(name: str, mac: str) -> None:
    """Make a bridge, down, that keeps a MAC whatever its ports are."""
    with _route() as route:
        route.link("add", ifname=name, kind="bridge", address=mac)


def set_alias(index: int, alias: str) -> None:
    """Set a link's alias."""
    with _route() as route:
        route.link("set", index=index, ifalias=alias)


def set_mac(index: int, mac: str) -> None:
    """Set a link's MAC. A bridge keeps what was set, even where it had it before by chance.

    That is what NET_ADDR_SET means in br_stp_recalculate_bridge_id() of Linux's net/bridge.
    """
    with _route() as route:
        route.link("set", index=index, address=mac)


def set_up(index: int, master: int | None = None) -> None:
    """Set a link up, as a port of a bridge where one is given."""
    port = {} if master is None else {"master": master}
    with _route() as route:
        route.link("set", index=index, state="up", **port)


def silence(index: int) -> None:
    """Keep the host from taking an IPv6 address on a link that is still down, and from saying so.

    It has to be asked for alone: together with "up" the kernel sees to that first.
    """
    mode = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", _IN6_ADDR_GEN_MODE_NONE)]}
    try:
        with _route() as route:
            route.link("set", index=index, af_spec={"attrs": [("AF_INET6", mode)]})
    except OSError as error:
        # A kernel that was told to do without IPv6 has nothing to say.
        if error.errno != errno.EAFNOSUPPORT:
            raise


def remove(index: int) -> None:
    """Remove a link; one that is gone is as good."""
    try:
        with _route() as route:
            route.link("del", index=index)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise


def addresses(index: int) -> set[Address]:
    """Return a link's addresses, without those that IPv6 gives itself."""
    with _route() as route:
        found = {
            ip_interface(f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}")
            for message in route.addr("dump", index=index)
        }
    return {one for one in found if one.version == 4 or not one.is_link_local}


def add_address(index: int, address: Address) -> None:
    """Give a link an address, or the same again."""
    # The bridge has no carrier before its first guest: IPv6 would go on looking for a duplicate
    # of the address, and not use it, until some time after that.
    flags = {"flags": _IFA_F_NODAD} if address.version == 6 else {}
    with _route() as route:
        route.addr(
            "replace",
            index=index,
            address=str(address.ip),
            prefixlen=address.network.prefixlen,
            **flags,
        )


def remove_address(index: int, address: Address) -> None:
    """Take an address from a link; one that is gone is as good, since they go with their first."""
    try:
        with _route() as route:
            route.addr(
                "del", index=index, address=str(address.ip), prefixlen=address.network.prefixlen
            )
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise


@contextmanager
def new_tap(name: str, owner: int) -> Iterator[int]:
    """Have a tap made that a user may open; its index is for setting it up.

    It stays if the block ends well. Else it goes, however the block ends: until then it lives only
    as long as we have it open.
    """
    flags = _IFF_TAP | _IFF_NO_PI | _IFF_TUN_EXCL
    with _opened("/dev/net/tun") as tun:
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        fcntl.ioctl(tun, _TUNSETOWNER, owner)
        yield socket.if_nametoindex(name)
        fcntl.ioctl(tun, _TUNSETPERSIST, 1)


def switch_off_offloads(name: str) -> None:
    """Have no link hand on frames that are larger than its MTU: a guest's buffers hold no more."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for command in (_ETHTOOL_STSO, _ETHTOOL_SGSO, _ETHTOOL_SGRO):
            value = array("I", (command, 0))
            request = struct.pack("16sP16x", name.encode(), value.buffer_info()[0])
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request)


@contextmanager
def _opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _route() -> Iterator[Any]:
    from pyroute2 import IPRoute  # noqa: PLC0415 - it is slow
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415

    try:
        with IPRoute() as route:
            yield route
    except NetlinkError as error:
        raise OSError(error.code, os.strerror(error.code)) from None


def _link(message: Any) -> Link:
    info = message.get_attr("IFLA_LINKINFO")
    kind: str = info.get_attr("IFLA_INFO_KIND") if info is not None else ""
    data = info.get_attr("IFLA_INFO_DATA").get_attr if kind in {"bridge", "tun"} else {}.get
    return Link(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=kind,
        mac=message.get_attr("IFLA_ADDRESS") or "",
        alias=message.get_attr("IFLA_IFALIAS") or "",
        up=bool(message["flags"] & _IFF_UP),
        carrier=bool(message.get_attr("IFLA_CARRIER")),
        master=message.get_attr("IFLA_MASTER"),
        tap=data("IFLA_TUN_TYPE") == _TYPE_TAP,
        owner=data("IFLA_TUN_OWNER"),
        group=data("IFLA_TUN_GROUP"),
        stp=bool(data("IFLA_BR_STP_STATE")),
    )
