"""The xen target: a domain of the host's own Xen, made and ended through xl."""

import sys
import uuid
from collections.abc import Iterator
from typing import cast

import msgspec

from mirage_hooks.boot import xlsyntax
from mirage_hooks.boot.errors import ConfigError, ImageError
from mirage_hooks.boot.guest import Boot, Guest, XenMode
from mirage_hooks.boot.host import Tenders
from mirage_hooks.boot.image import Image
from mirage_hooks.boot.order import Order
from mirage_hooks.boot.targets import mirage, tenders
from mirage_hooks.boot.targets.tenders import Program
from mirage_hooks.boot.targets.tending import Start, Tending, refuse_memory
from mirage_hooks.boot.xl import Xl

_PROGRAM = Program("xl", "xen-utils-common")
_TENDER = ("-I", "-m", "mirage_hooks.boot.domain")

# How long the tender of a domain may take to end, seconds: it asks, and then destroys, which takes
# a second on an idle host, and many more where hotplug scripts wait for each other.
GRACE = 30.0

# Of MirageOS before 3.9, whose images are for PV; it has no other way of telling which one.
_BEFORE_SOLO5 = (3, 8)
# The command line in Xen's start_info_t (MAX_GUEST_CMDLINE of public/xen.h).
_PV_MOST_BYTES = 1023

_OURS = uuid.UUID("6d697261-6765-4d68-8f6f-6b732d786c00")


class Xen:
    """A MirageOS image in a domain."""

    program = _PROGRAM
    writes_all = False
    outside = True
    grace = GRACE

    def check(self, guest: Guest) -> None:
        """Raise ConfigError where the target cannot be what the guest asks for."""
        mirage.check(guest)
        mirage.refuse_sockets(guest, "xen")

    def arguments(self, guest: Guest) -> tuple[str, ...]:
        """Return the guest's arguments: those of its networks, then its own."""
        return mirage.arguments(guest)

    def settle(self, guest: Guest, boot: Boot, image: Image) -> Boot:
        """Return a boot with what only the image tells: its type, and the form of its arguments."""
        kind, form = guest.domain.type or _mode(image), guest.domain.arguments
        bare = form == "bare" or (form is None and image.abi is None)
        if bare and guest.mirage is None:
            guest = msgspec.structs.replace(guest, mirage="{}.{}".format(*_BEFORE_SOLO5))
        arguments = self.arguments(guest)
        if bare:
            arguments = mirage.bare(arguments)
        settled = msgspec.structs.replace(
            guest.domain, type=kind, arguments="bare" if bare else "dashed"
        )
        return msgspec.structs.replace(boot, arguments=arguments, domain=settled)

    def fit(self, asked: Guest | Boot, image: Image) -> None:
        """Raise ImageError where the image is not what is asked for."""
        kind = asked.domain.type
        if kind is not None and kind != "hvm" and image.modes and kind not in image.modes:
            raise ImageError(
                f"it can be booted as {' or '.join(image.modes)}, and not as {kind}",
                "take `type` from the guest's domain, or from its template",
            )
        refuse_memory(asked, image)

    def tending(self, given: Tenders, user: str | None, image: Image) -> Tending:
        """Return xl as this host has it. Raises HostError where it has none."""
        command = command_of(given)
        return Tending(command[0], command[1:])

    def command(self, boot: Boot, start: Start) -> tuple[str, list[str]]:
        """Return what to execute: the tender of domains, and its order. Raises ConfigError."""
        name = boot.domain.called(start.name)
        temporary = f"{name}.{start.generation}"
        identity = str(identify(start.alias))
        order = Order(
            xl=[start.tending.path, *start.tending.options],
            name=name,
            temporary=temporary,
            uuid=identity,
            file=start.file,
            config=config(boot, start, temporary, identity),
            memory=boot.memory,
            alone=start.others.torn,
            replaces=list(start.others.own),
            adopts=list(start.others.adopted),
        )
        return sys.executable, [sys.executable, *_TENDER, order.argument]


def identify(alias: str) -> uuid.UUID:
    """Return the uuid of a generation's domain: always the same, and nobody else's."""
    return uuid.uuid5(_OURS, alias)


def command_of(given: Tenders) -> tuple[str, ...]:
    """Return what starts xl on this host. Raises HostError where it has none."""
    rest = given.xen[1:] if isinstance(given.xen, tuple) else ()
    return (tenders.find("xen", _PROGRAM, given), *rest)


def config(boot: Boot, start: Start, name: str, identity: str) -> str:
    """Return the configuration of a domain for xl (xl.cfg(5)). Raises ConfigError.

    Whatever ends it, it is gone then: booting it again is its monitor's.
    """
    extra = " ".join(map(mirage.quote, boot.arguments))
    kind: XenMode = boot.domain.type or "pv"
    if kind == "pv" and len(extra.encode()) > _PV_MOST_BYTES:
        raise ConfigError(
            f"arguments have {len(extra.encode())} bytes: a PV domain takes {_PV_MOST_BYTES}"
        )
    settings: dict[str, int | str | list[str]] = {
        "name": name,
        "uuid": identity,
        "type": kind,
        "kernel": start.image,
        "extra": extra,
        "memory": boot.memory,
        "vcpus": boot.domain.vcpus,
        "vif": [_vif(boot, device, link) for device, link in start.taps.items()],
        "disk": list(_disks(boot, start)),
    }
    ends = ("poweroff", "reboot", "watchdog", "crash", "soft_reset")
    return xlsyntax.write({**settings, **{f"on_{end}": "destroy" for end in ends}})


def _vif(boot: Boot, device: str, link: str) -> str:
    nic = boot.nics[device]
    # HVM has an emulated NIC beside the vif, which no MirageOS guest needs: its tap `NAME-emu`,
    # as hotplug scripts rename it (Debian's vif-common.sh), is longer than a link may be called.
    kind = "vif" if boot.domain.type == "hvm" else None
    parts = {"type": kind, "mac": nic.mac, "bridge": nic.link}
    parts |= {"script": nic.script, "vifname": link}
    return ",".join(f"{key}={value}" for key, value in parts.items() if value is not None)


def _disks(boot: Boot, start: Start) -> Iterator[str]:
    for device, path in start.volumes.items():
        access = "ro" if boot.volumes[device].readonly else "rw"
        # The target takes all that follows (xl-disk-configuration(5)): it may have a comma.
        yield f"format=raw,vdev={device},access={access},target={path}"


def _mode(image: Image) -> XenMode:
    """Return how an image is booted that nothing is said of: as PVH where it can be."""
    return cast("XenMode", max(image.modes, default="pv"))


def driven(given: Tenders) -> Xl:
    """Return xl, ready to be asked. Raises HostError where this host has none."""
    return Xl(command_of(given))
