"""Images out of their packing: told by magic bytes, bounded in size, verified, hashed."""

import bz2
import gzip
import hashlib
import io
import lzma
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, cast

import msgspec

from mirage_hooks.boot.errors import HostError, ImageError
from mirage_hooks.boot.image import Image
from mirage_hooks.boot.volumes import SECTOR_BYTES

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_CHUNK = 1 << 20


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What a file is that was unpacked, and how it was packed."""

    sha256: str
    size: int
    packed_size: int
    compression: str


class Packed(Protocol):
    """An image as it is found, a blob of git's or a file; `path` is how messages call it."""

    @property
    def path(self) -> str:
        """Where it is."""

    @property
    def size(self) -> int:
        """How many bytes it has."""

    def open(self) -> AbstractContextManager[io.BufferedReader]:
        """Give its bytes as a stream."""


@dataclass(frozen=True)
class PackedFile:
    """An image in a file."""

    path: str

    @property
    def size(self) -> int:
        """How many bytes it has. Raises OSError."""
        return Path(self.path).stat().st_size

    def open(self) -> io.BufferedReader:
        """Give its bytes as a stream. Raises OSError."""
        return Path(self.path).open("rb")


class Unpacked(Image, frozen=True, kw_only=True):
    """What an image turned out to be, and how it was packed."""

    sha256: str
    size: int
    packed_size: int
    compression: str


# Compressions by the magic bytes their files start with, and what opens them.
_Opener = Callable[[IO[bytes]], IO[bytes]]
_COMPRESSIONS: dict[bytes, tuple[str, _Opener]] = {
    b"BZh": ("bzip2", cast("_Opener", bz2.open)),
    b"\x1f\x8b": ("gzip", cast("_Opener", gzip.open)),
    b"\xfd7zXZ\x00": ("xz", cast("_Opener", lzma.open)),
    b"\x28\xb5\x2f\xfd": ("zstd", cast("_Opener", zstd.open)),
}


def unpack(blob: Packed, path: Path, limit: int) -> Unpacked:
    """Unpack an image into a file of at most `limit` bytes, and say what it is.

    Raises ImageError where it is no image, whoever asks; HostError where this host's memory does
    not serve; OSError.
    """
    contents = _unpack(blob, path, limit, _inspector)
    try:
        image = _inspector()(path)
    except ImageError as error:
        raise ImageError(f"image {blob.path}: {error.message}", error.hint) from None
    return Unpacked(**msgspec.structs.asdict(image), **msgspec.structs.asdict(contents))


def unpack_disk(blob: Packed, path: Path, limit: int) -> Contents:
    """Unpack the disk image in a blob into a file. Raises as `unpack` does."""
    contents = _unpack(blob, path, limit)
    if contents.size % SECTOR_BYTES:
        raise ImageError(
            f"disk image {blob.path} has {contents.size} bytes: not a number of whole sectors of "
            f"{SECTOR_BYTES}"
        )
    return contents


def _inspector() -> Callable[[Path], Image]:
    from mirage_hooks.boot import elf  # noqa: PLC0415 - loaded while the first image is unpacked

    return elf.inspect


def _unpack(
    blob: Packed, path: Path, limit: int, meanwhile: Callable[[], object] = lambda: None
) -> Contents:
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as output, blob.open() as packed, ThreadPoolExecutor(1) as ahead:
        compression, unpacked = _open(packed)
        coming = ahead.submit(_read, blob, compression, unpacked)
        # Unpacking takes most of the time: the rest is done meanwhile.
        meanwhile()
        while data := coming.result():
            coming = ahead.submit(_read, blob, compression, unpacked)
            size += len(data)
            if size > limit:
                raise ImageError(
                    f"image {blob.path} unpacks to more than {limit >> 20} MiB",
                    "if it is meant to, raise `image` in [limits] of host.toml",
                )
            digest.update(data)
            output.write(data)
    if size == 0:
        raise ImageError(f"image {blob.path} unpacks to nothing")
    return Contents(
        sha256=digest.hexdigest(),
        size=size,
        packed_size=blob.size,
        compression=compression,
    )


def _read(blob: Packed, compression: str, unpacked: IO[bytes]) -> bytes:
    try:
        return unpacked.read(_CHUNK)
    except EOFError:
        raise ImageError(
            f"image {blob.path} is cut short: its {compression} data ends early"
        ) from None
    except MemoryError:  # xz allocates the dictionary that a file asks for, up to 4 GiB
        raise HostError(
            f"image {blob.path} takes more memory to unpack than this host gives"
        ) from None
    except (OSError, zlib.error, lzma.LZMAError, zstd.ZstdError, ValueError) as error:
        raise ImageError(f"image {blob.path} is no sound {compression} file: {error}") from None


def _open(packed: io.BufferedReader) -> tuple[str, IO[bytes]]:
    start = packed.peek(8)
    for magic, (name, opener) in _COMPRESSIONS.items():
        if start.startswith(magic):
            return name, opener(packed)
    return "none", packed
