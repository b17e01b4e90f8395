"""Unpacked, verified images by their sha256: what guests are booted from."""

import bz2
import errno
import gzip
import hashlib
import io
import lzma
import os
import sys
import zlib
from collections.abc import Callable, Set
from pathlib import Path
from typing import IO, NamedTuple, cast

import msgspec

from mirage_hooks.boot import elf
from mirage_hooks.boot.errors import HostError, ImageError
from mirage_hooks.boot.files import is_abandoned, sync_folder, write_atomic
from mirage_hooks.boot.repository import Blob

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_CHUNK = 1 << 20


class Stored(msgspec.Struct, frozen=True):
    """An image in the store, and the blob it was unpacked from."""

    sha256: str
    size: int
    packed_size: int
    compression: str
    target: str
    script: bool


# Compressions by the magic bytes their files start with, and what opens them.
_Opener = Callable[[IO[bytes]], IO[bytes]]
_COMPRESSIONS: dict[bytes, tuple[str, _Opener]] = {
    b"BZh": ("bzip2", cast("_Opener", bz2.open)),
    b"\x1f\x8b": ("gzip", cast("_Opener", gzip.open)),
    b"\xfd7zXZ\x00": ("xz", cast("_Opener", lzma.open)),
    b"\x28\xb5\x2f\xfd": ("zstd", cast("_Opener", zstd.open)),
}


class Unneeded(NamedTuple):
    """Files of the store that can go: images, entries of the index, and what was never finished."""

    images: list[Path]
    entries: list[Path]
    unfinished: list[Path]


class Store:
    """The folder `store/` of the state folder: images by sha256, and what each blob unpacks to."""

    def __init__(self, folder: Path, limit: int) -> None:
        """Open a store that takes images of at most `limit` bytes."""
        self._folder = folder
        self._index = folder / "blobs"
        self._limit = limit

    def path(self, sha256: str) -> Path:
        """Return where an image is, or would be."""
        return self._folder / sha256

    def add(self, blob: Blob) -> Stored:
        """Unpack and verify the image in a blob, unless that was done before.

        Raises ImageError where it is no image, HostError where the host cannot take it.
        """
        index = self._index / f"{blob.oid}.json"
        try:
            if (known := self._known(index)) is not None:
                return known
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._index.mkdir(mode=0o700, exist_ok=True)
            stored = self._unpack(blob)
            write_atomic(index, msgspec.json.encode(stored))
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise HostError(
                    f"no space left while unpacking {blob.path} into {self._folder}",
                    "free some space there: the next pull or `mirage-hooks deploy` goes on",
                ) from None
            raise HostError(
                f"{blob.path} cannot be unpacked into {self._folder}: {error}"
            ) from None
        return stored

    def verify(self, sha256: str) -> Path:
        """Return an image's path once its bytes are known to be sound. Raises HostError."""
        path = self.path(sha256)
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise HostError(f"stored image {path} cannot be read: {error.strerror}") from None
        if found != sha256:
            path.unlink()
            raise HostError(
                f"stored image {path} was damaged on this host's disk, and is removed",
                "run `mirage-hooks deploy`: it unpacks the image anew",
            )
        return path

    def unneeded(self, keep: Set[str]) -> Unneeded:
        """Return what can be removed where some images are to stay. Raises OSError."""
        if not self._folder.exists():
            return Unneeded([], [], [])
        files = {path.name: path for path in self._folder.iterdir() if path != self._index}
        images = {name: path for name, path in files.items() if not name.startswith(".")}
        entries = list(self._index.iterdir()) if self._index.exists() else []
        kept = keep & images.keys()
        return Unneeded(
            images=[path for name, path in images.items() if name not in keep],
            entries=[path for path in entries if not self._indexes(path, kept)],
            unfinished=[path for name, path in files.items() if is_abandoned(name)],
        )

    def _indexes(self, index: Path, images: Set[str]) -> bool:
        """Whether an entry of the index, or one that is being written, is about one of `images`."""
        if index.name.startswith("."):
            return not is_abandoned(index.name)
        try:
            return msgspec.json.decode(index.read_bytes(), type=Stored).sha256 in images
        except (FileNotFoundError, msgspec.DecodeError):
            return False

    def _known(self, index: Path) -> Stored | None:
        try:
            stored = msgspec.json.decode(index.read_bytes(), type=Stored)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        usable = self.path(stored.sha256).exists() and stored.size <= self._limit
        return stored if usable else None

    def _unpack(self, blob: Blob) -> Stored:
        temporary = self._folder / f".{blob.oid}.{os.getpid()}.new"
        try:
            with temporary.open("wb") as output:
                compression, sha256, size = self._copy(blob, output)
                output.flush()
                os.fsync(output.fileno())
            # Executable for every user: a unix guest may run as another. Its folder is private.
            temporary.chmod(0o555)
            try:
                image = elf.inspect(temporary)
            except ImageError as error:
                raise ImageError(f"image {blob.path}: {error.message}", error.hint) from None
            temporary.rename(self.path(sha256))
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(self._folder)
        return Stored(sha256, size, blob.size, compression, image.target, image.script)

    def _copy(self, blob: Blob, output: IO[bytes]) -> tuple[str, str, int]:
        """Unpack into `output`; return the compression, the sha256 and the size."""
        digest, size = hashlib.sha256(), 0
        with blob.open() as packed:
            compression, unpacked = _open(packed)
            while data := self._read(blob, compression, unpacked):
                size += len(data)
                if size > self._limit:
                    raise ImageError(
                        f"image {blob.path} unpacks to more than {self._limit >> 20} MiB",
                        "if it is meant to, raise `image` in [limits] of host.toml",
                    )
                digest.update(data)
                output.write(data)
        if size == 0:
            raise ImageError(f"image {blob.path} unpacks to nothing")
        return compression, digest.hexdigest(), size

    def _read(self, blob: Blob, compression: str, unpacked: IO[bytes]) -> bytes:
        try:
            return unpacked.read(_CHUNK)
        except EOFError:
            raise ImageError(
                f"image {blob.path} is cut short: its {compression} data ends early"
            ) from None
        except (OSError, zlib.error, lzma.LZMAError, zstd.ZstdError, ValueError) as error:
            raise ImageError(f"image {blob.path} is no sound {compression} file: {error}") from None


def _open(packed: io.BufferedReader) -> tuple[str, IO[bytes]]:
    start = packed.peek(8)
    for magic, (name, opener) in _COMPRESSIONS.items():
        if start.startswith(magic):
            return name, opener(packed)
    return "none", packed
