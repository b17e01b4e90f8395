"""Images and tenders for tests, compiled from tests/guests where a test first asks for them."""

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from support import GUESTS

BuiltTarget = Literal["unix", "spt", "hvt", "virtio", "xen", "xen-pv", "xen-pvh"]
Start = Callable[..., subprocess.Popen[bytes]]

# What a guest on the fixture `bridge` is told of its network, and the MAC it has there.
STATIC = ("--ipv4=10.0.0.2/24", "--ipv4-gateway=10.0.0.1", "--ipv4-only=true")
MAC = "02:00:00:00:00:02"

needs_qemu = pytest.mark.skipif(
    shutil.which("qemu-system-x86_64") is None,
    reason="QEMU is not installed: apt-get install qemu-system-x86",
)
each_target = pytest.mark.parametrize(
    "target", ["unix", "spt", "hvt", pytest.param("virtio", marks=needs_qemu)]
)

# An image that is no process stands alone: no libc, nothing that a kernel has to set up first.
_ALONE = (
    "-ffreestanding",
    "-nostdlib",
    "-static",
    "-fno-pie",
    "-no-pie",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-mno-red-zone",
    "-mgeneral-regs-only",
    "-Wl,--build-id=none",
    "-Wl,-z,max-page-size=4096",
)

# Those whose sources are for more than one.
_TARGETS = ("spt", "hvt", "virtio")

_SCRIPTS: dict[BuiltTarget, str] = {
    "spt": "solo5.ld",
    "hvt": "solo5.ld",
    "virtio": "solo5.ld",
    "xen-pv": "xen.ld",
    "xen-pvh": "xen.ld",
}

_SOURCES: dict[BuiltTarget, tuple[str, ...]] = {
    "unix": ("unix_tap.c",),
    "spt": ("solo5_image.c",),
    "hvt": ("solo5_image.c",),
    "virtio": ("virtio_header.S", "long_mode.S", "virtio_web.c"),
    # For the stand-in for xl only: a program of this host.
    "xen": ("unix_tap.c", "xen_note.c"),
    "xen-pv": ("xen_start.S", "xen_hypercalls.S", "xen_web.c"),
    "xen-pvh": ("xen_pvh_note.S", "long_mode.S", "xen_hypercalls.S", "xen_web.c"),
}


@dataclass(frozen=True)
class Built:
    """A folder of what was compiled; each image and tender is compiled once."""

    folder: Path

    def image(
        self,
        target: BuiltTarget,
        page: str = "hello",
        *,
        devices: dict[str, str] | None = None,
        address: str | None = None,
        dhcp: bool = False,
        broken: bool = False,
        abi: int | None = None,
    ) -> Path:
        """Return an image with a page.

        `devices` are those of its Solo5 manifest, in order: name to `NET_BASIC` or `BLOCK_BASIC`
        (default: the network `service`). `address` is compiled in, as in `10.0.0.7/24`; `dhcp` and
        `broken` (it fails when it starts) are too. `abi` is a version to pretend.
        """
        defines = [f'-DPAGE="{page}"']
        if target in _TARGETS:
            defines.append(f"-DTARGET={target.upper()}")
        if devices is not None:
            listed = ",".join(f'{{"{name}",{kind}}}' for name, kind in devices.items())
            defines.append(f"-DDEVICES={listed}")
        if address is not None:
            defines.append(f'-DADDRESS="{address}"')
        if target == "xen":
            defines.append("-DVIF")
        if target == "xen-pvh":
            defines.append("-DPVH")
        if dhcp:
            defines.append("-DDHCP=1")
        if broken:
            defines.append("-DBROKEN")
        if abi is not None:
            defines.append(f"-DABI_VERSION={abi}")
        script = _SCRIPTS.get(target)
        options = (*_ALONE, f"-Wl,-T,{GUESTS / script}") if script else ("-static",)
        return self._compile(_SOURCES[target], *options, *defines, suffix=f".{target}")

    def tender(self, target: Literal["spt", "hvt"]) -> Path:
        """Return the stand-in for `solo5-spt` or `solo5-hvt`, which goes by that name."""
        stand_in = self._compile(("stand_in_tender.c",), "-static", suffix=".tender")
        tender = self.folder / "tenders" / f"solo5-{target}"
        if not tender.exists():
            tender.parent.mkdir(exist_ok=True)
            # A copy: what a link points to goes by another name.
            tender.write_bytes(stand_in.read_bytes())
            tender.chmod(0o755)
        return tender

    def command(
        self,
        target: BuiltTarget,
        image: Path,
        tap: str,
        *arguments: str,
        mac: str = MAC,
        device: str = "service",
    ) -> list[str]:
        """Return the command that a person would boot an image with, on a tap.

        A `unix` guest has a random MAC, whatever is said here.
        """
        if target == "unix":
            return [str(image), f"--interface={tap}", *arguments]
        if target == "virtio":
            return qemu(image, f"tap,ifname={tap},script=no,downscript=no", *arguments, mac=mac)
        assert target in ("spt", "hvt"), "a domain takes a configuration"
        network = [f"--net:{device}={tap}", f"--net-mac:{device}={mac}"]
        return [str(self.tender(target)), "--mem=32", *network, "--", str(image), *arguments]

    def _compile(self, sources: tuple[str, ...], *options: str, suffix: str) -> Path:
        name = hashlib.sha256("\0".join((*sources, *options)).encode()).hexdigest()[:12]
        made = self.folder / f"{name}{suffix}"
        if not made.exists():
            paths = [GUESTS / source for source in sources]
            subprocess.run(
                ["cc", "-O2", "-Wall", "-Werror", *options, "-o", made, *paths], check=True
            )
        return made


def qemu(
    image: Path,
    network: str,
    *arguments: str,
    mac: str = MAC,
    disk: Path | None = None,
) -> list[str]:
    """Return the command that boots a virtio image without KVM; `network` is QEMU's `-netdev`.

    QEMU ends with 83 where the guest ends, whatever its exit code. A disk comes before the network.
    """
    kind, _, options = network.partition(",")
    drive = ["-drive", f"file={disk},format=raw,if=none,id=d0"] if disk else []
    block = ["-device", "virtio-blk,drive=d0"] if disk else []
    return [
        "qemu-system-x86_64",
        *("-machine", "pc", "-accel", "tcg", "-m", "32", "-nodefaults", "-no-acpi"),
        *("-kernel", str(image), "-append", " ".join(arguments)),
        *("-display", "none", "-serial", "stdio", "-device", "isa-debug-exit"),
        *drive,
        *block,
        *("-netdev", f"{kind},id=n0,{options}", "-device", f"virtio-net,netdev=n0,mac={mac}"),
    ]
