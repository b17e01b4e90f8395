"""One module a target, behind one small protocol."""

import contextlib
from typing import Protocol

from mirage_hooks.boot.errors import ConfigError, HostError, ImageError
from mirage_hooks.boot.guest import Boot, Guest
from mirage_hooks.boot.host import Tenders
from mirage_hooks.boot.image import Image
from mirage_hooks.boot.targets import solo5, tenders, unix, virtio, xen
from mirage_hooks.boot.targets.tenders import Program
from mirage_hooks.boot.targets.tending import Start, Tending


class Target(Protocol):
    """What a MirageOS target means on this host."""

    @property
    def program(self) -> Program | None:
        """Its tender, None where the image runs by itself."""

    @property
    def writes_all(self) -> bool:
        """Whether its tender opens every block device for writing."""

    @property
    def outside(self) -> bool:
        """Whether a guest is no process of this host: who runs it opens its files, makes its links,
        and obeys nobody but root or who root lets.
        """

    @property
    def grace(self) -> float:
        """How long its tender may take to end after SIGTERM, seconds."""

    def check(self, guest: Guest) -> None:
        """Raise ConfigError where the target cannot be what the guest asks for."""

    def arguments(self, guest: Guest) -> tuple[str, ...]:
        """Return the effective arguments, as the guest is to see them."""

    def settle(self, guest: Guest, boot: Boot, image: Image) -> Boot:
        """Return a guest's boot with what only its image tells. Raises ConfigError."""

    def fit(self, asked: Guest | Boot, image: Image) -> None:
        """Raise Error where an image of this target cannot be booted so: devices not its own."""

    def tending(self, given: Tenders, user: str | None, image: Image) -> Tending:
        """Return the tender for an image. Raises HostError where this host has none for it."""

    def command(self, boot: Boot, start: Start) -> tuple[str, list[str]]:
        """Return what to execute for a boot: the program, and its argument list.

        Raises ConfigError where the guest cannot take so many arguments.
        """


_TARGETS: dict[str, Target] = {
    "unix": unix.Unix(),
    "hvt": solo5.Solo5("hvt"),
    "spt": solo5.Solo5("spt"),
    "virtio": virtio.Virtio("virtio"),
    "xen": xen.Xen(),
}


def known() -> tuple[str, ...]:
    """Return the targets that can be run."""
    return tuple(_TARGETS)


def found(given: Tenders) -> tuple[str, ...]:
    """Return the targets whose tender is on this host."""
    there = []
    for name, target in _TARGETS.items():
        with contextlib.suppress(HostError):
            if target.program is not None:
                tenders.find(name, target.program, given)
            there.append(name)
    return tuple(there)


def of(guest: Guest) -> Target:
    """Return a guest's target. Raises ConfigError where it cannot be run yet."""
    return named(guest.target)


def named(target: str) -> Target:
    """Return a target by its name. Raises ConfigError where it cannot be run yet."""
    if target not in _TARGETS:
        raise ConfigError(
            f"target {target} cannot be run by this version", f"it runs: {', '.join(_TARGETS)}"
        )
    return _TARGETS[target]


def refuse_other(path: str, image: str, wanted: str) -> None:
    """Raise ConfigError where an image is for another target than its guest."""
    if image != wanted:
        raise ConfigError(f"image {path} is for target {image}, the guest for {wanted}")


def refuse_unfit(path: str, asked: Guest | Boot, image: Image) -> None:
    """Raise Error where an image is not what is asked for: another target, other devices."""
    refuse_other(path, image.target, asked.target)
    try:
        named(asked.target).fit(asked, image)
    except ImageError as error:
        raise ImageError(f"image {path}: {error.message}", error.hint) from None
