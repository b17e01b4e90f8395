"""What stands between a boot and its command line: the tender, and the devices as they are made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mirage_hooks.boot.errors import ImageError
from mirage_hooks.boot.guest import Boot, Guest
from mirage_hooks.boot.image import Image

_KINDS = {"NET_BASIC": "network", "BLOCK_BASIC": "block"}


@dataclass(frozen=True)
class Tending:
    """The tender that is to run an image: its path, its own options, and a word on it for the log.

    A unix image is run by none: `path` is empty.
    """

    path: str = ""
    options: tuple[str, ...] = ()
    notice: str = ""


class Others(NamedTuple):
    """The uuids of domains that end for a new one: what stands still by then, and what serves on.

    A domain of ours serves on where its tender was killed, one to be adopted as it has no tender.
    `torn` says that one which is there, of any guest, has a volume of the new one's, and that
    either writes to it: Xen makes no such two, at least of block devices.
    """

    own: tuple[str, ...] = ()
    adopted: tuple[str, ...] = ()
    torn: bool = False


NO_OTHERS = Others()


@dataclass(frozen=True)
class Start:
    """What one start of a guest is made of, beside its boot.

    `image` is a path; `devices` are the image's own, in order; `taps` and `volumes` are the links
    and files of this host behind them, by the same names. `generation` is its number, and `alias`
    what it is known by on this host; `file` is for a tender that reads what to boot from one;
    `others` are the domains that end for it.
    """

    name: str
    image: str
    tending: Tending = Tending()
    devices: Mapping[str, str] = field(default_factory=dict)
    taps: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)
    generation: int = 0
    alias: str = ""
    file: str = ""
    others: Others = NO_OTHERS


def refuse_devices(asked: Guest | Boot, image: Image) -> None:
    """Raise ImageError unless every device of an image's manifest is configured, and no other."""
    blocks = asked.block if isinstance(asked, Guest) else asked.volumes
    bound = dict.fromkeys(asked.network, "network") | dict.fromkeys(blocks, "block")
    wanted = {name: _KINDS[kind] for name, kind in image.devices.items()}
    if bound == wanted:
        return
    wrong = [
        *(f"{name} is not configured" for name in wanted.keys() - bound.keys()),
        *(f"the image has no {name}" for name in bound.keys() - wanted.keys()),
        *(
            f"{name} is a {wanted[name]} device, configured as {bound[name]}"
            for name in wanted.keys() & bound.keys()
            if wanted[name] != bound[name]
        ),
    ]
    raise ImageError(
        f"devices do not match: {'; '.join(sorted(wrong))}",
        f"the image's own: {_listed(wanted)}; configured: {_listed(bound)}",
    )


def refuse_memory(asked: Guest | Boot, image: Image) -> None:
    """Raise ImageError where an image alone takes more than the memory that the guest is to have.

    How much more it takes to run, only the guest knows.
    """
    if image.end > asked.memory << 20:
        raise ImageError(
            f"memory {asked.memory} MiB is too little: the image's segments alone end at "
            f"{image.end / (1 << 20):.1f} MiB",
            "raise `memory` of the guest",
        )


def _listed(devices: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in devices.items()) or "none"
