"""What a partial clone has not fetched yet, and its server has promised to have.

git fetches that by itself wherever it is looked at, without any limit of time, and dies where it
cannot (gitpartialclone in its Documentation/technical). Where a web server answers that has no
repository, it does so again and again, each time in another process. So here git is told not to,
and what is to be read is fetched before: bounded in time, asking nobody.
"""

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from weakref import WeakKeyDictionary

import git
from git.exc import GitCommandError

from mirage_hooks.boot import bounded, ownership
from mirage_hooks.boot.errors import Error, HostError, RepositoryError
from mirage_hooks.boot.fetching import explained

# All images of a deploy together, a few MB each.
_SECONDS = 300
# What a server says that has not got it, and what git says where it was sent something else.
_NO_LONGER = ("not our ref", "did not send all necessary objects")

_fetching = ContextVar("fetching", default=True)
# What was seen to be here: a manifest may have 500 pointers.
_seen: WeakKeyDictionary[git.Repo, frozenset[str]] = WeakKeyDictionary()


@contextlib.contextmanager
def left_there() -> Iterator[None]:
    """Fetch nothing meanwhile: for whoever only looks. Where something is missing, that is said."""
    token = _fetching.set(False)
    try:
        yield
    finally:
        _fetching.reset(token)


def is_partial(common_dir: str | os.PathLike[str]) -> bool:
    """Whether a repository holds anything that a server has promised to have the rest of."""
    return any(Path(common_dir, "objects", "pack").glob("*.promisor"))


def have(repo: git.Repo, path: str, oid: str) -> None:
    """Fetch an object, found at a path, unless it is here.

    Raises HostError where its server is away, RepositoryError where that has it no longer.
    """
    for error in bring(repo, {oid: path}).values():
        raise error


def bring(repo: git.Repo, wanted: Mapping[str, str]) -> dict[str, Error]:
    """Fetch what is not here of some objects, given with the paths they are found at: all at once.

    Returns what could not be had, and why. In a clone that is not partial nothing is looked for:
    what is missing there is for git to tell.
    """
    if not is_partial(repo.common_dir):
        return {}
    missing = wanted.keys() - _seen.get(repo, frozenset())
    missing -= _look(repo) if missing else frozenset()
    if not missing:
        return {}
    if not _fetching.get():
        hint = "`mirage-hooks deploy` fetches it"
        return {oid: HostError(f"{wanted[oid]} is not in this clone yet", hint) for oid in missing}
    code, said = _fetch(repo, missing)
    left = missing - _look(repo)
    if len(left) > 1 and _is_refused(said):  # one that it has not got costs the others
        return {key: why for oid in left for key, why in bring(repo, {oid: wanted[oid]}).items()}
    return {oid: _explain(wanted[oid], code, said) for oid in left}


def _look(repo: git.Repo) -> frozenset[str]:
    """Return what is here. Raises RepositoryError where git cannot tell."""
    try:
        listed: str = repo.git.cat_file(
            "--batch-all-objects", "--unordered", "--batch-check=%(objectname)"
        )
    except GitCommandError as error:
        raise RepositoryError(f"git cannot read {repo.common_dir}: {error.stderr}") from None
    _seen[repo] = frozenset(listed.split())
    return _seen[repo]


def _fetch(repo: git.Repo, missing: Collection[str]) -> tuple[int, str]:
    """Fetch objects as git would, from who has promised them; return how that ended, and its words.

    The options are those of fetch_objects() in git's promisor-remote.c.
    """
    # git's own safe.directory is not asked, as we name the git folder: a fetch would run what
    # somebody else wrote into the configuration.
    ownership.refuse_foreign(ownership.obeyed(Path(repo.common_dir)))
    ended = 0, "no remote has promised it"
    for remote in repo.remotes:
        if not remote.config_reader.get_value("promisor", default=False):
            continue
        ended = bounded.git(
            # Where `git fetch` is run by hand: the path of a remote may be relative.
            str(repo.working_tree_dir or repo.common_dir),
            *("-c", "fetch.negotiationAlgorithm=noop", "fetch", "--quiet"),
            *("--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--no-auto-gc"),
            *("--filter=blob:none", "--", remote.name, *missing),
            seconds=_SECONDS,
            environment={
                **bounded.SILENT,
                "GIT_DIR": str(repo.git_dir),
                "GIT_NO_LAZY_FETCH": "1",
            },
            umask=bounded.umask_of(repo.common_dir),
        )
        if ended[0] == 0:
            break
    return ended


def _is_refused(said: str) -> bool:
    return any(words in said for words in _NO_LONGER)


def _explain(path: str, code: int, said: str) -> Error:
    if _is_refused(said):
        return RepositoryError(f"{path} is not in this clone, nor any longer with its server")
    return HostError(
        f"{path} is not in this clone yet, and cannot be fetched: "
        f"{explained(code, said, _SECONDS)}",
        "what runs goes on running; the next deploy tries again",
    )
