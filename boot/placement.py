"""Where an image that is published goes at a revision, and what else changes with it.

A pointer is shared: what `xen/latest` names is the folder of every guest whose image path goes
through it. So when it moves on, what the others are booted from is put into the new folder, too:
blobs that are there already, under one more name. Each guest has what was published last for it,
whoever publishes next.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from mirage_hooks.boot import artifact, convention, description, provenance
from mirage_hooks.boot.artifact import Artifact, Missing
from mirage_hooks.boot.errors import ConfigError, RepositoryError
from mirage_hooks.boot.guest import Guest, Target
from mirage_hooks.boot.revision import Revision, UnreadableError

T = TypeVar("T")

_DEFAULT = "bzip2"


class Part(NamedTuple):
    """What another guest is booted from: its image, a disk image or its template.

    `path` is as a manifest has it. What is `shared` is the published guest's as well.
    """

    guest: str
    path: str
    shared: bool


@dataclass(frozen=True)
class Shelf:
    """What a revision says of the guest whose image is to be published, and of the others.

    `described` says that a manifest does: then `guest` is as it has it, devices and all.
    """

    guest: Guest
    others: tuple[Part, ...]
    compression: str
    described: bool = False


@dataclass(frozen=True)
class Place:
    """Where an image is to be, and the pointers that are to name the commit it was built from."""

    path: str
    pointers: tuple[str, ...]

    @property
    def folder(self) -> str:
        """The folder that holds it, with a slash at the end; "" for the root."""
        head, slash, _ = self.path.rpartition("/")
        return head + slash


def find(revision: Revision, name: str, target: Target, compression: str | None) -> Shelf:
    """Return what a revision says of a guest, or what convention has where it says nothing.

    Raises ConfigError, RepositoryError.
    """
    guests = description.describe(revision, {})
    described = guests is not None
    if guests is None:
        held = convention.find(revision).guests
        guests = [Guest(one.name, one.target, one.image) for one in held]
    if described and guests and name not in {one.name for one in guests}:
        known = ", ".join(sorted(one.name for one in guests))
        raise ConfigError(
            f"{description.NAME} has no guest {name!r}: no host would run it",
            f"it has {known}; a new one needs its table there first",
        )
    ours = [one for one in guests if one.name == name and (described or one.target == target)]
    if not ours and not described:
        ours = _same_site(guests, name, target)
    # A name that is there twice is there packed in several ways.
    fitting = [one for one in ours if compression in {None, _named(one.image)}]
    if ours and not fitting and _named(ours[0].image) is not None:
        raise ConfigError(
            f"the image of guest {name} is {ours[0].image}: it does not end as {compression} does",
            "publish it as the path has it, or change the path: hosts look for that one",
        )
    guest = next(iter(fitting or ours), None)
    packing = compression or (_named(guest.image) if guest is not None else None) or _DEFAULT
    if guest is None:
        guest = Guest(name, target, convention.new_image(name, target, packing))
    others = [one for one in guests if one not in ours]
    parts = _as_described(guest, others) if described else _by_convention(revision, guest, others)
    return Shelf(guest, tuple(parts), packing, described and bool(ours))


def _same_site(guests: list[Guest], name: str, target: Target) -> list[Guest]:
    """Return the guest that is a site's, with or without the dots of its name; [] for several."""
    alike = [
        one for one in guests if one.target == target and convention.is_same_site(one.name, name)
    ]
    return alike if len({one.name for one in alike}) == 1 else []


def _as_described(guest: Guest, others: list[Guest]) -> Iterator[Part]:
    """Yield what other guests are booted from by a manifest."""
    own = _paths(guest)
    for other in others:
        for path in _paths(other):
            yield Part(other.name, path, path in own)


def _paths(guest: Guest) -> list[str]:
    template = [guest.template] if guest.template is not None else []
    return [guest.image, *guest.disks.values(), *template]


def _by_convention(revision: Revision, guest: Guest, others: list[Guest]) -> Iterator[Part]:
    """Yield what other guests are booted from by names alone.

    Those of disk images do not tell whose they are: they are everybody's.
    """
    for other in others:
        image = other.image
        yield Part(other.name, image, image == guest.image)
        for path in dict.fromkeys((_sound(convention.disks, revision, image) or {}).values()):
            yield Part(other.name, path, shared=True)
        if (template := _sound(convention.template, revision, image)) is not None:
            own = _sound(convention.template, revision, guest.image)
            yield Part(other.name, template, template == own)


def place(template: str, commit: str) -> Place:
    """Return where the image built from a commit goes."""
    pointers: list[str] = []

    def value(pointer: str) -> str:
        pointers.append(pointer)
        return commit

    return Place(artifact.resolve(template, value), tuple(dict.fromkeys(pointers)))


def refuse_taken(revision: Revision, paths: list[str]) -> None:
    """Raise RepositoryError where no file can be: a folder is there, or a file on the way."""
    for path in paths:
        revision.find(path)
        parts = path.split("/")
        for depth, name in enumerate(parts[:-1]):
            if name in revision.files("/".join(parts[:depth])):
                raise RepositoryError(f"{'/'.join(parts[: depth + 1])} is a file, no folder")


def carried(
    revision: Revision, shelf: Shelf, pointers: Collection[str], commit: str, taken: Collection[str]
) -> dict[str, str]:
    """Return what the others are booted from, with checksums, once pointers name a commit.

    As blobs by their paths. Raises RepositoryError where one is to be at a path that is `taken`.
    """
    moved: dict[str, str] = {}
    for other in shelf.others:
        found = located(revision, other)
        if found is None:
            continue
        path = _moved(other, found, pointers, commit)
        if path in taken and other.shared:
            continue
        if path in taken:
            raise RepositoryError(
                f"{path} belongs to guest {other.guest}",
                f"what is published for {shelf.guest.name} needs another name",
            )
        moved[path] = found.blob.oid
        beside = revision.oid(provenance.checksum_path(found.blob.path))
        if beside is not None:
            moved[provenance.checksum_path(path)] = beside
    return moved


def located(revision: Revision, part: Part) -> Artifact | None:
    """Return what another guest is booted from, None for nothing that could serve. Raises Error."""
    return _sound(artifact.locate, revision, part.path)


def _sound(find: Callable[[Revision, str], T], revision: Revision, path: str) -> T | None:
    """Return what is found by a path, None for nothing that could serve.

    Raises Error where nobody can tell: what cannot be read here may serve, and is not left behind.
    """
    try:
        return find(revision, path)
    except UnreadableError:
        raise
    except (Missing, RepositoryError):  # it is broken as it is, and stays so
        return None


def _moved(other: Part, found: Artifact, pointers: Collection[str], commit: str) -> str:
    """Return where what another guest has is looked for once pointers have moved."""

    def value(pointer: str) -> str:
        if pointer in pointers:
            return commit
        if pointer not in found.pointers:
            raise RepositoryError(
                f"guest {other.guest} has {other.path} behind {pointer}, which would be missing",
                "give it a path of its own",
            )
        return found.pointers[pointer]

    return artifact.resolve(other.path, value)


def _named(template: str) -> str | None:
    """Return the compression that the name of an image tells, None where it tells none."""
    ending = template.rpartition(".")[2]
    return next((name for name, known in convention.ENDINGS.items() if known == ending), None)
