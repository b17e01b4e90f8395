"""Any bytes as an image: known for what they are, or refused; soon, in little memory, no trace."""

import bz2
import gzip
import hashlib
import lzma
import resource
import struct
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mirage_hooks.boot.elf import inspect
from mirage_hooks.boot.errors import HostError, ImageError
from mirage_hooks.boot.image import Image
from mirage_hooks.boot.revision import Blob
from mirage_hooks.boot.store import Store
from strategies import FILE, Objects, assert_told, examples
from support import PACKERS

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# ELF files, built by hand: a header, program headers, and what these point to.

PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE = 1, 2, 3, 4
HEADER, PROGRAM_HEADER, SECTION_HEADER = 64, 56, 64
SOLO5_ABI = 0x31494241


def machine() -> int:
    """Return this host's number in ELF, which a program of this host has."""
    number: int = struct.unpack_from("<H", Path(sys.executable).resolve().read_bytes(), 18)[0]
    return number


def elf_header(**changed: int) -> bytes:
    """Return a file header; the program headers follow it where nothing else is said."""
    fields = {
        "e_type": 2,
        "e_machine": machine(),
        "e_version": 1,
        "e_entry": 0x400000,
        "e_phoff": HEADER,
        "e_shoff": 0,
        "e_flags": 0,
        "e_ehsize": HEADER,
        "e_phentsize": PROGRAM_HEADER,
        "e_phnum": 1,
        "e_shentsize": SECTION_HEADER,
        "e_shnum": 0,
        "e_shstrndx": 0,
        **changed,
    }
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    return identity + struct.pack("<HHIQQQIHHHHHH", *fields.values())


def segment(kind: int, offset: int = 0, size: int = 0) -> bytes:
    """Return a program header."""
    return struct.pack("<IIQQQQQQ", kind, 5, offset, 0, 0, size, size, 4)


def section(kind: int, size: int = 0, info: int = 0) -> bytes:
    """Return a section header."""
    return struct.pack("<IIQQQQIIQQ", 0, kind, 0, 0, 0, size, 0, info, 0, 0)


def elf_note(owner: bytes, kind: int, content: bytes) -> bytes:
    """Return a note, filled up to four bytes."""
    name = owner + b"\0"
    head = struct.pack("<III", len(name), len(content), kind)
    return head + b"".join(part + b"\0" * (-len(part) % 4) for part in (name, content))


def elf(segments: list[tuple[int, bytes]]) -> bytes:
    """Return an ELF file of segments: their kinds, and what they hold."""
    at = HEADER + PROGRAM_HEADER * len(segments)
    headers = []
    for kind, content in segments:
        headers.append(segment(kind, at, len(content)))
        at += len(content)
    header = elf_header(e_phnum=len(segments))
    return header + b"".join(headers) + b"".join(content for _, content in segments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests of this module write."""
    return tmp_path_factory.mktemp("images")


def look(folder: Path, data: bytes) -> Image | None:
    """Return what bytes are, None where they are refused; nothing else may come of it, and soon."""
    path = folder / "image"
    path.write_bytes(data)
    began = time.process_time()
    try:
        found = inspect(path)
    except ImageError as error:
        assert_told(error)
        found = None
    assert time.process_time() - began < 2
    return found


TARGETS = {1: "hvt", 2: "spt", 3: "virtio", 6: "xen"}
ABI = st.builds(
    lambda number, rest: elf_note(b"Solo5", SOLO5_ABI, struct.pack("<II", number, 2) + rest),
    st.sampled_from(list(TARGETS)),
    st.binary(max_size=12),
)
XEN = st.builds(lambda kind, rest: elf_note(b"Xen", kind, rest), st.integers(1, 20), st.binary())
# Of other owners, or of Solo5 but of another type; and what a C compiler puts there by itself.
OTHERS = st.builds(
    elf_note,
    st.sampled_from([b"GNU", b"Solo", b"Solo5x", b"XEN", b"stapsdt", b"CORE", b""]),
    st.sampled_from([0, 7, 18, SOLO5_ABI]),
    st.binary(max_size=40),
) | st.builds(elf_note, st.just(b"Solo5"), st.just(0x3154464D), st.binary(max_size=40))
_MFT = struct.pack("<I", 0x3154464D) + b"Solo5"
PLAIN = st.tuples(st.sampled_from([PT_LOAD, 6, 7, 0x6474E551]), st.binary(max_size=40))
NOTES = st.tuples(st.just(PT_NOTE), st.lists(OTHERS, max_size=3).map(b"".join))


@examples(100)
@given(st.lists(PLAIN | NOTES, max_size=5), st.none() | ABI | XEN, st.data())
def test_a_target_is_told_from_its_note_wherever_that_stands(
    folder: Path, others: list[tuple[int, bytes]], mark: bytes | None, data: st.DataObject
) -> None:
    segments = [*others, (PT_LOAD, b"code")]
    expected = "unix"
    if mark is not None:
        before = data.draw(st.lists(OTHERS, max_size=3).map(b"".join))
        # Notes of others may come behind it, as well as segments.
        behind = data.draw(st.lists(OTHERS, max_size=2).map(b"".join))
        place = data.draw(st.integers(0, len(segments)))
        segments.insert(place, (PT_NOTE, before + mark + behind))
        solo5 = struct.unpack_from("<I", mark, 20)[0] if b"Solo5" in mark[:20] else None
        expected = "xen" if solo5 is None else TARGETS[solo5]
    found = look(folder, elf(segments))
    if expected in TARGETS.values() and any(_MFT in content for _, content in segments):
        assert found is None or found.target == expected  # a manifest of any bytes is a damaged one
    else:
        assert found is not None
        assert found.target == expected


# Bytes that went wrong: in a place, from a place on, or in number.

PLACES = st.integers(0, HEADER + 8 * PROGRAM_HEADER) | st.integers(0, 1 << 20)
NUMBERS = st.sampled_from(
    [0, 1, 2, 3, 4, 5, 6, 7, 64, 0xFF, 0xFFFF, 2**31, 2**32 - 1, 2**63, 2**64 - 1]
)
Change = Callable[[bytes], bytes]


def flipped(place: int, bits: int) -> Change:
    """Return the change of a byte."""

    def change(data: bytes) -> bytes:
        at = place % max(1, len(data))
        return data[:at] + bytes(byte ^ bits for byte in data[at : at + 1]) + data[at + 1 :]

    return change


def written(place: int, number: int, size: int) -> Change:
    """Return the change of a number, where numbers of its size stand."""

    def change(data: bytes) -> bytes:
        at = place % max(1, len(data)) // size * size
        new = number.to_bytes(8, "little")[:size]
        return data[:at] + new + data[at + size :]

    return change


def repeated(place: int, length: int, times: int) -> Change:
    """Return the change that leaves out some bytes, or has them several times."""

    def change(data: bytes) -> bytes:
        at = place % max(1, len(data))
        return data[:at] + data[at : at + length] * times + data[at + length :]

    return change


def inserted(place: int, more: bytes) -> Change:
    """Return the change that puts bytes in."""

    def change(data: bytes) -> bytes:
        at = place % (len(data) + 1)
        return data[:at] + more + data[at:]

    return change


def cut(place: int) -> Change:
    """Return the change that leaves out the end."""
    return lambda data: data[: place % (len(data) + 1)]


CHANGES = st.lists(
    st.builds(flipped, PLACES, st.integers(1, 255))
    | st.builds(written, PLACES, NUMBERS, st.sampled_from([1, 2, 4, 8]))
    | st.builds(repeated, PLACES, st.integers(1, 64), st.sampled_from([0, 2, 3, 40]))
    | st.builds(inserted, PLACES, st.binary(min_size=1, max_size=16))
    | st.builds(cut, PLACES),
    min_size=1,
    max_size=6,
)


def changed(data: bytes, changes: list[Change]) -> bytes:
    """Return bytes with every change made, one after the other."""
    for change in changes:
        data = change(data)
    return data


@examples(200)
@given(CHANGES)
def test_a_program_that_went_wrong_is_an_image_or_refused(
    folder: Path, program: bytes, changes: list[Change]
) -> None:
    data = changed(program, changes)
    found = look(folder, data)
    assert found is None or found.script == data.startswith(b"#!")


@examples(150)
@given(
    st.lists(
        PLAIN | NOTES | st.tuples(st.sampled_from([PT_DYNAMIC, PT_INTERP, PT_NOTE]), ABI | XEN),
        min_size=1,
        max_size=6,
    ),
    CHANGES,
)
def test_a_unikernel_that_went_wrong_is_an_image_or_refused(
    folder: Path, segments: list[tuple[int, bytes]], changes: list[Change]
) -> None:
    data = changed(elf(segments), changes)
    found = look(folder, data)
    assert found is None or found.script == data.startswith(b"#!")


@examples(100)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "e_type",
                "e_machine",
                "e_phoff",
                "e_phentsize",
                "e_phnum",
                "e_shoff",
                "e_shentsize",
                "e_shnum",
                "e_shstrndx",
            ]
        ),
        NUMBERS.map(lambda number: number % 2**16),
        max_size=3,
    ),
    st.lists(st.tuples(st.sampled_from([0, PT_LOAD, PT_DYNAMIC, PT_NOTE]), NUMBERS, NUMBERS)),
)
def test_any_numbers_in_the_headers_make_an_image_or_a_refusal(
    folder: Path, fields: dict[str, int], segments: list[tuple[int, int, int]]
) -> None:
    rows = [segment(kind, offset, size) for kind, offset, size in segments]
    look(folder, elf_header(**{"e_phnum": len(rows), **fields}) + b"".join(rows) + b"\0" * 256)


# What a hostile file could take long with: all in files that pack well.

LARGE = 32 << 20
HOSTILE: dict[str, Callable[[], bytes]] = {
    "as many segments as its header can say": lambda: (
        elf_header(e_phnum=65_534) + segment(PT_LOAD) * 65_534
    ),
    "more segments than its header can say": lambda: (
        elf_header(e_phnum=65_535, e_phoff=HEADER + SECTION_HEADER, e_shoff=HEADER, e_shnum=1)
        + section(0, info=300_000)
        + segment(PT_LOAD) * 300_000
    ),
    "a dynamic segment and many sections": lambda: (
        elf_header(e_shoff=HEADER + PROGRAM_HEADER, e_shnum=0)
        + segment(PT_DYNAMIC)
        + section(1, size=2**63) * 200_000
    ),
    "a note with a name as large as the file": lambda: (
        elf_header(e_phnum=64)
        + segment(PT_NOTE, HEADER + 64 * PROGRAM_HEADER, 64) * 63
        + segment(PT_LOAD)
        + struct.pack("<III", LARGE, 0, 5).ljust(LARGE + 12, b"Z")
    ),
    "a note with contents as large as the file": lambda: (
        elf_header(e_phnum=64)
        + segment(PT_NOTE, HEADER + 64 * PROGRAM_HEADER, 64) * 63
        + segment(PT_LOAD)
        + struct.pack("<III", 0, LARGE, 5).ljust(LARGE + 12, b"Z")
    ),
    "a note of as many properties as the file is large": lambda: (
        elf_header(e_phnum=2)
        + segment(PT_NOTE, HEADER + 2 * PROGRAM_HEADER, 64)
        + segment(PT_LOAD)
        + struct.pack("<III4s", 4, 4 << 20, 5, b"GNU").ljust(4 << 20, b"\0")
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_looked_at_soon_and_in_little_memory(folder: Path, name: str) -> None:
    path = folder / "hostile"
    path.write_bytes(HOSTILE[name]())
    began = time.process_time()
    tracemalloc.start()
    try:
        inspect(path)
    except ImageError as error:
        assert_told(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        path.unlink()
    assert time.process_time() - began < 2
    assert peak < 16 << 20


# Packed images.

LIMIT = 1 << 20
SCRIPT = b"#!/bin/sh\nexec sleep 1000\n"
# By Python's other way to unpack: whole, in memory.
UNPACKERS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.decompress,
    "bzip2": bz2.decompress,
    "xz": lzma.decompress,
    "zstd": zstd.decompress,
}
MAGIC = {"gzip": b"\x1f\x8b", "bzip2": b"BZh", "xz": b"\xfd7zXZ\0", "zstd": b"\x28\xb5\x2f\xfd"}
COMPRESSIONS = list(MAGIC)
BROKEN = (EOFError, OSError, ValueError, zlib.error, lzma.LZMAError, zstd.ZstdError)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    """A repository whose objects are written by hand."""
    return Objects(tmp_path_factory.mktemp("repository") / "bare.git")


def commit(objects: Objects, data: bytes) -> Blob:
    """Commit an image; return its blob."""
    blob = objects.revision(objects.tree([(FILE, "www", objects.blob(data))])).find("www")
    assert blob is not None
    return blob


def compression_of(data: bytes) -> str:
    """Return what bytes are packed with, by how they start."""
    return next((name for name, magic in MAGIC.items() if data.startswith(magic)), "none")


def unpack(data: bytes) -> bytes | None:
    """Return what bytes unpack to, None where they do not."""
    try:
        return UNPACKERS[compression_of(data)](data)
    except BROKEN:
        return None


def files(folder: Path) -> list[str]:
    """Return the name of every file below a folder, hidden ones too."""
    return sorted(path.name for path in folder.rglob("*") if not path.is_dir())


def assert_stored_or_refused(objects: Objects, folder: Path, data: bytes) -> None:
    """Fail where an image is stored as something else, refused for nothing, or leaves a trace."""
    place = folder / hashlib.sha1(data).hexdigest()
    store, blob, expected = Store(place, LIMIT), commit(objects, data), unpack(data)
    try:
        stored = store.add(blob)
    except ImageError as error:
        assert_told(error)
        assert "image www" in error.message
        assert files(place) == [f"{blob.oid}.json"]
        assert not expected or len(expected) > LIMIT or look(folder, expected) is None
        return
    assert expected is not None
    assert store.path(stored.sha256).read_bytes() == expected
    assert stored.sha256 == hashlib.sha256(expected).hexdigest()
    assert (stored.size, stored.packed_size) == (len(expected), len(data))
    assert stored.compression == compression_of(data)
    image = Image(stored.target, stored.script, stored.abi, stored.devices, stored.end)
    assert image == look(folder, expected)
    assert files(place) == sorted([stored.sha256, f"{blob.oid}.json"])


IMAGES = st.sampled_from(
    [SCRIPT, SCRIPT * 200, elf([(PT_LOAD, b"code" * 100)]), b"plain text", b""]
)
PACKED = st.builds(lambda name, image: PACKERS[name](image), st.sampled_from(list(PACKERS)), IMAGES)


@examples(80)
@given(PACKED, CHANGES)
def test_a_packed_image_that_went_wrong_is_stored_as_it_unpacks_or_refused(
    objects: Objects, folder: Path, packed: bytes, changes: list[Change]
) -> None:
    assert_stored_or_refused(objects, folder, changed(packed, changes))


@examples(60)
@given(st.lists(PACKED | st.binary(max_size=12) | st.just(b"\0" * 8), min_size=1, max_size=4))
@example([gzip.compress(SCRIPT), b"\0" * 512])
@example([gzip.compress(SCRIPT), b"garbage"])
@example([zstd.compress(SCRIPT), b"\x50\x2a\x4d\x18\x04\0\0\0skip", zstd.compress(SCRIPT)])
def test_streams_one_after_the_other_are_stored_as_they_unpack_or_refused(
    objects: Objects, folder: Path, streams: list[bytes]
) -> None:
    assert_stored_or_refused(objects, folder, b"".join(streams))


@examples(60)
@given(st.sampled_from(list(MAGIC.values())), st.binary(max_size=200))
@example(b"\x1f\x8b", b"\x08\x08" + b"\0" * 6 + b"a" * 5000)  # a name without an end
@example(b"\x1f\x8b", b"\x08\x04" + b"\0" * 6 + b"\xff\xffa")  # more to come than comes
def test_any_bytes_behind_a_magic_number_are_stored_as_they_unpack_or_refused(
    objects: Objects, folder: Path, magic: bytes, rest: bytes
) -> None:
    assert_stored_or_refused(objects, folder, magic + rest)


@pytest.mark.parametrize("name", COMPRESSIONS)
@pytest.mark.parametrize("shape", ["one stream", "many streams", "empty streams"])
def test_an_image_that_unpacks_to_far_too_much_costs_little_memory(
    objects: Objects, folder: Path, name: str, shape: str
) -> None:
    pack = PACKERS[name]
    data = {
        "one stream": lambda: pack(SCRIPT.ljust(16 * LIMIT, b"#")),
        "many streams": lambda: pack(SCRIPT.ljust(LIMIT // 8, b"#")) * 64,
        "empty streams": lambda: pack(b"") * 20_000 + pack(SCRIPT.ljust(2 * LIMIT, b"#")),
    }[shape]()
    blob, place = commit(objects, data), folder / f"{name} {shape}"
    began = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="unpacks to more than 1 MiB"):
            Store(place, LIMIT).add(blob)
        # xz has its dictionary of 8 MiB, bzip2 its blocks.
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 5
    assert files(place) == [f"{blob.oid}.json"]


def with_dictionary(size: int) -> bytes:
    """Return a packed script whose xz header asks for a dictionary: 40 is 4 GiB."""
    packed = bytearray(lzma.compress(SCRIPT, check=lzma.CHECK_NONE))
    block, end = 12, 12 + packed[12] * 4  # xz's block header: behind the stream's, and its CRC
    packed[block + 4] = size
    packed[end : end + 4] = struct.pack("<I", zlib.crc32(packed[block:end]))
    return bytes(packed)


@contextmanager
def memory_of_at_most(size: int) -> Iterator[None]:
    """Let this process have no more address space than it has now, and a size."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_a_dictionary_of_a_usual_size_is_unpacked_with(objects: Objects, folder: Path) -> None:
    assert_stored_or_refused(objects, folder, with_dictionary(28))
    assert Store(folder / "usual", LIMIT).add(commit(objects, with_dictionary(28))).script


def test_an_image_that_needs_more_memory_than_there_is_is_refused(
    objects: Objects, folder: Path
) -> None:
    blob, place = commit(objects, with_dictionary(40)), folder / "dictionary"
    with memory_of_at_most(1 << 30), pytest.raises(HostError, match="memory"):
        Store(place, LIMIT).add(blob)
    assert files(place) == []
