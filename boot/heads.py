"""What the branches of a remote have right now, as a promise to go by: it is asked each time.

What was fetched once tells nothing of that: a branch may be gone there, or have another history.
"""

import re
import secrets

from mirage_hooks.boot import bounded, filtering, pins
from mirage_hooks.boot.repository import Repository

# Somebody may wait for the deploy that asks.
_SECONDS = 30
# As git-ls-remote(1) prints it.
_LINE = re.compile(r"^([0-9a-f]+)\t(refs/\S+)$", re.MULTILINE)


def ask(repository: Repository, remote: str) -> frozenset[str] | None:
    """Return the commits of a remote's branches; None where it is this very repository.

    By whatever way it leads back here, it shows a ref that is here for the moment, of a name that
    nobody else has. Raises RepositoryError where it is away. The caller holds the lock.
    """
    mark = f"{pins.ASKING}/{secrets.token_hex(16)}"
    repository.update_refs([f"create {mark} {repository.refs('refs/heads')[0]}"])
    try:
        code, said = bounded.git(
            repository.name,
            *("ls-remote", "--", remote),
            seconds=_SECONDS,
            environment={**bounded.SILENT, "GIT_DIR": str(repository.git.git_dir)},
        )
    finally:  # of those who were killed before, too
        repository.update_refs([f"delete {ref}" for ref in repository.refs(pins.ASKING)])
    if code:
        raise filtering.unreachable(remote, code, said, _SECONDS)
    refs = {ref: oid for oid, ref in _LINE.findall(said)}
    if mark in refs:
        return None
    return frozenset(oid for ref, oid in refs.items() if ref.startswith("refs/heads/"))
