"""What an image is, told from its bytes; whatever they are."""

import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from guests_built import Built
from mirage_hooks.boot.elf import inspect
from mirage_hooks.boot.errors import ImageError
from mirage_hooks.boot.image import Image

ABI = 0x31494241
MFT = 0x3154464D
UNIX = Image("unix")

# Where the fields of a 64 bit ELF header and of a program header start.
E_TYPE, E_MACHINE, E_PHOFF, E_PHENTSIZE, E_PHNUM = 16, 18, 32, 54, 56
P_TYPE, P_OFFSET, P_FILESZ = 0, 8, 32
PT_NULL, PT_LOAD = 0, 1


def compile_c(image: Path, source: str, *options: str) -> bytes:
    """Compile a C source; return the bytes."""
    command = ["cc", *options, "-x", "c", "-o", str(image), "-"]
    subprocess.run(command, input=source.encode(), check=True)
    return image.read_bytes()


def note(section: str, owner: str, kind: int, *words: int) -> str:
    """Return C source for an ELF note of words."""
    lines = [
        f'.section {section},"a",@note',
        ".balign 4",
        f".long {len(owner) + 1}, {4 * len(words)}, {kind:#x}",
        f'.asciz "{owner}"',
        ".balign 4",
        *(f".long {word}" for word in words),
        ".previous",
    ]
    return f"__asm__({' '.join(repr_c(line) for line in lines)});\n"


def repr_c(line: str) -> str:
    """Return a line of assembler as a C string."""
    escaped = line.replace('"', r"\"")
    return rf'"{escaped}\n"'


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small program of this host."""
    return compile_c(tmp_path_factory.mktemp("program") / "a", "int main(void) { return 0; }\n")


@pytest.fixture
def noted(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes a freestanding program with notes in it."""

    def make(*notes: str) -> Path:
        source = "".join(notes) + "void _start(void) {}\n"
        compile_c(tmp_path / "noted", source, "-static", "-nostdlib", "-fno-pie")
        return tmp_path / "noted"

    return make


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Where a test writes its image."""
    return tmp_path / "image"


def patch(data: bytes, layout: str, **at: int) -> bytes:
    """Return `data` with a number written `at` a place."""
    changed = bytearray(data)
    struct.pack_into(layout, changed, at["at"], at["value"])
    return bytes(changed)


def program_headers(data: bytes) -> list[int]:
    """Return where the program headers of an ELF file start."""
    (start,) = struct.unpack_from("<Q", data, E_PHOFF)
    size, count = struct.unpack_from("<HH", data, E_PHENTSIZE)
    return [start + size * number for number in range(count)]


# What serves.


def test_a_program_of_this_host_is_a_unix_image(image: Path, program: bytes) -> None:
    image.write_bytes(program)
    assert inspect(image) == UNIX


def test_a_static_program_is_a_unix_image(compiled: Callable[[str], Path]) -> None:
    assert inspect(compiled("one")) == UNIX


@pytest.mark.parametrize("text", [b"#!/bin/sh\n", b"#!", b"#!/usr/bin/env python3\nimport this\n"])
def test_a_script_is_a_unix_image_and_said_to_be_a_script(image: Path, text: bytes) -> None:
    image.write_bytes(text)
    assert inspect(image) == Image("unix", script=True)


@pytest.mark.parametrize(("number", "target"), [(1, "hvt"), (2, "spt"), (3, "virtio"), (6, "xen")])
def test_the_target_is_read_from_the_solo5_note(
    noted: Callable[..., Path], number: int, target: str
) -> None:
    path = noted(note(".note.solo5.abi", "Solo5", ABI, number, 2, 0, 0))
    assert inspect(path).target == target


def test_the_solo5_note_is_found_behind_others(noted: Callable[..., Path]) -> None:
    other = note(".note.a", "GNU", 3, 0, 0, 0, 0, 0)
    manifest = note(".note.solo5.manifest", "Solo5", MFT, 1, 1, *[0] * 17, 1 << 30, *[0] * 8)
    abi = note(".note.solo5.z", "Solo5", ABI, 2, 2, 0, 0)
    assert inspect(noted(other, manifest, abi)).target == "spt"


def test_a_xen_note_is_the_mark_of_a_xen_image(noted: Callable[..., Path]) -> None:
    assert inspect(noted(note(".note.Xen", "Xen", 18, 0x100000))).target == "xen"


def test_notes_of_others_make_no_unikernel(noted: Callable[..., Path]) -> None:
    assert inspect(noted(note(".note.other", "Other", ABI, 1, 2, 0, 0))) == UNIX


def test_another_note_of_solo5_makes_no_unikernel(noted: Callable[..., Path]) -> None:
    assert inspect(noted(note(".note.solo5.manifest", "Solo5", 0x3154464D, 1, 0))) == UNIX


# Solo5's manifest: which devices an image has.


def entry(name: bytes, kind: int) -> bytes:
    return struct.pack("<68sI32x", name, kind)


def manifest(*entries: bytes, version: int = 1, count: int | None = None) -> bytes:
    """Return a manifest with its reserved first entry, as mft_abi.h has it."""
    everything = (entry(b"", 1 << 30), *entries)
    number = len(everything) if count is None else count
    return struct.pack("<II", version, number) + b"".join(everything)


def words(content: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(content) // 4}I", content)


def manifest_note(content: bytes, aligned: bool = True) -> str:
    """Return C source for a manifest's note; Solo5's aligns what is in it to 8 bytes."""
    padding = (0,) if aligned else ()
    return note(".note.solo5.manifest", "Solo5", MFT, *padding, *words(content))


SPT = note(".note.solo5.abi", "Solo5", ABI, 2, 2, 0, 0)
NET, BLOCK = 2, 1


def test_the_devices_of_a_manifest_are_read_in_their_order(noted: Callable[..., Path]) -> None:
    content = manifest(entry(b"storage", BLOCK), entry(b"service", NET), entry(b"a", NET))
    image = inspect(noted(SPT, manifest_note(content)))
    assert list(image.devices.items()) == [
        ("storage", "BLOCK_BASIC"),
        ("service", "NET_BASIC"),
        ("a", "NET_BASIC"),
    ]


def test_the_version_of_the_abi_is_read(noted: Callable[..., Path]) -> None:
    assert inspect(noted(note(".note.solo5.abi", "Solo5", ABI, 1, 1, 0, 0))).abi == 1


def test_a_manifest_without_padding_is_read(noted: Callable[..., Path]) -> None:
    content = manifest(entry(b"service", NET))
    image = inspect(noted(SPT, manifest_note(content, aligned=False)))
    assert image.devices == {"service": "NET_BASIC"}


def test_a_manifest_of_no_device_is_read(noted: Callable[..., Path]) -> None:
    assert inspect(noted(SPT, manifest_note(manifest()))).devices == {}


def test_an_image_without_a_manifest_has_no_devices(noted: Callable[..., Path]) -> None:
    image = inspect(noted(SPT))
    assert (image.target, image.abi, image.devices) == ("spt", 2, {})


def test_a_solo5_image_says_how_far_into_memory_it_goes(built: Built) -> None:
    image = built.image("virtio")
    listed = subprocess.run(["readelf", "-lW", image], capture_output=True, text=True, check=True)
    loaded = [line.split() for line in listed.stdout.splitlines() if line.lstrip()[:4] == "LOAD"]
    assert inspect(image).end == max(int(one[2], 16) + int(one[5], 16) for one in loaded)


def test_a_manifest_alone_makes_no_unikernel(noted: Callable[..., Path]) -> None:
    content = manifest(entry(b"service", NET))
    assert inspect(noted(manifest_note(content))) == UNIX


def test_as_many_devices_as_solo5_takes_are_read(noted: Callable[..., Path]) -> None:
    names = [f"n{number}".encode() for number in range(63)]
    image = inspect(noted(SPT, manifest_note(manifest(*(entry(name, NET) for name in names)))))
    assert list(image.devices) == [name.decode() for name in names]


SERVICE = entry(b"service", NET)
DAMAGED = {
    "of another version": manifest(SERVICE, version=2),
    "with too many entries": manifest(SERVICE, count=3),
    "with too few entries": manifest(SERVICE, count=1),
    "with more entries than Solo5 takes": manifest(
        *(entry(f"n{number}".encode(), NET) for number in range(64))
    ),
    "with no entry": struct.pack("<II", 1, 0),
    "cut short": manifest(SERVICE)[:-8],
    "empty": b"",
    "of a head's half": struct.pack("<I", 1),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_manifest_is_refused(noted: Callable[..., Path], content: bytes) -> None:
    with pytest.raises(ImageError, match="its Solo5 manifest is damaged, or of a version"):
        inspect(noted(SPT, manifest_note(content)))


def test_a_manifest_without_its_reserved_entry_is_refused(noted: Callable[..., Path]) -> None:
    content = struct.pack("<II", 1, 1) + SERVICE
    with pytest.raises(ImageError, match="its first entry is no reserved one"):
        inspect(noted(SPT, manifest_note(content)))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"", "b''"),
        (b"a-b", "b'a-b'"),
        (b"../x", "b'../x'"),
        (b"a=b", "b'a=b'"),
        ("größe".encode(), r"b'gr\\xc3\\xb6\\xc3\\x9fe'"),
        (b"\x1b[2J", r"b'\\x1b\[2J'"),
        (b"a" * 68, "b'a{68}'"),
    ],
)
def test_what_cannot_name_a_device_is_refused(
    noted: Callable[..., Path], name: bytes, shown: str
) -> None:
    with pytest.raises(ImageError, match=f"its Solo5 manifest is damaged: {shown} names no device"):
        inspect(noted(SPT, manifest_note(manifest(entry(name, NET)))))


@pytest.mark.parametrize("kind", [0, 3, 1 << 30, 2**32 - 1])
def test_a_device_of_a_type_that_is_not_known_is_refused(
    noted: Callable[..., Path], kind: int
) -> None:
    with pytest.raises(ImageError, match=f"its device service is of type {kind}, not known here"):
        inspect(noted(SPT, manifest_note(manifest(entry(b"service", kind)))))


@pytest.mark.parametrize("kind", [NET, BLOCK])
def test_two_devices_of_a_name_are_refused(noted: Callable[..., Path], kind: int) -> None:
    content = manifest(SERVICE, entry(b"service", kind))
    with pytest.raises(ImageError, match="its Solo5 manifest has two devices service"):
        inspect(noted(SPT, manifest_note(content)))


# What does not.


@pytest.mark.parametrize("number", [0, 4, 5, 7, 2**32 - 1])
def test_a_solo5_target_that_is_not_known_is_refused_by_its_number(
    noted: Callable[..., Path], number: int
) -> None:
    path = noted(note(".note.solo5.abi", "Solo5", ABI, number, 2, 0, 0))
    with pytest.raises(ImageError, match=f"its Solo5 target, number {number}, is not known here"):
        inspect(path)


def test_a_solo5_note_without_a_target_is_refused(noted: Callable[..., Path]) -> None:
    with pytest.raises(ImageError):
        inspect(noted(note(".note.solo5.abi", "Solo5", ABI)))


@pytest.mark.parametrize(
    "data", [b"", b"#", b"\x7f", b"\x7fEL", b"MZ\x90\x00", b"BZh91AY", b"PK\x03\x04", b" #!/bin/sh"]
)
def test_what_is_neither_elf_nor_a_script_is_refused(image: Path, data: bytes) -> None:
    image.write_bytes(data)
    with pytest.raises(ImageError, match="it is neither an ELF file nor a script"):
        inspect(image)


def test_a_program_for_another_machine_is_refused(image: Path, program: bytes) -> None:
    image.write_bytes(patch(program, "<H", at=E_MACHINE, value=243))
    with pytest.raises(ImageError, match="it is for another machine: 64 bit riscv64; this host"):
        inspect(image)


def test_a_program_for_a_machine_that_nobody_knows_is_refused(image: Path, program: bytes) -> None:
    image.write_bytes(patch(program, "<H", at=E_MACHINE, value=0xFFF0))
    with pytest.raises(ImageError, match="it is for another machine"):
        inspect(image)


def test_a_32_bit_program_is_refused(image: Path) -> None:
    ident = b"\x7fELF\x01\x01\x01".ljust(16, b"\0")
    header = struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, 0x8048000, 52, 0, 0, 52, 32, 1, 40, 0, 0)
    load = struct.pack("<IIIIIIII", PT_LOAD, 0, 0x8048000, 0x8048000, 84, 84, 5, 0x1000)
    image.write_bytes(ident + header + load)
    with pytest.raises(ImageError, match="it is for another machine: 32 bit i386; this host"):
        inspect(image)


def test_an_object_file_is_refused(image: Path) -> None:
    compile_c(image, "int main(void) { return 0; }\n", "-c")
    with pytest.raises(ImageError, match="no program: an object file"):
        inspect(image)


def test_a_core_dump_is_refused(image: Path, program: bytes) -> None:
    image.write_bytes(patch(program, "<H", at=E_TYPE, value=4))
    with pytest.raises(ImageError, match="no program: a core dump"):
        inspect(image)


def test_a_program_without_program_headers_is_refused(image: Path, program: bytes) -> None:
    image.write_bytes(patch(program, "<H", at=E_PHNUM, value=0))
    with pytest.raises(ImageError, match="with nothing in it to load"):
        inspect(image)


def test_a_program_with_nothing_to_load_is_refused(image: Path, program: bytes) -> None:
    for header in program_headers(program):
        if struct.unpack_from("<I", program, header) == (PT_LOAD,):
            program = patch(program, "<I", at=header + P_TYPE, value=PT_NULL)
    image.write_bytes(program)
    with pytest.raises(ImageError, match="with nothing in it to load"):
        inspect(image)


def test_a_program_whose_contents_end_early_is_refused_as_cut_short(
    image: Path, compiled: Callable[[str], Path]
) -> None:
    data = compiled("one").read_bytes()
    image.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=f"it is cut short: {len(data) // 2} bytes of at least"):
        inspect(image)


@pytest.mark.parametrize("field", [P_OFFSET, P_FILESZ])
def test_a_segment_that_ends_beyond_the_file_is_refused(
    image: Path, program: bytes, field: int
) -> None:
    header = program_headers(program)[-1]
    image.write_bytes(patch(program, "<Q", at=header + field, value=2**63))
    with pytest.raises(ImageError, match="it is cut short"):
        inspect(image)


# Anything.


def inspect_bytes(path: Path, data: bytes) -> Image | None:
    """Return what bytes are, None where they are refused; nothing else may come of them."""
    path.write_bytes(data)
    try:
        return inspect(path)
    except ImageError as error:
        assert error.message
        return None


def test_any_bytes_are_an_image_or_refused(image: Path) -> None:
    @settings(max_examples=150, deadline=None)
    @given(st.sampled_from([b"", b"\x7fELF", b"\x7fELF\x02\x01\x01", b"#!"]), st.binary())
    @example(b"\x7fELF\x02\x02\x01", b"\xff" * 300)
    @example(b"\x7fELF\x02\x01\x01", b"\0" * 300)
    def property_holds(start: bytes, rest: bytes) -> None:
        found = inspect_bytes(image, start + rest)
        assert found in [None, Image("unix", script=True)]

    property_holds()


def test_a_program_cut_anywhere_before_the_end_of_its_contents_is_refused(
    image: Path, program: bytes
) -> None:
    ends = [
        sum(struct.unpack_from("<Q", program, header + field)[0] for field in (P_OFFSET, P_FILESZ))
        for header in program_headers(program)
    ]

    @settings(max_examples=100, deadline=None)
    @given(st.integers(0, 1024) | st.integers(0, max(ends) - 1))
    def property_holds(length: int) -> None:
        assert inspect_bytes(image, program[:length]) is None

    property_holds()


def test_a_program_with_bits_flipped_is_an_image_or_refused(image: Path, program: bytes) -> None:
    headers = program_headers(program)
    places = st.integers(0, headers[-1] + 56) | st.integers(0, len(program) - 1)

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.tuples(places, st.integers(1, 255)), min_size=1, max_size=8))
    def property_holds(flips: list[tuple[int, int]]) -> None:
        changed = bytearray(program)
        for place, bits in flips:
            changed[place] ^= bits
        found = inspect_bytes(image, bytes(changed))
        assert found is None or not found.script

    property_holds()


def test_a_unikernel_with_bits_flipped_is_an_image_or_refused(
    image: Path, noted: Callable[..., Path]
) -> None:
    data = noted(note(".note.solo5.abi", "Solo5", ABI, 1, 2, 0, 0)).read_bytes()
    start = data.index(struct.pack("<IIII", 6, 16, ABI, int.from_bytes(b"Solo", "little")))
    places = st.integers(start, start + 36) | st.integers(0, len(data) - 1)

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.tuples(places, st.integers(1, 255)), min_size=1, max_size=4))
    def property_holds(flips: list[tuple[int, int]]) -> None:
        changed = bytearray(data)
        for place, bits in flips:
            changed[place] ^= bits
        found = inspect_bytes(image, bytes(changed))
        assert found is None or not found.script

    property_holds()


def test_any_bytes_are_a_manifest_or_refused(image: Path, noted: Callable[..., Path]) -> None:
    sound = manifest(entry(b"storage", BLOCK), SERVICE)
    data = noted(SPT, manifest_note(sound)).read_bytes()
    at = data.index(sound) - 4
    size = data.index(struct.pack("<III", 6, 4 + len(sound), MFT)) + 4
    places = st.integers(0, len(sound) + 3)

    def property_holds(changed: bytearray) -> None:
        found = inspect_bytes(image, bytes(changed))
        assert found is None or all(name.isalnum() for name in found.devices)

    @settings(max_examples=150, deadline=None)
    @given(st.binary(max_size=len(sound) + 4))
    def any_bytes(content: bytes) -> None:
        changed = bytearray(data)
        changed[at : at + len(content)] = content
        struct.pack_into("<I", changed, size, len(content))
        property_holds(changed)

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.tuples(places, st.integers(1, 255)), min_size=1, max_size=4))
    def bits_flipped(flips: list[tuple[int, int]]) -> None:
        changed = bytearray(data)
        for place, bits in flips:
            changed[at + place] ^= bits
        property_holds(changed)

    any_bytes()
    bits_flipped()


# Kernels for Xen.

HYPERCALL_PAGE, PHYS32_ENTRY = 2, 18


@pytest.mark.parametrize(
    ("kinds", "modes"),
    [
        ((HYPERCALL_PAGE,), ("pv",)),
        ((PHYS32_ENTRY,), ("pvh",)),
        ((PHYS32_ENTRY, HYPERCALL_PAGE), ("pv", "pvh")),
        ((6,), ()),
    ],
)
def test_xens_notes_tell_how_a_kernel_can_be_booted(
    tmp_path: Path, kinds: tuple[int, ...], modes: tuple[str, ...]
) -> None:
    notes = "".join(note(f".note.Xen{kind}", "Xen", kind, 0, 0) for kind in kinds)
    compile_c(tmp_path / "a", f"{notes}int main(void) {{ return 0; }}\n")
    found = inspect(tmp_path / "a")
    assert (found.target, found.modes) == ("xen", modes)


def test_a_kernel_from_before_xens_notes_is_known_by_its_section(tmp_path: Path) -> None:
    section = '__asm__(".section __xen_guest\\n.ascii \\"GUEST_OS=Mini-OS\\"\\n.previous\\n");\n'
    compile_c(tmp_path / "a", f"{section}int main(void) {{ return 0; }}\n")
    assert inspect(tmp_path / "a") == Image("xen", modes=("pv",))
