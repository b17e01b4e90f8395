"""The virtio target: QEMU, which takes a MirageOS image as a multiboot kernel."""

import platform
from itertools import chain, islice

from mirage_hooks.boot import access
from mirage_hooks.boot.device import Forward
from mirage_hooks.boot.errors import HostError
from mirage_hooks.boot.guest import Boot
from mirage_hooks.boot.host import Tenders
from mirage_hooks.boot.image import Image
from mirage_hooks.boot.targets import kvm, mirage, tenders
from mirage_hooks.boot.targets.tenders import Program
from mirage_hooks.boot.targets.tending import Start, Tending
from mirage_hooks.boot.targets.unikernel import Unikernel

_PROGRAM = Program(f"qemu-system-{platform.machine()}", "qemu-system-x86")
# Solo5's own tests start it so: no firmware tables, one serial line, and a port to exit by.
_MACHINE = ("-nodefaults", "-no-acpi", "-display", "none", "-serial", "stdio")


class Virtio(Unikernel):
    """A MirageOS image in QEMU."""

    program = _PROGRAM
    writes_all = False

    def tending(self, given: Tenders, user: str | None, image: Image) -> Tending:
        """Return QEMU, with KVM where that works. Raises HostError where there is none."""
        path = tenders.find("virtio", _PROGRAM, given)
        access.refuse_closed(path, user, "x")
        tenders.version(path)
        if not given.kvm:
            return Tending(path, ("-accel", "tcg"), "QEMU without KVM: host.toml says so")
        try:
            access.refuse_closed(kvm.DEVICE, user)
            kvm.probe(path)
        except HostError as error:
            return Tending(path, ("-accel", "tcg"), f"QEMU without KVM: {error.message}")
        return Tending(path, ("-accel", "kvm"), "QEMU with KVM")

    def command(self, boot: Boot, start: Start) -> tuple[str, list[str]]:
        """Return what to execute: QEMU, and its argument list. Raises ConfigError."""
        mirage.refuse_long(boot.arguments)
        argv = [start.tending.path, *start.tending.options, "-m", str(boot.memory), *_MACHINE]
        # The image finds its devices by their order on the bus, which is that of its manifest.
        for number, (device, kind) in enumerate(start.devices.items()):
            if kind == "NET_BASIC":
                argv += _network(boot, device, f"n{number}", start.taps.get(device))
            else:
                argv += _block(boot, device, f"b{number}", start.volumes[device])
        argv += ["-device", "isa-debug-exit", "-kernel", start.image]
        return start.tending.path, [*argv, "-append", " ".join(map(mirage.quote, boot.arguments))]


def _network(boot: Boot, device: str, identity: str, tap: str | None) -> list[str]:
    nic = boot.nics[device]
    if tap is not None:
        backend = f"tap,id={identity},ifname={tap},script=no,downscript=no"
    else:
        backend = f"user,id={identity}{_inside(boot, device)}"
    frontend = f"virtio-net,netdev={identity}" + (f",mac={nic.mac}" if nic.mac else "")
    return ["-netdev", backend, "-device", frontend]


def _inside(boot: Boot, device: str) -> str:
    """Return QEMU's options for its own network: with the guest's address in it, and forwards."""
    own = next((one for one in boot.network[device].interfaces if one.version == 4), None)
    options, inside = "", ""
    if own is not None:
        inside = str(own.ip)
        gateways = [one for one in boot.network[device].gateways if one.version == 4]
        # QEMU's own choice for these could be the guest's address, or the gateway's.
        others = (one for one in own.network.hosts() if one not in {own.ip, *gateways})
        router, names, leases = islice(chain(gateways, others), 3)
        options = f",net={own.network},host={router},dns={names},dhcpstart={leases}"
    for text in boot.nics[device].forward:
        one = Forward.of(text)
        options += f",hostfwd={one.protocol}:{one.address}:{one.port}-{inside}:{one.guest_port}"
    return options


def _block(boot: Boot, device: str, identity: str, path: str) -> list[str]:
    readonly = "on" if boot.volumes[device].readonly else "off"
    return [
        *("-drive", f"id={identity},if=none,format=raw,readonly={readonly},file={path}"),
        *("-device", f"virtio-blk,drive={identity}"),
    ]
