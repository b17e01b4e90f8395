"""Which image a guest has at a revision, and how two boots differ, in words."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from mirage_hooks.boot.device import Nic, Volume
from mirage_hooks.boot.errors import ConfigError, Error, RepositoryError
from mirage_hooks.boot.guest import Boot, short
from mirage_hooks.boot.network import configured
from mirage_hooks.boot.revision import Blob, Revision

POINTER = "latest"
PLACE = "{latest}"
_POINTER_BYTES = 1024


class Missing(Error):  # noqa: N818 - nothing is wrong
    """The revision has no image (yet): there is nothing to boot, and no fault.

    `watched` are the paths whose coming would change that.
    """

    def __init__(self, message: str, watched: tuple[str, ...]) -> None:
        super().__init__(message)
        self.watched = watched


@dataclass(frozen=True)
class Artifact:
    """A guest's image as committed, and the objects that led to it."""

    blob: Blob
    pointers: dict[str, str]
    watched: tuple[str, ...]


def locate(revision: Revision, template: str) -> Artifact:
    """Return the image that an image path, pointers in it or not, means at a revision.

    Raises Missing where a pointer or the image is not there, RepositoryError where one of them
    cannot be what it should.
    """
    pointers: dict[str, str] = {}

    def value(pointer: str) -> str:
        if pointer not in pointers:
            pointers[pointer] = follow(revision, pointer, tuple(pointers))
        return pointers[pointer]

    path = resolve(template, value)
    blob = revision.find(path)
    if blob is None:
        raise Missing(f"there is no image {path}" + " yet" * bool(pointers), (*pointers, path))
    if blob.is_empty:
        raise RepositoryError(f"image {path} is empty")
    return Artifact(blob, pointers, (*pointers, path))


def resolve(template: str, value: Callable[[str], str]) -> str:
    """Return the path that an image path means where the pointers at paths hold values."""
    parts: list[str] = []
    for name in template.split("/"):
        pointer = "/".join([*parts, POINTER])
        parts.append(name.replace(PLACE, value(pointer)) if PLACE in name else name)
    return "/".join(parts)


def check_template(template: str) -> str:
    """Return an image path if it stays inside the repository. Raises ConfigError."""
    parts = template.split("/")
    if any(part in {"", ".", ".."} for part in parts) or not template.isprintable():
        raise ConfigError(
            f"image {template!r} is no path inside the repository",
            "write it like 'unix/{latest}/www.unix': relative, without '.' and '..'",
        )
    return template


def follow(revision: Revision, pointer: str, before: tuple[str, ...] = ()) -> str:
    """Return what the pointer at a path names: one file or folder beside it.

    Raises Missing, with the pointers `before` it among the watched, where it is not there;
    RepositoryError where it is no pointer.
    """
    blob = revision.find(pointer)
    if blob is None:
        raise Missing(f"there is no pointer {pointer} yet", (*before, pointer))
    text = blob.text(_POINTER_BYTES)
    value = text.removesuffix("\n").removesuffix("\r")
    if (
        value in {"", ".", ".."}
        or value.startswith("-")
        or "/" in value
        or not value.isprintable()
        or len(value.encode()) > 255
    ):
        raise RepositoryError(
            f"pointer {pointer} holds {text[:80]!r}",
            "it has to be the name of one file or folder beside it, such as a commit id",
        )
    return value


class Provenance(msgspec.Struct, frozen=True):
    """Where a boot's image came from. No part of its identity.

    `disks` are the path and the blob of each of its disk images, by sha256.
    """

    commit: str
    path: str
    blob: str
    pointers: dict[str, str]
    compression: str
    packed_size: int
    size: int
    disks: dict[str, tuple[str, str]] = {}

    @property
    def blobs(self) -> frozenset[str]:
        """The blobs of all its images."""
        return frozenset({self.blob, *(oid for _, oid in self.disks.values())})

    def describe(self) -> str:
        """Return the image's size in words."""
        return describe_size(self.compression, self.packed_size, self.size)


def describe_size(compression: str, packed: int, unpacked: int) -> str:
    """Return an image's size in words, packed and unpacked."""
    if compression == "none":
        return mebibytes(unpacked)
    return f"{mebibytes(packed)} {compression}, {mebibytes(unpacked)}"


def mebibytes(size: int) -> str:
    """Return a size as people read it."""
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 / 10 else f"{size / 1024:.1f} KiB"


def difference(old: Boot, new: Boot, path: str, size: str) -> str:
    """Return in words what a replacement of `old` by `new` changes."""
    changes = []
    if old.image != new.image:
        changes.append(f"image {path} {short(old.image)} -> {short(new.image)} ({size})")
    if old.target != new.target:
        changes.append(f"target {old.target} -> {new.target}")
    if old.memory != new.memory:
        changes.append(f"memory {old.memory} -> {new.memory} MiB")
    if old.user != new.user:
        changes.append(f"user {old.user} -> {new.user}")
    if _networks(old) != _networks(new):
        changes.append(f"network {_networks(old)} -> {_networks(new)}")
    elif old.nics != new.nics:
        changes.append(f"network bound to {_links(old)} -> {_links(new)}")
    elif old.network != new.network:
        changes.append(f"network {_names(old)} -> {_names(new)}")
    if old.volumes != new.volumes:
        changes.append(f"volumes {_volumes(old)} -> {_volumes(new)}")
    if old.arguments != new.arguments:
        changes.append(f"arguments {_arguments(old)} -> {_arguments(new)}")
    if old.secrets != new.secrets:
        changes.append("secrets changed")
    if old.network == new.network and configured(old) == configured(new):
        changes.append("network unchanged")
    return "; ".join(changes)


def _networks(boot: Boot) -> str:
    return ", ".join(f"{name} {one.mode}" for name, one in boot.network.items()) or "none"


def _links(boot: Boot) -> str:
    return ", ".join(_link(one) for one in boot.nics.values()) or "none"


def _link(nic: Nic) -> str:
    return " ".join([nic.link or nic.kind, *([nic.mac] if nic.mac else []), *nic.forward])


def _names(boot: Boot) -> str:
    return ", ".join(f"{name} on {one.network}" for name, one in boot.network.items())


def _volumes(boot: Boot) -> str:
    return ", ".join(_volume(one) for one in boot.volumes.values()) or "none"


def _volume(volume: Volume) -> str:
    if volume.image is not None:
        return f"disk {short(volume.image)}"
    return f"{volume.path} (read only)" if volume.readonly else volume.path


def _arguments(boot: Boot) -> str:
    return " ".join(boot.arguments) or "none"
