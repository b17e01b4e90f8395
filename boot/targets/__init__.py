"""One module a target, behind one small protocol."""

from typing import Protocol

from mirage_hooks.boot.errors import ConfigError
from mirage_hooks.boot.guest import Boot, Guest
from mirage_hooks.boot.targets import unix


class Target(Protocol):
    """What a MirageOS target means on this host."""

    def check(self, guest: Guest) -> None:
        """Raise ConfigError where the target cannot be what the guest asks for."""

    def arguments(self, guest: Guest) -> tuple[str, ...]:
        """Return the effective arguments, as the guest is to see them."""

    def command(self, boot: Boot, name: str, image: str) -> tuple[str, list[str]]:
        """Return what to execute for a boot: the program, and its argument list."""


_TARGETS: dict[str, Target] = {"unix": unix.Unix()}


def known() -> tuple[str, ...]:
    """Return the targets that can be run."""
    return tuple(_TARGETS)


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
