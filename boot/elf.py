"""What an image is: told from the file itself, never from its name."""

import platform
from pathlib import Path
from typing import BinaryIO

import msgspec
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import NoteSegment, Segment

from mirage_hooks.boot.errors import ImageError
from mirage_hooks.boot.guest import Target

_MACHINES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}

# Solo5's elf_abi.h: the note of owner "Solo5" and type "ABI1" starts with the target's number.
_SOLO5_ABI = 0x31494241
_SOLO5_TARGETS: dict[int, Target] = {1: "hvt", 2: "spt", 3: "virtio", 6: "xen"}


# What a hostile file could make the reading of notes take hours with.
_MOST_SEGMENTS = 64
_MOST_NOTES = 1 << 16


class Image(msgspec.Struct, frozen=True):
    """What an image turned out to be."""

    target: Target
    script: bool = False


def inspect(path: Path) -> Image:
    """Return what the image at `path` is.

    Raises ImageError where it is no image, is cut short, or is for another machine.
    """
    with path.open("rb") as file:
        start = file.read(4)
        if start[:2] == b"#!":
            return Image("unix", script=True)
        if start != b"\x7fELF":
            raise ImageError(f"it is neither an ELF file nor a script: it starts with {start!r}")
        try:
            return _inspect_elf(file)
        except ImageError:
            raise
        # pyelftools checks little before it reads: what a damaged file makes of it is any error.
        except Exception as error:
            raise ImageError(f"it is a damaged ELF file: {error or type(error).__name__}") from None


def _inspect_elf(file: BinaryIO) -> Image:
    elf = ELFFile(file)
    machine, wanted = elf["e_machine"], _MACHINES.get(platform.machine())
    if elf.elfclass != 64 or machine != wanted:
        raise ImageError(
            f"it is for another machine: {elf.elfclass} bit {machine}; this host is 64 bit {wanted}"
        )
    if elf["e_type"] not in {"ET_EXEC", "ET_DYN"}:
        raise ImageError(f"it is an ELF file, but no program: its type is {elf['e_type']}")
    size = file.seek(0, 2)
    segments = list(elf.iter_segments())
    if not any(segment["p_type"] == "PT_LOAD" for segment in segments):
        raise ImageError("it is an ELF file with nothing in it to load")
    notes = [segment for segment in segments if isinstance(segment, NoteSegment)]
    if len(segments) > _MOST_SEGMENTS or sum(one["p_filesz"] for one in notes) > _MOST_NOTES:
        raise ImageError("it has more segments or notes than any unikernel: it is not looked at")
    end = max(segment["p_offset"] + segment["p_filesz"] for segment in segments)
    if end > size:
        raise ImageError(f"it is cut short: {size} bytes of at least {end}")
    return Image(_target(segments))


def _target(segments: list[Segment]) -> Target:
    for segment in segments:
        if not isinstance(segment, NoteSegment):
            continue
        for note in segment.iter_notes():
            if note["n_name"] == "Solo5" and _number(note["n_type"]) == _SOLO5_ABI:
                number = int.from_bytes(note["n_descdata"][:4], "little")
                if number not in _SOLO5_TARGETS:
                    raise ImageError(f"its Solo5 target, number {number}, is not known here")
                return _SOLO5_TARGETS[number]
            if note["n_name"] == "Xen":
                return "xen"
    return "unix"


def _number(value: object) -> int:
    return value if isinstance(value, int) else -1
