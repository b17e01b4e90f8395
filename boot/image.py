"""What an image is, as elf.py tells it from the file."""

import msgspec

from mirage_hooks.boot.guest import Target, XenMode


class Image(msgspec.Struct, frozen=True):
    """What an image turned out to be.

    `abi` is the version of Solo5's, and `devices` are those of its manifest, in order: names and
    types, "NET_BASIC" or "BLOCK_BASIC". An image without Solo5 has neither. `end` is where in a
    Solo5 guest's memory its segments end, in bytes. `modes` are the ways in which Xen can boot it.
    """

    target: Target
    script: bool = False
    abi: int | None = None
    devices: dict[str, str] = {}
    end: int = 0
    modes: tuple[XenMode, ...] = ()
