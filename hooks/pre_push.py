"""The pre-push hook: what is pushed has to be fit to be deployed (githooks(5))."""

import sys
from collections.abc import Iterator
from pathlib import Path

from mirage_hooks.boot.environment import leave_operation
from mirage_hooks.boot.errors import Error, RepositoryError
from mirage_hooks.boot.host import Host
from mirage_hooks.boot.repository import Repository
from mirage_hooks.boot.verify import Verifier, installation


def main(state: str, arguments: list[str]) -> int:
    """Verify every state that a push brings to the branch that deploys; 1 stops the push."""
    del arguments
    leave_operation()
    common_dir = Path(state).absolute().parent.resolve()
    try:
        repository = Repository(common_dir)
        bound, store = installation(common_dir)
        pushed = list(_pushed(repository, bound))
        return report(Verifier(repository, bound, store), pushed)
    except Error as error:
        return _stop(f"mirage-hooks: {error}")


def report(verifier: Verifier, revisions: list[str]) -> int:
    """Verify revisions and say on standard error what is found; 1 where one cannot be deployed."""
    broken = False
    for finding in verifier.verify(revisions):
        print(f"mirage-hooks: {finding}", file=sys.stderr)
        broken = broken or finding.error is not None
    if not broken:
        return 0
    return _stop("mirage-hooks: this cannot be deployed; --no-verify goes on all the same")


def _stop(why: str) -> int:
    print(why, file=sys.stderr)
    return 1


def _pushed(repository: Repository, bound: Host | None) -> Iterator[str]:
    """Yield the commits that a push brings, by what git says on standard input."""
    for line in sys.stdin:
        _, new, remote, old = line.rsplit(maxsplit=3)
        if not new.strip("0") or not remote.startswith("refs/heads/"):
            continue
        if bound is not None and remote != f"refs/heads/{bound.branch}":
            continue
        try:
            commits = (
                repository.revisions(f"{old}..{new}")
                if old.strip("0")
                else repository.unpushed(new)
            )
        except RepositoryError:  # what the remote has was never fetched
            commits = [new]
        yield from commits or [new]
