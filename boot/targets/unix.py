"""The unix target: the image is a program of this host.

With MirageOS's socket stack it uses the host's own sockets, with the direct stack a tap.
"""

from mirage_hooks.boot import control
from mirage_hooks.boot.device import HOST_NETWORK
from mirage_hooks.boot.errors import ConfigError
from mirage_hooks.boot.guest import Boot, Guest
from mirage_hooks.boot.host import Tenders
from mirage_hooks.boot.image import Image
from mirage_hooks.boot.targets import mirage
from mirage_hooks.boot.targets.tending import Start, Tending


class Unix:
    """A MirageOS `unix` image, which no tender runs."""

    program = None
    writes_all = False
    outside = False
    grace = control.GRACE

    def check(self, guest: Guest) -> None:
        """Raise ConfigError where the target cannot be what the guest asks for."""
        if len(guest.network) > 1:
            raise ConfigError("a unix guest has one network at most")
        if guest.block:
            raise ConfigError(
                "a unix guest opens its block devices by the paths it was built with",
                "leave [guest.*.block] out",
            )
        for device, config in guest.network.items():
            if config.mac is not None:
                raise ConfigError(f"network {device}: a unix guest chooses its own mac")
            if config.network != HOST_NETWORK:
                _refuse_direct(guest, device)
        mirage.check(guest)

    def arguments(self, guest: Guest) -> tuple[str, ...]:
        """Return the guest's arguments: those of its network, then its own."""
        return mirage.arguments(guest)

    def settle(self, guest: Guest, boot: Boot, image: Image) -> Boot:
        """Return the boot as it is: the image has nothing to add."""
        return boot

    def fit(self, asked: Guest | Boot, image: Image) -> None:
        """Take it as it is: a unix image does not say what its devices are."""

    def tending(self, given: Tenders, user: str | None, image: Image) -> Tending:
        """Return that there is no tender."""
        return Tending()

    def command(self, boot: Boot, start: Start) -> tuple[str, list[str]]:
        """Return the image itself, and its arguments quoted for MirageOS."""
        taps = [
            f"--{mirage.prefix(boot.network[device])}interface={tap}"
            for device, tap in start.taps.items()
        ]
        return start.image, [start.name, *taps, *map(mirage.quote, boot.arguments)]


def _refuse_direct(guest: Guest, device: str) -> None:
    """Raise ConfigError where a guest cannot be told its tap."""
    if guest.mirage_version < (3, 0):
        raise ConfigError(
            f"network {device}: MirageOS {guest.mirage} takes no tap's name",
            "say with which version the image was built: mirage = '4.0'",
        )
    if any(mirage.names_interface(arg) for arg in guest.args):
        raise ConfigError(f"network {device}: args name an interface, too; its tap is made anew")
