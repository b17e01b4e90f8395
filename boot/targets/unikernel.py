"""What images for hvt, spt and virtio have in common: all three are Solo5's."""

from dataclasses import dataclass
from typing import Literal

from mirage_hooks.boot import control
from mirage_hooks.boot.guest import Boot, Guest
from mirage_hooks.boot.image import Image
from mirage_hooks.boot.targets import mirage
from mirage_hooks.boot.targets.tending import refuse_devices, refuse_memory


@dataclass(frozen=True)
class Unikernel:
    """A MirageOS image with devices of its own, which it names in a manifest."""

    outside = False
    grace = control.GRACE

    target: Literal["hvt", "spt", "virtio"]

    def check(self, guest: Guest) -> None:
        """Raise ConfigError where the target cannot be what the guest asks for."""
        mirage.check(guest)
        mirage.refuse_sockets(guest, self.target)
        mirage.refuse_long(self.arguments(guest))

    def arguments(self, guest: Guest) -> tuple[str, ...]:
        """Return the guest's arguments: those of its networks, then its own."""
        return mirage.arguments(guest)

    def settle(self, guest: Guest, boot: Boot, image: Image) -> Boot:
        """Return the boot as it is: the image has nothing to add."""
        return boot

    def fit(self, asked: Guest | Boot, image: Image) -> None:
        """Raise ImageError where the image is not what is asked for."""
        refuse_devices(asked, image)
        refuse_memory(asked, image)
