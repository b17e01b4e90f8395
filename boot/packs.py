"""Objects as they lie on the disk: packs, those that a remote sent among them, and loose ones."""

import re
import stat
from collections.abc import Iterable, Set
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import NamedTuple

from mirage_hooks.boot.errors import RepositoryError
from mirage_hooks.boot.files import write_atomic
from mirage_hooks.boot.repository import Repository, text_file

# How git calls a pack, and an object.
_NAME = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


class Object(NamedTuple):
    """An object: what kind git calls it, and how many bytes it has, unpacked."""

    kind: str
    size: int


@dataclass(frozen=True)
class Pack:
    """A pack: its path without an ending, whether a remote sent it, and what is in it."""

    stem: Path
    promised: bool
    objects: frozenset[str]

    def remove(self) -> None:
        """Remove it; the index first, by which git finds the rest."""
        for path in [self.stem.with_suffix(".idx"), *self.stem.parent.glob(f"{self.stem.name}.*")]:
            path.unlink(missing_ok=True)


def rewritable(repository: Repository, folder: Path) -> Iterable[Pack]:
    """Return the packs that git may rewrite: none that somebody keeps, or that just comes."""
    for index in folder.glob("pack-*.idx"):
        stem = index.with_suffix("")
        if stem.with_suffix(".keep").exists():
            continue
        objects = _listed(repository, index)
        yield Pack(stem, stem.with_suffix(".promisor").exists(), objects)


def here(repository: Repository) -> dict[str, Object]:
    """Return every object that is here, but for those that cannot be read."""
    options = "--batch-check=%(objectname) %(objecttype) %(objectsize)"
    listed: str = repository.git.git.cat_file("--batch-all-objects", "--unordered", options)
    lines = (line.split() for line in listed.splitlines())
    # Of one that is damaged, or just went, git says `OID missing`.
    return {line[0]: Object(line[1], int(line[2])) for line in lines if len(line) == 3}


def loose(folder: Path) -> frozenset[str]:
    """Return the objects that are files of their own."""
    paths = folder.glob("[0-9a-f][0-9a-f]/*")
    oids = (f"{path.parent.name}{path.name}" for path in paths)
    return frozenset(oid for oid in oids if _NAME.fullmatch(oid))


def write(
    repository: Repository, folder: Path, objects: Set[str], mode: int, promised: bool
) -> Path | None:
    """Write a pack of objects, None where there are none; return its path without an ending.

    Raises RepositoryError where git writes anything else than one pack with all of them.
    """
    if not objects:
        return None
    lines = "".join(f"{oid}\n" for oid in objects)
    pack = repository.git.git(c="pack.packSizeLimit=0").pack_objects
    name = str(pack("--quiet", str(folder / "pack"), istream=text_file(lines)))
    stem = folder / f"pack-{name}"
    if not _NAME.fullmatch(name) or _listed(repository, stem.with_suffix(".idx")) != objects:
        raise RepositoryError(f"git packed other objects of {repository.name} than it was told to")
    if promised:
        write_atomic(stem.with_suffix(".promisor"), b"")
    for path in folder.glob(f"{stem.name}.*"):
        path.chmod(mode)
    return stem


def mode(replaced: Iterable[Pack]) -> int:
    """Return who may read packs: whoever could read one of those that they replace.

    What a deploy packs is by its umask for its own user alone.
    """
    modes = (stat.S_IMODE(pack.stem.with_suffix(".pack").stat().st_mode) for pack in replaced)
    return reduce(or_, modes, 0) or 0o444


def _listed(repository: Repository, index: Path) -> frozenset[str]:
    """Return the objects of a pack, by its index."""
    with index.open("rb") as file:
        listed: str = repository.git.git.show_index(istream=file)
    return frozenset(line.split()[1] for line in listed.splitlines())
