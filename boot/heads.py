"""What the branches of a remote have right now, as a promise to go by: it is asked each time.

What was fetched once tells nothing of that: a branch may be gone there, or have another history.
"""

import re
import secrets

from mirage_hooks.boot import filtering, pins
from mirage_hooks.boot.errors import RepositoryError
from mirage_hooks.boot.fetching import without_secrets
from mirage_hooks.boot.repository import Repository

# Somebody may wait for the deploy that asks.
_SECONDS = 30
# As git-ls-remote(1) prints it.
_LINE = re.compile(r"^([0-9a-f]+)\t(refs/\S+)$", re.MULTILINE)


def ask(repository: Repository, remote: str) -> frozenset[str] | None:
    """Return the commits of a remote's branches; None where it is this very repository.

    By whatever way it leads back here, it shows a ref that is here for the moment, of a name that
    nobody else has. Raises RepositoryError where it is away, or where such a ref is hidden here.
    The caller holds the lock.
    """
    mark = f"{pins.ASKING}/{secrets.token_hex(16)}"
    repository.update_refs([f"create {mark} {repository.refs('refs/heads')[0]}"])
    try:
        ours, theirs = (_refs(repository, one) for one in (str(repository.common_dir), remote))
    finally:  # of those who were killed before, too
        repository.update_refs([f"delete {ref}" for ref in repository.refs(pins.ASKING)])
    if mark not in ours:
        raise RepositoryError(
            f"{repository.name} hides {pins.ASKING}: it cannot be told whether "
            f"{without_secrets(remote)} leads back here",
            f"git config --add transfer.hideRefs '!{pins.ASKING}'",
        )
    if mark in theirs:
        return None
    return frozenset(oid for ref, oid in theirs.items() if ref.startswith("refs/heads/"))


def _refs(repository: Repository, remote: str) -> dict[str, str]:
    """Return what the refs that a remote shows point to. Raises RepositoryError."""
    told = {"GIT_DIR": str(repository.git.git_dir)}
    said = filtering.ask(
        remote, repository.name, "ls-remote", "--", remote, seconds=_SECONDS, environment=told
    )
    return {ref: oid for oid, ref in _LINE.findall(said)}
