"""What the doctor finds about targets, networks and volumes: what guests need of this host."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from mirage_hooks.boot import host, links, netlink, survey, taps, targets, users, volumes, wiring
from mirage_hooks.boot.errors import Error, HostError
from mirage_hooks.boot.guest import Guest
from mirage_hooks.boot.host import Host, HostNetwork
from mirage_hooks.boot.image import Image
from mirage_hooks.boot.record import State
from mirage_hooks.boot.targets import kvm, tenders, xen
from mirage_hooks.boot.wiring import Held
from mirage_hooks.installer.findings import Finding

_CAP_NET_ADMIN = 12  # linux/capability.h
_SUDO_SECONDS = 10

Guests = Mapping[str, Guest]


def examine(state: State, bound: Host, guests: Guests) -> Iterator[Finding]:
    """Yield what is found about what guests need of this host."""
    for target in targets.known():
        yield _target(target, bound, guests)
    on_taps = {name: one for name, one in guests.items() if not targets.of(one).outside}
    if on_taps or not guests:
        if any(not where.user for where in bound.networks.values()):
            yield from _tun(bound, on_taps)
        yield from _right_to_make(bound)
    for name, where in bound.networks.items():
        yield _network(state, bound, guests, name, where)
    for name in bound.volumes:
        yield _volume(bound, guests, name)


def _target(target: str, bound: Host, guests: Guests) -> Finding:
    """A tender that is missing is a failure to a guest that needs it, and a note to nobody else."""
    subject, own = f"target {target}", [one for one in guests.values() if one.target == target]
    try:
        found = _tender(target, bound, own)
    except HostError as error:
        found = Finding.of(subject, error)
    if target not in bound.limits.targets:
        text = f"not allowed here ([limits] of {host.NAME}); {found.finding}"
        return Finding("ok", subject, text)
    return found if own or found.level == "ok" else replace(found, level="warning")


def _tender(target: str, bound: Host, guests: list[Guest]) -> Finding:
    """Raises HostError where the target's tender does not serve those guests."""
    subject, program = f"target {target}", targets.named(target).program
    if program is None:
        return Finding("ok", subject, "an image runs by itself")
    if target == "xen":
        xl = xen.driven(bound.tenders)
        free = xl.free_memory()
        return Finding("ok", subject, f"{' '.join(xl.command)}: {free} MiB free for domains")
    path = tenders.find(target, program, bound.tenders)
    if target == "virtio" and not guests:  # a KVM that does not work takes seconds to say so
        return Finding("ok", subject, f"{path}; KVM is tried once a guest needs it")
    for user in {guest.user for guest in guests} or {bound.user}:
        tending = targets.named(target).tending(bound.tenders, user, Image("unix"))
    if target == "virtio":
        slow = bound.tenders.kvm and "kvm" not in tending.options
        mend = f"guests are slow; where that will do: kvm = false in [tenders] of {host.NAME}"
        text = f"{path}: {tending.notice}"
        return Finding("warning", subject, text, mend) if slow else Finding("ok", subject, text)
    if target == "hvt" and guests:
        _refuse_broken_kvm(bound)
    return Finding("ok", subject, f"{path}, ABI {tenders.abi(path)}")


def _refuse_broken_kvm(bound: Host) -> None:
    """Raise HostError where QEMU, if it is there, finds that guests cannot run in KVM."""
    program = targets.named("virtio").program
    try:
        qemu = tenders.find("virtio", program, bound.tenders) if program is not None else ""
    except HostError:
        return
    try:
        kvm.probe(qemu)
    except HostError as error:
        raise HostError(error.message, "build the guests for spt, which needs no KVM") from None


def _tun(bound: Host, guests: Guests) -> Iterator[Finding]:
    for user in sorted({guest.user or "" for guest in guests.values()} or {bound.user or ""}):
        try:
            wiring.refuse_no_taps(user or None)
        except HostError as error:
            yield Finding.of("/dev/net/tun", error)
        else:
            name = user or users.user_name(os.geteuid())
            yield Finding("ok", "/dev/net/tun", f"open to user {name}, whom guests run as")


def _right_to_make(bound: Host) -> Iterator[Finding]:
    bridges = sorted({str(one.bridge) for one in bound.networks.values() if one.bridge})
    if not bridges:
        return
    try:
        allowed = taps.HELPER_BRIDGES.read_text()
    except OSError:
        allowed = ""
    if _may_make():
        yield Finding("ok", "taps", "we may make them")
    elif not allowed:
        yield Finding(
            "failed",
            "taps",
            f"we may not make any, on {', '.join(bridges)}",
            f"run as root; or have root install {taps.HELPER}, or make taps to be named in "
            f"{host.NAME}: docs/networks.md",
        )
    elif not _helper_answers():
        mend = f"let user {users.user_name(os.geteuid())} run it, in /etc/sudoers.d"
        yield Finding("failed", "taps", f"sudo -n {taps.HELPER} is refused", mend)
    elif missing := sorted(set(bridges) - set(allowed.split())):
        mend = f"run as root: echo {missing[0]} >>{taps.HELPER_BRIDGES}"
        yield Finding("failed", "taps", f"{taps.HELPER} puts none on {missing[0]}", mend)
    else:
        yield Finding("ok", "taps", f"{taps.HELPER} makes them for us")


def _may_make() -> bool:
    """Whether we have CAP_NET_ADMIN, by /proc/self/status (proc(5))."""
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next(line.split()[1] for line in lines if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> _CAP_NET_ADMIN & 1)


def _helper_answers() -> bool:
    try:
        asked = subprocess.run(
            ["sudo", "-n", "-l", taps.HELPER],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SUDO_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


def _network(state: State, bound: Host, guests: Guests, name: str, where: HostNetwork) -> Finding:
    subject = f"network {name}"
    try:
        if where.bridge is not None:
            return _bridge(state, subject, where, where.bridge)
        if where.tap is not None:
            held = Held.by(survey.look_at_all(state)).taps
            for user in _users_of(bound, guests, name):
                taps.require_tap(where.tap, users.uid_of(user), where.tap in held)
            return Finding("ok", subject, f"tap {where.tap}")
    except Error as error:
        return Finding.of(subject, error)
    forwards = f", with {', '.join(where.forward)}" if where.forward else ""
    return Finding("ok", subject, f"QEMU's own{forwards}")


def _bridge(state: State, subject: str, where: HostNetwork, name: str) -> Finding:
    with links.failing(f"look for bridge {name}"):
        link = netlink.find(name)
    if link is None and where.create:
        return Finding("ok", subject, f"bridge {name} is made once a guest on it is booted")
    bridge = links.require_bridge(name)
    ours = link is not None and link.alias == links.bridge_alias(state.installation)
    if where.create and not ours:
        text = f"bridge {name} exists already, and was not made for this repository"
        mend = f"take `create = true` from [networks] of {host.NAME}, or name another bridge there"
        return Finding("failed", subject, text, mend)
    if not bridge.up:
        mend = f"run as root: ip link set dev {name} up"
        return Finding("failed", subject, f"bridge {name} is down", mend)
    if bridge.stp:
        text = f"bridge {name} has STP on: a guest is not heard for up to 30 s after its boot"
        mend = f"run as root: ip link set dev {name} type bridge stp_state 0"
        return Finding("warning", subject, text, mend)
    addresses = "".join(f", {address}" for address in bridge.addresses)
    return Finding("ok", subject, f"bridge {name}{', made by us' if ours else ''}{addresses}")


def _users_of(bound: Host, guests: Guests, network: str) -> set[str | None]:
    """Return whom the guests on a network run as; whom they would, where there are none."""
    return {
        guest.user
        for guest in guests.values()
        if any(config.network == network for config in guest.network.values())
    } or {bound.user}


def _volume(bound: Host, guests: Guests, name: str) -> Finding:
    subject, path = f"volume {name}", bound.volumes[name].path
    try:
        volumes.refuse_unfit(path)
        for guest in guests.values():
            copies = targets.of(guest).writes_all  # of what is to be read only
            for block in guest.block.values():
                if block.volume == name and not (block.readonly and copies):
                    volumes.refuse_closed(path, guest.user, block.readonly)
    except HostError as error:
        return Finding.of(subject, error)
    return Finding("ok", subject, path)
