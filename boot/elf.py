"""What an image is: told from the file itself, never from its name."""

import platform
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from mirage_hooks.boot.errors import ImageError
from mirage_hooks.boot.guest import Target, XenMode
from mirage_hooks.boot.image import Image

# elf(5): after the magic, how wide words are and in which order; type and machine have one place in
# either width, the rest is laid out so in 64 bit files. Machines have the names of uname(2).
_BITS = {1: 32, 2: 64}
_ORDERS = {1: "<", 2: ">"}
_TYPE_AND_MACHINE = "16xHH"
_HEADER = "32xQQ4x2xHHHHH"
_MACHINES = {
    3: "i386",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    62: "x86_64",
    183: "aarch64",
    243: "riscv64",
}
_PROGRAMS = {2, 3}
_OTHERS = {1: "an object file", 4: "a core dump"}

# Solo5's elf_abi.h: the note of owner "Solo5" and type "ABI1" starts with the target's number
# and the version of its ABI.
_SOLO5_ABI = 0x31494241
_ABI = struct.Struct("<II")
_SOLO5_TARGETS: dict[int, Target] = {1: "hvt", 2: "spt", 3: "virtio", 6: "xen"}

# Solo5's mft_abi.h: the note of type "MFT1" holds the version and the number of entries, and behind
# them the entries: a name in 68 bytes, a type, and what is for the tender's use. Names are of
# letters and digits: its elftool makes no others, and its tenders take none.
_SOLO5_MANIFEST = 0x3154464D
_MANIFEST_HEAD = struct.Struct("<II")
_NAME_BYTES = 68
_MANIFEST_ENTRY = struct.Struct(f"<{_NAME_BYTES}sI32x")
_MANIFEST_VERSION, _MOST_DEVICES = 1, 64
_DEVICES = {1: "BLOCK_BASIC", 2: "NET_BASIC"}
_RESERVED_FIRST = 1 << 30

# Xen's public/elfnote.h: a kernel that names its hypercall page can be booted as PV, one that has a
# 32 bit entry as PVH. Kernels from before those notes, such as early MirageOS's, have a section.
_XEN_MODES: dict[int, XenMode] = {2: "pv", 18: "pvh"}
_XEN_SECTION = b"__xen_guest"

# Kinds of segments, and how a program header and the head of a note are laid out in 64 bit files.
_PT_LOAD, _PT_NOTE = 1, 4
_SEGMENT = "IIQQQQQQ"
_NOTE = "III"

# What a hostile file could make the reading of notes take hours with.
_MOST_SEGMENTS = 64
_MOST_NOTES = 1 << 16
_MOST_SECTIONS = 1 << 10
_MOST_OFFSET = 1 << 40


class _Header(NamedTuple):
    order: str
    segments_at: int
    sections_at: int
    segment_size: int
    segments: int
    section_size: int
    sections: int
    names: int


class _Segment(msgspec.Struct, frozen=True):
    kind: int
    offset: int
    size: int
    end: int


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
        except struct.error as error:
            raise ImageError(f"it is a damaged ELF file: {error}") from None


def _inspect_elf(file: BinaryIO) -> Image:
    elf = _header(file)
    size = file.seek(0, 2)
    if elf.segments > _MOST_SEGMENTS:
        raise ImageError("it has more segments than any unikernel: it is not looked at")
    segments = list(_segments(elf, file))
    if not any(segment.kind == _PT_LOAD for segment in segments):
        raise ImageError("it is an ELF file with nothing in it to load")
    notes = [segment for segment in segments if segment.kind == _PT_NOTE]
    if sum(segment.size for segment in notes) > _MOST_NOTES:
        raise ImageError("it has more notes than any unikernel: it is not looked at")
    end = max(segment.offset + segment.size for segment in segments)
    if end > size:
        raise ImageError(f"it is cut short: {size} bytes of at least {end}")
    image = _identify(elf, file, notes)
    if image.target == "unix" and _has_xen_section(elf, file):
        return Image("xen", modes=("pv",))
    if image.abi is None:
        return image
    loaded = (segment.end for segment in segments if segment.kind == _PT_LOAD)
    return msgspec.structs.replace(image, end=max(loaded))


def _header(file: BinaryIO) -> _Header:
    """Return the header of a program for this host."""
    start = _read(file, 0, struct.calcsize("<" + _HEADER)).ljust(6)
    bits, order = _BITS.get(start[4]), _ORDERS.get(start[5])
    if bits is None or order is None:
        raise ImageError("it is a damaged ELF file: no word says how wide its words are")
    kind, number = struct.unpack_from(order + _TYPE_AND_MACHINE, start)
    machine, wanted = _MACHINES.get(number, f"machine {number}"), platform.machine()
    if bits != 64 or machine != wanted:
        raise ImageError(
            f"it is for another machine: {bits} bit {machine}; this host is 64 bit {wanted}"
        )
    if kind not in _PROGRAMS:
        other = _OTHERS.get(kind, f"of type {kind}")
        raise ImageError(f"it is an ELF file, but no program: {other}")
    return _Header(order, *struct.unpack(order + _HEADER, start))


def _segments(elf: _Header, file: BinaryIO) -> Iterator[_Segment]:
    layout = struct.Struct(elf.order + _SEGMENT)
    step = elf.segment_size
    if elf.segments and step < layout.size:
        raise ImageError(f"it is a damaged ELF file: a program header of {step} bytes")
    table = _read(file, elf.segments_at, step * elf.segments)
    for at in range(0, step * elf.segments, step or 1):
        kind, _, offset, address, _, size, in_memory, _ = layout.unpack_from(table, at)
        yield _Segment(kind, offset, size, address + in_memory)


def _identify(elf: _Header, file: BinaryIO, segments: list[_Segment]) -> Image:
    """Return what the notes say that an image is: for `unix`, nothing."""
    image, manifest, modes = Image("unix"), b"", set[XenMode]()
    for segment in segments:
        for owner, kind, content in _notes(elf, _read(file, segment.offset, segment.size)):
            if owner == b"Solo5" and kind == _SOLO5_ABI:
                image = _solo5(content)
            elif owner == b"Solo5" and kind == _SOLO5_MANIFEST:
                manifest = content
            elif owner == b"Xen":
                image = image if image.abi is not None else Image("xen")
                modes.update({_XEN_MODES[kind]} if kind in _XEN_MODES else ())
    devices = _manifest(manifest) if image.abi is not None and manifest else {}
    return msgspec.structs.replace(image, devices=devices, modes=tuple(sorted(modes)))


def _has_xen_section(elf: _Header, file: BinaryIO) -> bool:
    """Whether a section is named as those that Xen's builder looked for before there were notes.

    What a damaged table of sections says is nothing that makes an image.
    """
    count, step = elf.sections, elf.section_size
    layout = struct.Struct(elf.order + "IIQQQQ")
    if not 0 < elf.names < count <= _MOST_SECTIONS or step < layout.size:
        return False
    table = _read(file, elf.sections_at, step * count)
    if len(table) < step * count:
        return False
    _, _, _, _, at, size = layout.unpack_from(table, step * elf.names)
    texts = _read(file, at, min(size, _MOST_NOTES))
    starts = (layout.unpack_from(table, step * number)[0] for number in range(count))
    return any(texts[start:].startswith(_XEN_SECTION + b"\0") for start in starts)


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(min(at, _MOST_OFFSET))
    return file.read(size)


def _solo5(content: bytes) -> Image:
    number, abi = _ABI.unpack_from(content)
    if number not in _SOLO5_TARGETS:
        raise ImageError(f"its Solo5 target, number {number}, is not known here")
    return Image(_SOLO5_TARGETS[number], abi=abi)


def _manifest(content: bytes) -> dict[str, str]:
    """Return the devices that a manifest names, as Solo5's mft_validate would have them."""
    # The compiler aligns the manifest to 8 bytes, which the note's head of 20 is no multiple of.
    data = content[len(content) % 8 :]
    head, entries = data[: _MANIFEST_HEAD.size], data[_MANIFEST_HEAD.size :]
    count, odd = divmod(len(entries), _MANIFEST_ENTRY.size)
    if (
        head != _MANIFEST_HEAD.pack(_MANIFEST_VERSION, count)
        or odd
        or not 1 <= count <= _MOST_DEVICES
    ):
        raise ImageError("its Solo5 manifest is damaged, or of a version that is not known here")
    (name, kind), *rest = _MANIFEST_ENTRY.iter_unpack(entries)
    if name[0] or kind != _RESERVED_FIRST:
        raise ImageError("its Solo5 manifest is damaged: its first entry is no reserved one")
    devices: dict[str, str] = {}
    for padded, kind in rest:
        name = padded.partition(b"\0")[0]
        if not name.isalnum() or len(name) == _NAME_BYTES:
            raise ImageError(f"its Solo5 manifest is damaged: {name!r} names no device")
        if kind not in _DEVICES:
            raise ImageError(f"its device {name.decode()} is of type {kind}, not known here")
        if name.decode() in devices:
            raise ImageError(f"its Solo5 manifest has two devices {name.decode()}")
        devices[name.decode()] = _DEVICES[kind]
    return devices


def _notes(elf: _Header, data: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """Yield owner, type and contents of the notes of a segment: all three are 4-byte aligned."""
    layout = struct.Struct(elf.order + _NOTE)
    at = 0
    while at + layout.size <= len(data):
        named, held, kind = layout.unpack_from(data, at)
        name = at + layout.size
        content = name + -(-named // 4) * 4
        yield data[name : name + named].partition(b"\0")[0], kind, data[content : content + held]
        at = content + -(-held // 4) * 4
