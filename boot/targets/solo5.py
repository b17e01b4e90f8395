"""The hvt and spt targets: Solo5's own tenders, one in KVM and one behind seccomp.

Their command line is that of Solo5's tenders/common/{block,net}_attach.c and {hvt,spt}_main.c.
"""

from mirage_hooks.boot import access
from mirage_hooks.boot.errors import HostError
from mirage_hooks.boot.guest import Boot
from mirage_hooks.boot.host import Tenders
from mirage_hooks.boot.image import Image
from mirage_hooks.boot.targets import kvm, mirage, tenders
from mirage_hooks.boot.targets.tenders import Program
from mirage_hooks.boot.targets.tending import Start, Tending
from mirage_hooks.boot.targets.unikernel import Unikernel


class Solo5(Unikernel):
    """A MirageOS image for one of Solo5's tenders."""

    writes_all = True

    @property
    def program(self) -> Program:
        """Its tender."""
        return Program(f"solo5-{self.target}")

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
