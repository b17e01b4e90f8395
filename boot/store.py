"""Unpacked, verified images by their sha256: what guests are booted from."""

import contextlib
import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Set
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from mirage_hooks.boot.errors import HostError, ImageError
from mirage_hooks.boot.files import is_abandoned, sync_folder, write_atomic
from mirage_hooks.boot.revision import Blob
from mirage_hooks.boot.unpack import Contents, Unpacked, unpack, unpack_disk

T = TypeVar("T")
Stored = TypeVar("Stored", Contents, Unpacked)

# For so long a blob that is no image is not unpacked again: a later version may take it. Seconds.
_REFUSED_SECONDS = 86400.0


class Refusal(msgspec.Struct, frozen=True):
    """Why a blob, found at a path, is no image of at most `limit` bytes; seconds of the epoch."""

    path: str
    limit: int
    since: float
    message: str
    hint: str

    @property
    def recent(self) -> bool:
        """Whether it still counts. Once the clock was set back, none does."""
        return 0 <= time.time() - self.since < _REFUSED_SECONDS


class Unneeded(NamedTuple):
    """Files of the store that can go: images, entries of the index, and what was never finished."""

    images: list[Path]
    entries: list[Path]
    unfinished: list[Path]


class Store:
    """The folder `store/` of the state folder: images by sha256, and what each blob unpacks to.

    Or why it does not: what a commit got wrong stays until another one mends it, and polls ask for
    it every minute.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        """Open a store that takes images of at most `limit` bytes."""
        self._folder = folder
        self._index = folder / "blobs"
        self._limit = limit
        self._adding = threading.Lock()  # guests are prepared side by side, and may share a blob

    def path(self, sha256: str) -> Path:
        """Return where an image is, or would be."""
        return self._folder / sha256

    def known(self, oid: str) -> Unpacked | None:
        """Return what a blob unpacked to, None where its image is not in the store."""
        return self._known(self._entry(oid), Unpacked)

    def add(self, blob: Blob) -> Unpacked:
        """Unpack and verify the image in a blob, unless that was done before.

        Raises ImageError where it is no image, HostError where the host cannot take it.
        """
        return self._add(blob, self._entry(blob.oid), Unpacked, unpack)

    def add_disk(self, blob: Blob) -> Contents:
        """Unpack the disk image in a blob, unless that was done before. Raises as `add` does."""
        return self._add(blob, self._disk_entry(blob.oid), Contents, unpack_disk)

    def reads(self, blob: Blob) -> bool:
        """Whether `add` would read a blob, rather than know what comes of it."""
        return self._reads(blob, self._entry(blob.oid), Unpacked)

    def reads_disk(self, blob: Blob) -> bool:
        """Whether `add_disk` would read a blob, rather than know what comes of it."""
        return self._reads(blob, self._disk_entry(blob.oid), Contents)

    def _reads(self, blob: Blob, entry: Path, kind: type[Stored]) -> bool:
        try:
            self._refuse_again(blob, entry)
        except ImageError:
            return False
        return self._known(entry, kind) is None

    def _known(self, entry: Path, kind: type[Stored]) -> Stored | None:
        stored = _read(entry, kind)
        if stored is None:
            return None
        usable = self.path(stored.sha256).exists() and stored.size <= self._limit
        return stored if usable else None

    def _add(
        self,
        blob: Blob,
        entry: Path,
        kind: type[Stored],
        how: Callable[[Blob, Path, int], Stored],
    ) -> Stored:
        try:
            with self._adding:
                if (known := self._known(entry, kind)) is not None:
                    return known
                self._refuse_again(blob, entry)
                self._folder.mkdir(mode=0o700, exist_ok=True)
                self._index.mkdir(mode=0o700, exist_ok=True)
                try:
                    stored = self._unpack(blob, how)
                except ImageError as error:
                    self._note_refusal(blob, entry, error)
                    raise
                write_atomic(entry, msgspec.json.encode(stored))
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
        if (stored := _read(index, Contents)) is not None:
            return stored.sha256 in images
        refusal = _read(index, Refusal)
        return refusal is not None and refusal.recent

    def _entry(self, oid: str) -> Path:
        return self._index / f"{oid}.json"

    def _disk_entry(self, oid: str) -> Path:
        return self._index / f"{oid}.disk"

    def _refuse_again(self, blob: Blob, entry: Path) -> None:
        """Raise ImageError where a blob was refused before, and would be for the same."""
        found = _read(entry, Refusal)
        asked = (blob.path, self._limit)
        if found is not None and found.recent and (found.path, found.limit) == asked:
            raise ImageError(found.message, found.hint)

    def _note_refusal(self, blob: Blob, entry: Path, error: ImageError) -> None:
        found = Refusal(blob.path, self._limit, time.time(), error.message, error.hint)
        with contextlib.suppress(OSError):  # it is unpacked once more then
            write_atomic(entry, msgspec.json.encode(found))

    def _unpack(self, blob: Blob, how: Callable[[Blob, Path, int], Stored]) -> Stored:
        temporary = self._folder / f".{blob.oid}.{os.getpid()}.new"
        try:
            unpacked = how(blob, temporary, self._limit)
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            # Executable for every user: a unix guest may run as another. Its folder is private.
            temporary.chmod(0o555)
            temporary.rename(self.path(unpacked.sha256))
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(self._folder)
        return unpacked


def _read(path: Path, kind: type[T]) -> T | None:
    """Return what an entry of the index says, None where it says nothing of that kind."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
