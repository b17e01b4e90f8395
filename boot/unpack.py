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
from pathlib import Path
from typing import IO, cast

import msgspec

from mirage_hooks.boot.errors import HostError, ImageError
from mirage_hooks.boot.image import Image
from mirage_hooks.boot.revision import Blob

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_CHUNK = 1 << 20


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


def unpack(blob: Blob, path: Path, limit: int) -> Unpacked:
    """Unpack the image in a blob into a file of at most `limit` bytes, and say what it is.

    Raises ImageError where it is no image, whoever asks; HostError where this host's memory does
    not serve; OSError.
    """
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as output, blob.open() as packed, ThreadPoolExecutor(1) as ahead:
        compression, unpacked = _open(packed)
        coming = ahead.submit(_read, blob, compression, unpacked)
        # Unpacking takes most of the time: the rest is done meanwhile. That is loading this, too.
        from mirage_hooks.boot import elf  # noqa: PLC0415

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
    try:
        image = elf.inspect(path)
    except ImageError as error:
        raise ImageError(f"image {blob.path}: {error.message}", error.hint) from None
    return Unpacked(
        **msgspec.structs.asdict(image),
        sha256=digest.hexdigest(),
        size=size,
        packed_size=blob.size,
        compression=compression,
    )


def _read(blob: Blob, compression: str, unpacked: IO[bytes]) -> bytes:
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
