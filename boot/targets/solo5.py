"""The hvt and spt targets: Solo5's own tenders, one in KVM and one behind seccomp.

Their command line is that of Solo5's tenders/common/{block,net}_attach.c and {hvt,spt}_main.c.
"""

from dataclasses import dataclass
from typing import Literal

from mirage_hooks.boot import access
from mirage_hooks.boot.device import HOST_NETWORK
from mirage_hooks.boot.errors import ConfigError, HostError
from mirage_hooks.boot.guest import Boot, Guest
from mirage_hooks.boot.host import Tenders
from mirage_hooks.boot.image import Image
from mirage_hooks.boot.targets import kvm, mirage, tenders
from mirage_hooks.boot.targets.tenders import Program
from mirage_hooks.boot.targets.tending import Start, Tending, refuse_devices, refuse_memory


@dataclass(frozen=True)
class Solo5:
    """A MirageOS image for one of Solo5's tenders."""

    target: Literal["hvt", "spt"]
    writes_all: bool = True

    @property
    def program(self) -> Program:
        """Its tender."""
        return Program(f"solo5-{self.target}")

    def check(self, guest: Guest) -> None:
        """Raise ConfigError where the target cannot be what the guest asks for."""
        mirage.check(guest)
        for device, config in guest.network.items():
            if config.network == HOST_NETWORK:
                raise ConfigError(
                    f"network {device}: {self.target} has no sockets of the host's",
                    "name a network that [networks] of host.toml binds to a bridge",
                )
        mirage.refuse_long(self.arguments(guest))

    def arguments(self, guest: Guest) -> tuple[str, ...]:
        """Return the guest's arguments: those of its networks, then its own."""
        return mirage.arguments(guest)

    def fit(self, asked: Guest | Boot, image: Image) -> None:
        """Raise ImageError where the image is not what is asked for."""
        refuse_devices(asked, image)
        refuse_memory(asked, image)

    def tending(self, given: Tenders, user: str | None, image: Image) -> Tending:
        """Return its tender. Raises HostError where there is none that could run the image."""
        path = tenders.find(self.target, self.program, given)
        access.refuse_closed(path, user, "x")
        abi = tenders.abi(path)
        if image.abi is not None and abi != image.abi:
            raise HostError(
                f"{path} runs images of ABI {abi}, this one is of ABI {image.abi}",
                "Solo5 0.8 and later run ABI 2, earlier ones ABI 1: install the one it was built "
                f"for, or name it as {self.target} in [tenders] of host.toml",
            )
        if self.target == "hvt":
            hint = (
                "let the user into its group: usermod --append --groups kvm USER; or build for spt"
            )
            access.refuse_closed(kvm.DEVICE, user, hint=hint)
        return Tending(path)

    def command(self, boot: Boot, start: Start) -> tuple[str, list[str]]:
        """Return what to execute: the tender, and its argument list. Raises ConfigError."""
        mirage.refuse_long(boot.arguments)
        argv = [start.tending.path, f"--mem={boot.memory}"]
        for device, tap in start.taps.items():
            argv.append(f"--net:{device}={tap}")
            if (mac := boot.nics[device].mac) is not None:
                argv.append(f"--net-mac:{device}={mac}")
        argv += [f"--block:{device}={path}" for device, path in start.volumes.items()]
        return start.tending.path, [*argv, "--", start.image, *map(mirage.quote, boot.arguments)]
