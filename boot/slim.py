"""A repository without the old images in it: a remote has promised to have them.

What a remote was seen to have are the objects in packs that it sent to a partial clone (`.promisor`
in gitpartialclone, of git's technical documentation), and those of which its branches consist. Of
these the big blobs go that nothing here needs, until they are read again. Whatever else is here
stays, reachable or not. Killed at any instant this leaves every object that is to stay: the new
packs are on the disk before an old one goes.
"""

import re
import stat
from collections.abc import Iterable, Set
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import NamedTuple

from git.exc import GitCommandError

from mirage_hooks.boot import bounded, fetching, filtering, heads, pins
from mirage_hooks.boot.errors import ConfigError, HostError, RepositoryError
from mirage_hooks.boot.files import folder_size, sync_folder, write_atomic
from mirage_hooks.boot.repository import Repository, text_file
from mirage_hooks.boot.revision import reason

# Commits and trees of all history come anew, once.
_SECONDS = 900
# What is smaller is no image, but a pointer, a manifest, a template.
_SMALL_BYTES = 32 << 10
# How git calls a pack, and an object.
_NAME = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_UNFINISHED = re.compile(r"\btmp_pack_\w+")


class Slimmed(NamedTuple):
    """How many blobs were dropped, and how many bytes that freed."""

    blobs: int
    freed: int


class _Object(NamedTuple):
    kind: str
    size: int


@dataclass(frozen=True)
class _Pack:
    """A pack: its path without an ending, whether a remote sent it, and what is in it."""

    stem: Path
    promised: bool
    objects: frozenset[str]

    def remove(self) -> None:
        """Remove it; the index first, by which git finds the rest."""
        for path in [self.stem.with_suffix(".idx"), *self.stem.parent.glob(f"{self.stem.name}.*")]:
            path.unlink(missing_ok=True)


def promise(repository: Repository, remote: str) -> None:
    """Fetch what the branches of a remote have now, but for blobs: of a whole clone all, anew.

    That makes a partial clone of it. Raises ConfigError where the remote is this very repository,
    RepositoryError where it is away, or cannot leave blobs out.
    """
    if heads.ask(repository, remote) is None:
        raise ConfigError(
            f"{remote} is this very repository: nobody else has the old images",
            "name another: git branch --set-upstream-to REMOTE/BRANCH",
        )
    told = repository.config_values(f"remote.{remote}.promisor") == ["true"]
    if not told and not filtering.is_offered(repository.name, remote):
        raise RepositoryError(
            f"{remote} does not filter what it sends: what is dropped here could not be had again",
            "there, git config uploadpack.allowFilter true lets it",
        )
    # Told for this once: a clone that lacks nothing yet is no partial one.
    partial = {
        f"remote.{remote}.partialclonefilter": "blob:none",
        f"remote.{remote}.promisor": "true",
    }
    code, said = bounded.git(
        repository.name,
        *(word for key, value in partial.items() for word in ("-c", f"{key}={value}")),
        *("fetch", "--quiet", *([] if told else ["--refetch"]), "--prune", "--no-tags"),
        *("--no-recurse-submodules", "--no-auto-gc", "--no-write-fetch-head"),
        *(remote, f"+refs/heads/*:{pins.HISTORY}/*"),
        seconds=_SECONDS,
        environment={**bounded.SILENT, "GIT_DIR": str(repository.git.git_dir)},
    )
    if code:
        raise filtering.unreachable(remote, code, said, _SECONDS)
    for key, value in partial.items():
        repository.set_config(key, value)


def drop(repository: Repository, keep: Set[str], asked: bool = False) -> Slimmed:
    """Drop what a remote has, but for the blobs to `keep`. Raises Error, OSError.

    What its branches had at the last `promise` counts only where it was `asked` right now. Else it
    is asked here; while it is away, nothing goes that anything here needs.
    """
    try:
        return _drop(repository, keep, repository.refs(pins.HISTORY) if asked else [])
    except GitCommandError as error:
        why = reason(error)
        for name in _UNFINISHED.findall(why):  # git leaves it behind
            (repository.common_dir / "objects" / "pack" / name).unlink(missing_ok=True)
        if re.search(fetching.DISK_FULL, why):
            raise HostError(
                f"no space left in {repository.name}: old images stay",
                "their packs are written anew without them first: free some space, then try again",
            ) from None
        raise RepositoryError(f"git cannot repack {repository.name}: {why}") from None


def _drop(repository: Repository, keep: Set[str], seen: list[str]) -> Slimmed:
    folder = repository.common_dir / "objects"
    before = folder_size(folder)
    packs = list(_packs(repository, folder / "pack"))
    loose = _loose(folder)
    here = _objects(repository)
    theirs = frozenset[str]().union(*(pack.objects for pack in packs if pack.promised))
    theirs |= _reachable(repository, *seen) if seen else frozenset()
    # By what the packs list: what cannot be read now must not be left out of the new one.
    theirs &= loose.union(*(pack.objects for pack in packs))
    going = {oid for oid in theirs if _is_big(here.get(oid))} - keep - _checked_out(repository)
    going -= _only_here(repository, going, seen)
    if going:
        old = [pack for pack in packs if pack.promised or pack.objects & theirs]
        ours = frozenset[str]().union(*(pack.objects for pack in old)) - theirs
        mode = _mode(old)
        new = {
            _write(repository, folder / "pack", theirs - going, mode, promised=True),
            _write(repository, folder / "pack", ours, mode, promised=False),
        }
        sync_folder(folder / "pack")
        for path in (folder / "pack").glob("multi-pack-index*"):
            path.unlink(missing_ok=True)  # it is about packs that go
        for pack in old:
            if pack.stem not in new:
                pack.remove()
        for oid in theirs & loose:
            (folder / oid[:2] / oid[2:]).unlink(missing_ok=True)
    repository.update_refs([f"delete {ref}" for ref in seen])
    return Slimmed(len(going), max(before - folder_size(folder), 0))


def _packs(repository: Repository, folder: Path) -> Iterable[_Pack]:
    """Return the packs that git may rewrite: none that somebody keeps, or that just comes."""
    for index in folder.glob("pack-*.idx"):
        stem = index.with_suffix("")
        if stem.with_suffix(".keep").exists():
            continue
        objects = _listed(repository, index)
        yield _Pack(stem, stem.with_suffix(".promisor").exists(), objects)


def _listed(repository: Repository, index: Path) -> frozenset[str]:
    """Return the objects of a pack, by its index."""
    with index.open("rb") as file:
        listed: str = repository.git.git.show_index(istream=file)
    return frozenset(line.split()[1] for line in listed.splitlines())


def _objects(repository: Repository) -> dict[str, _Object]:
    """Return every object that is here, but for those that cannot be read."""
    options = "--batch-check=%(objectname) %(objecttype) %(objectsize)"
    listed: str = repository.git.git.cat_file("--batch-all-objects", "--unordered", options)
    lines = (line.split() for line in listed.splitlines())
    # Of one that is damaged, or just went, git says `OID missing`.
    return {line[0]: _Object(line[1], int(line[2])) for line in lines if len(line) == 3}


def _loose(folder: Path) -> frozenset[str]:
    """Return the objects that are files of their own."""
    paths = folder.glob("[0-9a-f][0-9a-f]/*")
    oids = (f"{path.parent.name}{path.name}" for path in paths)
    return frozenset(oid for oid in oids if _NAME.fullmatch(oid))


def _only_here(repository: Repository, going: Set[str], seen: list[str]) -> frozenset[str]:
    """Return what refs, reflogs and indexes need of what is `going`, and no remote has any more.

    One sent it once, but may have thrown it away: what counts are the branches `seen` there, or
    what they have now.
    """
    everything = (f"--exclude={pins.HISTORY}/*", "--all", "--reflog", "--indexed-objects")
    needed = _reachable(repository, *everything) & going if going else frozenset()
    theirs = (seen or _asked(repository)) if needed else []
    return needed - _reachable(repository, *theirs) if theirs else needed


def _asked(repository: Repository) -> frozenset[str]:
    """Return what the branches of the remotes that promise have now, as far as these say so."""
    found = frozenset[str]()
    for remote in repository.git.remotes:
        if repository.config_values(f"remote.{remote.name}.promisor") == ["true"]:
            with suppress(RepositoryError):
                found |= heads.ask(repository, remote.name) or frozenset()
    return found


def _reachable(repository: Repository, *refs: str) -> frozenset[str]:
    """Return of what the objects consist that refs, or options of rev-list, name."""
    options = ["--objects", "--no-object-names", "--missing=allow-any", "--ignore-missing"]
    listed: str = repository.git.git.rev_list(*options, *refs, "--")
    return frozenset(listed.split())


def _is_big(found: _Object | None) -> bool:
    return found is not None and found.kind == "blob" and found.size > _SMALL_BYTES


def _checked_out(repository: Repository) -> frozenset[str]:
    """Return the blobs that work trees have: without them git could not go back to them."""
    folders = [repository.common_dir, *repository.common_dir.glob("worktrees/*")]
    lines: list[str] = []
    for folder in folders:
        if (folder / "index").exists():
            told = {"GIT_DIR": str(folder), "GIT_INDEX_FILE": str(folder / "index")}
            # All of it, wherever in a work tree this runs.
            listed: str = repository.git.git.ls_files("-t", "--stage", "--", ":/", env=told)
            lines += listed.splitlines()
    entries = (line.split(maxsplit=3) for line in lines)
    return frozenset(oid for tag, _, oid, _ in entries if tag != "S")


def _write(
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


def _mode(replaced: Iterable[_Pack]) -> int:
    """Return who may read packs: whoever could read one of those that they replace.

    What a deploy fetches and writes is by its umask for its own user alone.
    """
    modes = (stat.S_IMODE(pack.stem.with_suffix(".pack").stat().st_mode) for pack in replaced)
    return reduce(or_, modes, 0) or 0o444
