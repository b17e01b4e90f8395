"""What a partial clone has not fetched yet, and its server has promised to have.

git fetches that by itself wherever it is looked at, without any limit of time, and dies where it
cannot (gitpartialclone in its Documentation/technical). So here git is told not to, and what is to
be read is fetched before: bounded in time, asking nobody.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

import git

from mirage_hooks.boot import bounded, ownership
from mirage_hooks.boot.errors import HostError, RepositoryError
from mirage_hooks.boot.fetching import explained

# An image has a few MB.
_SECONDS = 300
_UNFETCHED = re.compile(r"^fatal: could not fetch [0-9a-f]+ from promisor remote$", re.MULTILINE)
_NO_LONGER = re.compile(r"not our ref|did not send all necessary objects")

_fetching = ContextVar("fetching", default=True)


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
    """Fetch an object, found at a path, unless it is here. What nobody has is for git to tell.

    Raises HostError where its server is away, RepositoryError where that has it no longer.
    """
    if not is_partial(repo.common_dir):
        return
    fetches = _fetching.get()
    # git's own safe.directory is not asked, as we name the git folder: a fetch would run what
    # somebody else wrote into the configuration.
    ownership.refuse_foreign(ownership.obeyed(Path(repo.common_dir)))
    told = {"GIT_DIR": str(repo.git_dir), "GIT_NO_LAZY_FETCH": str(int(not fetches))}
    code, said = bounded.git(
        # Where `git fetch` is run by hand: the path of a remote may be relative.
        str(repo.working_tree_dir or repo.common_dir),
        *("cat-file", "-e", oid),
        seconds=_SECONDS,
        environment={**bounded.SILENT, **told},
        umask=bounded.umask_of(repo.common_dir),
    )
    if code in bounded.TOO_LONG:
        raise _away(path, f"it took more than {_SECONDS} s")
    if not _UNFETCHED.search(said):
        return
    if not fetches:
        raise HostError(f"{path} is not in this clone yet", "`mirage-hooks deploy` fetches it")
    if _NO_LONGER.search(said):
        raise RepositoryError(f"{path} is not in this clone, nor any longer with its server")
    raise _away(path, explained(code, _UNFETCHED.sub("", said)))


def _away(path: str, why: str) -> HostError:
    return HostError(
        f"{path} is not in this clone yet, and cannot be fetched: {why}",
        "what runs goes on running; the next deploy tries again",
    )
