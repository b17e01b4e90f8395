"""Whether revisions are fit to be deployed: manifest, pointers and images, bound to no host."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mirage_hooks.boot import artifact, convention, description, host, targets
from mirage_hooks.boot.artifact import Missing
from mirage_hooks.boot.convention import Holding
from mirage_hooks.boot.errors import Error, HostError, ImageError
from mirage_hooks.boot.guest import Guest, short
from mirage_hooks.boot.host import Host, Limits
from mirage_hooks.boot.record import State
from mirage_hooks.boot.repository import Repository
from mirage_hooks.boot.revision import Blob, Revision
from mirage_hooks.boot.store import Store
from mirage_hooks.boot.unpack import Unpacked, unpack, unpack_disk


@dataclass(frozen=True)
class Finding:
    """What is found of a guest at a revision, or of all of them where `guest` is None.

    `error` says why it cannot be deployed; `text` is the sentence for people in any case.
    """

    revision: str
    guest: str | None
    text: str
    error: Error | None = None

    def __str__(self) -> str:
        about = f"{self.guest}: " if self.guest is not None else ""
        return f"{short(self.revision)}: {about}{self.text}"


def installation(common_dir: Path) -> tuple[Host | None, Store | None]:
    """Return a repository's host file and store; neither where this user has none there."""
    state = State(common_dir)
    try:
        state.check_access()
        bound, _ = host.load(state.host_file)
    except Error:
        return None, None
    return bound, Store(state.store, bound.limits.image << 20)


class Verifier:
    """The verifying of some revisions; no image is unpacked twice.

    `bound` is the host file, where mirage-hooks is installed in the repository: it may describe
    guests, too. What is in `store` was verified when it came there.
    """

    def __init__(
        self, repository: Repository, bound: Host | None = None, store: Store | None = None
    ) -> None:
        self._repository = repository
        self._guests: Mapping[str, dict[str, object]] = bound.guest if bound is not None else {}
        self._limit = (bound.limits if bound is not None else Limits()).image << 20
        self._store = store
        self._unpacked: dict[str, Unpacked] = {}
        self._refused: dict[str, tuple[str, ImageError]] = {}
        self._said: set[tuple[str, str]] = set()

    def verify(self, names: Iterable[str]) -> Iterator[Finding]:
        """Yield what is found of each revision that is named, but for what was said before."""
        for name in names:
            revision = self._repository.revision(name)
            for finding in self._examine(revision):
                if (key := (finding.guest or "", finding.text)) not in self._said:
                    self._said.add(key)
                    yield finding

    def _examine(self, revision: Revision) -> Iterator[Finding]:
        try:
            guests = description.describe(revision, self._guests)
            held = Holding() if guests is not None else convention.find(revision)
        except Error as error:
            yield Finding(revision.id, None, str(error), error)
            return
        for problem in held.problems:
            yield Finding(revision.id, None, str(problem), problem)
        told = [Guest(one.name, one.target, one.image) for one in held.guests]
        for guest in told if guests is None else guests:
            try:
                yield Finding(
                    revision.id, guest.name, self._image(revision, guest, guests is not None)
                )
            except Missing as missing:
                yield Finding(revision.id, guest.name, missing.message)
            except Error as error:
                yield Finding(revision.id, guest.name, str(error), error)

    def _image(self, revision: Revision, guest: Guest, described: bool) -> str:
        """Return what a guest's image is, in words. Raises Error where it cannot serve.

        Only of one that is `described` its devices are known.
        """
        blob = artifact.locate(revision, guest.image).blob
        image = self._unpack(blob)
        for path in guest.disks.values():
            self._try_disk(artifact.locate(revision, path).blob)
        if guest.template is not None:
            artifact.locate(revision, guest.template)
        if described and guest.target in targets.known():
            targets.refuse_unfit(blob.path, guest, image)
        else:
            targets.refuse_other(blob.path, image.target, guest.target)
        size = artifact.describe_size(image.compression, image.packed_size, image.size)
        return f"image {blob.path} is sound: {short(image.sha256)} ({size})"

    def _try_disk(self, blob: Blob) -> None:
        with tempfile.TemporaryDirectory(prefix="mirage-hooks-") as folder:
            unpack_disk(blob, Path(folder, "disk"), self._limit)

    def _unpack(self, blob: Blob) -> Unpacked:
        if blob.oid in self._refused:
            path, error = self._refused[blob.oid]
            raise ImageError(error.message.replace(path, blob.path, 1), error.hint)
        known = self._unpacked.get(blob.oid) or (self._store and self._store.known(blob.oid))
        if known:
            return known
        try:
            with tempfile.TemporaryDirectory(prefix="mirage-hooks-") as folder:
                found = unpack(blob, Path(folder, "image"), self._limit)
        except ImageError as error:
            self._refused[blob.oid] = blob.path, error
            raise
        except OSError as error:
            raise HostError(
                f"image {blob.path} cannot be unpacked: {error}", "TMPDIR names another folder"
            ) from None
        self._unpacked[blob.oid] = found
        return found
