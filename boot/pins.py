"""Refs that keep rollback candidates: without them a force-push and a gc would take the commits.

They are this host's own, and hidden from whoever fetches from the repository or pushes to it.
"""

import hashlib
import os
import time
from collections.abc import Set
from contextlib import suppress
from pathlib import Path

from mirage_hooks.boot.files import write_atomic
from mirage_hooks.boot.repository import Repository

_OURS = "refs/mirage-hooks"
_FOLDER = f"{_OURS}/keep"
# What the upstream of the branch that deploys had when it was last fetched.
UPSTREAM = f"{_OURS}/upstream"
_PUBLISHED = f"{_OURS}/published"
# What the branches of a remote had, while it is found out what need not be here.
HISTORY = f"{_OURS}/history"
# Where a ref is for the moment, to see whether a remote leads back here: this one is not hidden.
ASKING = f"{_OURS}-asking"
_BACKUP = f"{_OURS}/backup"
_SECTION = "transfer"
_HIDDEN = f"{_SECTION}.hideRefs"


def published(remote: str, branch: str) -> str:
    """Return the ref of what a branch of a remote had when an image was last published to it."""
    # By digest: a remote may be a URL, and there may be branches `a` and, later, `a/b`.
    digest = hashlib.sha256(f"{remote} {branch}".encode()).hexdigest()
    return f"{_PUBLISHED}/{digest}"


def update(repository: Repository, wanted: Set[str]) -> Set[str]:
    """Pin the commits that are wanted and no others; return those that are gone already.

    Raises RepositoryError.
    """
    pinned = {name.removeprefix(f"{_FOLDER}/") for name in repository.refs(_FOLDER)}
    new = sorted(wanted - pinned)
    there = set(repository.identify([f"{commit}^{{commit}}" for commit in new]).splitlines())
    repository.update_refs(
        [
            *(f"create {_FOLDER}/{commit} {commit}" for commit in new if commit in there),
            *(f"delete {_FOLDER}/{commit}" for commit in sorted(pinned - wanted)),
        ]
    )
    return frozenset(new) - there


def back_up(repository: Repository, branch: str, commit: str, now: float) -> str:
    """Return a ref that keeps a commit of a branch, which is about to leave it; one is enough.

    Raises RepositoryError.
    """
    folder = f"{_BACKUP}/{branch}"
    for ref in repository.refs(folder):
        if repository.resolve(ref) == commit:
            return ref
    name = f"{folder}/{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}"
    repository.update_refs([f"update {name} {commit}"])
    return name


def backups(repository: Repository) -> list[str]:
    """Return the refs that keep commits which the upstream had not. Raises RepositoryError."""
    return repository.refs(_BACKUP)


def remove(repository: Repository) -> None:
    """Drop every pin, and the folders git leaves behind; no backup. Raises RepositoryError."""
    update(repository, frozenset())
    there = [UPSTREAM] if repository.resolve(UPSTREAM) is not None else []
    for folder in (_PUBLISHED, HISTORY, ASKING):
        there += repository.refs(folder)
    repository.update_refs([f"delete {ref}" for ref in there])
    for folder in (_OURS, f"logs/{_OURS}", ASKING):
        with suppress(OSError):  # none was made, or there is more in it
            (repository.common_dir / folder).rmdir()


def hide(repository: Repository, note: Path) -> bool:
    """Hide the pins from transfers; return whether that was still to do. Raises RepositoryError.

    `note` is a file that remembers for `unhide` that it was us, and what git's configuration was.
    """
    if _OURS in repository.config_values(_HIDDEN):
        return False
    write_atomic(note, _configuration(repository).read_bytes())
    repository.add_config(_HIDDEN, _OURS)
    return True


def unhide(repository: Repository, note: Path) -> bool:
    """Leave git's configuration as it was before `hide`; return whether that had changed it.

    Raises RepositoryError.
    """
    if not note.exists():
        return False  # it was somebody else's
    before = note.read_bytes()
    repository.remove_config(_HIDDEN, _OURS)
    if f"[{_SECTION}".encode() not in before.lower():
        repository.remove_empty_section(_SECTION)
    path = _configuration(repository)
    if path.read_bytes() == before + b"\n":  # git has ended a last line that was not
        os.truncate(path, len(before))
    return True


def _configuration(repository: Repository) -> Path:
    return repository.common_dir / "config"
