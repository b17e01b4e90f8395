"""A repository without the old images in it: a remote has promised to have them.

What a remote was seen to have are the objects in packs that it sent to a partial clone (`.promisor`
in gitpartialclone, of git's technical documentation), and those of which its branches consist. Of
these the big blobs go that nothing here needs, until they are read again. Whatever else is here
stays, reachable or not. Killed at any instant this leaves every object that is to stay: the new
packs are on the disk before an old one goes.
"""

import re
from collections.abc import Set
from contextlib import suppress
from typing import NamedTuple

from git.exc import GitCommandError

from mirage_hooks.boot import fetching, filtering, heads, packs, pins
from mirage_hooks.boot.errors import ConfigError, HostError, RepositoryError
from mirage_hooks.boot.files import folder_size, sync_folder
from mirage_hooks.boot.repository import Repository
from mirage_hooks.boot.revision import reason

# Commits and trees of all history come anew, once.
_SECONDS = 900
# What is smaller is no image, but a pointer, a manifest, a template.
_SMALL_BYTES = 32 << 10
_UNFINISHED = re.compile(r"\btmp_pack_\w+")


class Slimmed(NamedTuple):
    """How many blobs were dropped, and how many bytes that freed."""

    blobs: int
    freed: int


def promise(repository: Repository, remote: str) -> None:
    """Fetch what the branches of a remote have now, but for blobs: of a whole clone all, anew.

    That makes a partial clone of it. Raises ConfigError where the remote is this very repository,
    RepositoryError where it is away, or cannot leave blobs out.
    """
    where = fetching.without_secrets(remote)
    if heads.ask(repository, remote) is None:
        raise ConfigError(
            f"{where} is this very repository: nobody else has the old images",
            "name another: git branch --set-upstream-to REMOTE/BRANCH",
        )
    if not filtering.is_offered(repository.name, remote):
        raise RepositoryError(
            f"{where} does not filter what it sends: what is dropped here could not be had again",
            "there, git config uploadpack.allowFilter true lets it",
        )
    whole = repository.config_values(f"remote.{remote}.promisor") != ["true"]
    # Told for this once: a clone that lacks nothing yet is no partial one.
    partial = {
        f"remote.{remote}.partialclonefilter": "blob:none",
        f"remote.{remote}.promisor": "true",
    }
    filtering.ask(
        remote,
        repository.name,
        *(word for key, value in partial.items() for word in ("-c", f"{key}={value}")),
        *("fetch", "--quiet", *(["--refetch"] if whole else []), "--prune", "--no-tags"),
        *("--no-recurse-submodules", "--no-auto-gc", "--no-write-fetch-head"),
        *(remote, f"+refs/heads/*:{pins.HISTORY}/*"),
        seconds=_SECONDS,
        environment={"GIT_DIR": str(repository.git.git_dir)},
    )
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
    found = list(packs.rewritable(repository, folder / "pack"))
    loose = packs.loose(folder)
    here = packs.here(repository)
    theirs = frozenset[str]().union(*(pack.objects for pack in found if pack.promised))
    theirs |= _reachable(repository, *seen) if seen else frozenset()
    # By what the packs list: what cannot be read now must not be left out of the new one.
    theirs &= loose.union(*(pack.objects for pack in found))
    going = {oid for oid in theirs if _is_big(here.get(oid))} - keep - _checked_out(repository)
    going -= _only_here(repository, going, seen)
    if going:
        old = [pack for pack in found if pack.promised or pack.objects & theirs]
        ours = frozenset[str]().union(*(pack.objects for pack in old)) - theirs
        mode = packs.mode(old)
        new = {
            packs.write(repository, folder / "pack", theirs - going, mode, promised=True),
            packs.write(repository, folder / "pack", ours, mode, promised=False),
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


def _is_big(found: packs.Object | None) -> bool:
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
