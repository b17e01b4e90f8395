"""What pre-commit runs (.pre-commit-hooks.yaml): what is staged, or pushed, has to be deployable.

Run as `python -m mirage_hooks.hooks.pre_commit`. pre-commit says in the environment what is pushed
(its docs, "During push operations"), of several refs the first, or which range it was asked about
(`--from-ref`, `--to-ref`); without that it is the index that is to be committed.
"""

import os
import subprocess
import sys

from mirage_hooks.boot.environment import leave_operation
from mirage_hooks.boot.errors import Error
from mirage_hooks.boot.repository import Repository
from mirage_hooks.boot.verify import Verifier
from mirage_hooks.hooks.pre_push import report

_PUSHED = frozenset({"PRE_COMMIT_TO_REF", "PRE_COMMIT_LOCAL_BRANCH"})


def main() -> int:
    """Verify; 1 stops the commit or the push."""
    try:
        staged = None if _PUSHED & set(os.environ) else _staged()
        leave_operation()
        repository = Repository(".")
        return report(Verifier(repository), [staged] if staged else _pushed(repository))
    except (Error, subprocess.SubprocessError) as error:
        print(f"mirage-hooks: {error}", file=sys.stderr)
        return 1


def _staged() -> str:
    """Return the tree that the index holds; git's environment says which index that is."""
    done = subprocess.run(
        ["git", "write-tree"], stdout=subprocess.PIPE, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


def _pushed(repository: Repository) -> list[str]:
    old, new = (os.environ.get(f"PRE_COMMIT_{name}_REF") for name in ("FROM", "TO"))
    if old and new:
        return repository.revisions(f"{old}..{new}") or [new]
    # A first push: pre-commit names the branch only.
    return repository.unpushed(repository.revision(os.environ["PRE_COMMIT_LOCAL_BRANCH"]).id)


if __name__ == "__main__":
    sys.exit(main())
