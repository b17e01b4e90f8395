"""Publishing an image: verified, packed, and brought to the deployment repository in one commit.

Whoever else publishes meanwhile moves the branch: then the commit is made anew on what is there
now. So nothing is merged and nothing lost, and what is pushed is right as a whole.
"""

import hashlib
import random
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from mirage_hooks.boot import (
    artifact,
    convention,
    objects,
    outdated,
    ownership,
    placement,
    provenance,
    remote,
    targets,
)
from mirage_hooks.boot.console import date
from mirage_hooks.boot.errors import ConfigError, Error, HostError, RepositoryError
from mirage_hooks.boot.guest import Target, check_name, short
from mirage_hooks.boot.host import Limits
from mirage_hooks.boot.pack import pack
from mirage_hooks.boot.placement import Place, Shelf
from mirage_hooks.boot.provenance import Origin, Publication
from mirage_hooks.boot.remote import Branch
from mirage_hooks.boot.repository import Repository
from mirage_hooks.boot.revision import Revision
from mirage_hooks.boot.unpack import PackedFile, Unpacked, unpack

# So long the branch may go on moving. Each round, somebody's commit lands. Seconds.
_MOST_SECONDS = 600.0
# Between two tries, at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0

_COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_LIMIT = Limits().image << 20
_IMAGE = "image"


@dataclass(frozen=True)
class Order:
    """What is to be published. `siblings` are files to lie beside it; `keep` images are to stay."""

    guest: str
    image: Path
    origin: Origin
    target: Target | None = None
    compression: str | None = None
    siblings: tuple[Path, ...] = ()
    keep: int | None = None
    branch: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of it: `commit` is None where the branch had the image already."""

    commit: str | None
    path: str
    branch: str
    image: Unpacked

    def __str__(self) -> str:
        what = f"{self.path} {short(self.image.sha256)}"
        if self.commit is None:
            return f"{self.branch} has this image already: {what}"
        size = artifact.describe_size(
            self.image.compression, self.image.packed_size, self.image.size
        )
        return f"{what} ({size}) is published: {self.branch} is at {short(self.commit)}"


def publish(repository: Repository, order: Order, say: Callable[[str], None]) -> Outcome:
    """Publish an image; `say` is told when it has to be tried again. Raises Error."""
    _check(order)
    ownership.refuse_foreign(repository.obeyed)
    branch = remote.choose(repository, order.branch)
    try:
        with tempfile.TemporaryDirectory(prefix="mirage-hooks-") as folder:
            unpacked = Path(folder, _IMAGE)
            source = PackedFile(str(order.image))
            image = unpack(source, unpacked, _LIMIT)
            if order.target is not None:
                targets.refuse_other(source.path, image.target, order.target)
            return _Publisher(repository, order, image, Path(folder)).land(branch, say)
    except OSError as error:
        raise HostError(
            f"image {order.image} cannot be published: {error}", "TMPDIR names another folder"
        ) from None


def _check(order: Order) -> None:
    """Raise ConfigError for what cannot be published as it is ordered."""
    if not _COMMIT.fullmatch(order.origin.commit):
        raise ConfigError(
            f"{order.origin.commit!r} is no commit id",
            "--source-commit takes the whole one: git rev-parse HEAD",
        )
    try:
        check_name(order.guest)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    names = [one.name for one in order.siblings]
    for name in names:
        if convention.is_image(name) or names.count(name) > 1 or not name.isprintable():
            raise ConfigError(
                f"{name!r} cannot lie beside the image",
                "each has a name of its own, and none that an image has, such as www.hvt",
            )


@dataclass(frozen=True)
class _Packed:
    """The image as a blob."""

    oid: str
    sha256: str
    size: int


@dataclass
class _Publisher:
    """The publishing of an image, unpacked to `image` in a folder.

    It is packed once, and nothing that the branch has is unpacked twice: `digests` are by blob.
    """

    repository: Repository
    order: Order
    image: Unpacked
    folder: Path
    packed: dict[str, _Packed] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    def land(self, branch: Branch, say: Callable[[str], None]) -> Outcome:
        """Commit it and push that, until it is there. Raises Error."""
        deadline = time.monotonic() + _MOST_SECONDS
        pause = _FIRST_PAUSE
        tip = branch.fetch()
        while True:
            made = self._commit(tip, branch.name)
            refused = branch.push(made.commit, tip) if made.commit is not None else None
            if refused is None:
                return made
            time.sleep(random.uniform(0, pause))  # noqa: S311 - no secret
            pause = min(2 * pause, _LONGEST_PAUSE)
            try:
                before, tip = tip, branch.fetch()
            except RepositoryError:
                if refused.may_land:
                    raise refused.error from None
                raise
            if tip is not None and self.repository.is_ancestor(str(made.commit), tip):
                return made  # it was taken, and the answer got lost
            is_gone = tip is None and before is not None
            has_moved = tip != before or refused.may_be_race
            if is_gone or not has_moved or time.monotonic() > deadline:
                raise refused.error
            say(f"{branch.name} has moved meanwhile: tried again on {short(tip or 'nothing')}")

    def _commit(self, tip: str | None, branch: str) -> Outcome:
        """Make the commit that is to follow a branch's tip; none if nothing is to change."""
        order, commit = self.order, self.order.origin.commit
        revision = self.repository.revision(tip or objects.tree(self.repository, None, {}))
        shelf = placement.find(revision, order.guest, self.image.target, order.compression)
        self._refuse_unfit(shelf)
        packed = self._pack(shelf.compression)
        place = placement.place(shelf.guest.image, commit)
        image = msgspec.structs.replace(
            self.image, packed_size=packed.size, compression=shelf.compression
        )
        if (there := self._there(revision, shelf, packed)) is not None:
            return Outcome(None, there, branch, image)
        publication = Publication(
            order.guest, image.target, place.path, image.sha256, packed.sha256, order.origin
        )
        changes = self._changes(revision, shelf, place, publication, packed.oid)
        tree = objects.tree(self.repository, tip, changes)
        made = objects.commit(self.repository, tree, tip, publication.message())
        return Outcome(made, place.path, branch, image)

    def _refuse_unfit(self, shelf: Shelf) -> None:
        """Raise Error where the guest could not be booted from the image."""
        path = str(self.order.image)
        if shelf.described and shelf.guest.target in targets.known():
            targets.refuse_unfit(path, shelf.guest, self.image)
        else:
            targets.refuse_other(path, self.image.target, shelf.guest.target)

    def _pack(self, compression: str) -> _Packed:
        if compression not in self.packed:
            path = self.folder / compression
            pack(self.folder / _IMAGE, path, compression)
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            oid = objects.store(self.repository, path)
            self.packed[compression] = _Packed(oid, digest, path.stat().st_size)
        return self.packed[compression]

    def _there(self, revision: Revision, shelf: Shelf, packed: _Packed) -> str | None:
        """Return where a revision has this very image for the guest already, None for nowhere.

        It may have been packed by something else: what counts is what it unpacks to.
        """
        try:
            blob = artifact.locate(revision, shelf.guest.image).blob
            if blob.oid == packed.oid:
                return blob.path
            if blob.oid not in self.digests:
                there = unpack(blob, self.folder / "there", _LIMIT)
                self.digests[blob.oid] = there.sha256
        except Error:  # it is made good by this one
            return None
        return blob.path if self.digests[blob.oid] == self.image.sha256 else None

    def _changes(
        self, revision: Revision, shelf: Shelf, place: Place, publication: Publication, blob: str
    ) -> dict[str, str | None]:
        """Return the blobs that the commit adds by their paths, None for what it removes."""
        repository, order = self.repository, self.order
        if order.siblings and order.origin.commit not in place.folder:
            raise ConfigError(
                f"nothing can lie beside {place.path}: that folder is not this commit's alone",
                f"the image path {shelf.guest.image} needs a folder {artifact.PLACE} for that",
            )
        checksum = publication.checksum(date(time.time()))
        texts = {provenance.checksum_path(place.path): checksum}
        texts |= dict.fromkeys(place.pointers, f"{order.origin.commit}\n")
        ours = {path: objects.store(repository, text) for path, text in texts.items()}
        ours[place.path] = blob
        for one in order.siblings:
            if (path := place.folder + one.name) in ours:
                raise ConfigError(f"{path} cannot be a file to lie beside the image")
            ours[path] = objects.store(repository, one)
        placement.refuse_taken(revision, list(ours))
        others = placement.carried(revision, shelf, place.pointers, order.origin.commit, ours)
        old = outdated.find(revision, shelf, blob, order.keep) if order.keep else []
        return {**dict.fromkeys(old), **others, **ours}
