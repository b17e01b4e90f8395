"""New objects of git's, made beside the work tree: blobs, trees from others, commits.

What the work tree holds, or does not (a sparse one), and what is staged does not matter: a tree is
made in an index of its own. In a partial clone nothing is fetched for that.
"""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from git.exc import GitCommandError

from mirage_hooks.boot import bounded
from mirage_hooks.boot.errors import RepositoryError
from mirage_hooks.boot.fetching import condensed
from mirage_hooks.boot.repository import Repository, text_file
from mirage_hooks.boot.revision import reason

# A key may be asked a passphrase for, by a program of its own.
_SIGNING_SECONDS = 120
_NOBODY = re.compile("tell me who you are|unable to auto-detect|empty ident")


def store(repository: Repository, content: Path | str) -> str:
    """Store a file, or a text, as a blob; return its id. Raises RepositoryError."""
    try:
        if isinstance(content, Path):
            oid: str = repository.git.git.hash_object(
                "-w", "--no-filters", "--", str(content.absolute())
            )
        else:
            oid = repository.git.git.hash_object("-w", "--stdin", istream=text_file(content))
    except GitCommandError as error:
        raise _unwritable(repository, error) from None
    return oid


def tree(repository: Repository, base: str | None, changes: Mapping[str, str | None]) -> str:
    """Return the id of a commit's tree with changes: blobs by their paths, None for none.

    `base` is None for a tree of nothing else. Raises RepositoryError.
    """
    # git-update-index(1), --index-info: mode 0 removes a path.
    lines = (
        f"100644 {oid}\t{path}\0" if oid is not None else f"0 {'0' * len(base or '')}\t{path}\0"
        for path, oid in changes.items()
    )
    with tempfile.TemporaryDirectory(prefix="mirage-hooks-") as folder:
        ours = repository.git.git
        options = ["core.sparseCheckout=false", "core.splitIndex=false", "core.fsmonitor=false"]
        try:
            with ours.custom_environment(GIT_INDEX_FILE=f"{folder}/index"):
                if base is not None:
                    ours(c=options).read_tree(base)
                ours(c=options).update_index(
                    "-z", "--index-info", istream=text_file("".join(lines))
                )
                oid: str = ours(c=options).write_tree("--missing-ok")
        except GitCommandError as error:
            raise _unwritable(repository, error) from None
    return oid


def commit(repository: Repository, tree: str, parent: str | None, message: str) -> str:
    """Return the id of a new commit, signed where git is set up to. Raises RepositoryError."""
    parents = ["-p", parent] if parent is not None else []
    # git-commit-tree(1) signs by its option alone, whatever commit.gpgSign says.
    signs = _signs(repository)
    with text_file(message) as text, text_file("") as made:
        code, said = bounded.git(
            repository.name,
            *("commit-tree", *parents, *(["-S"] if signs else []), "-F", "-", tree),
            seconds=_SIGNING_SECONDS,
            stdin=text,
            stdout=made,
        )
        made.seek(0)
        oid = made.read().decode().strip()
    if code == 0:
        return oid
    hint = (
        "git config user.name and user.email say who commits, or in the environment "
        "GIT_AUTHOR_NAME, GIT_AUTHOR_EMAIL, GIT_COMMITTER_NAME and GIT_COMMITTER_EMAIL"
        if _NOBODY.search(said) or not signs
        else "it is to sign: git config --get-regexp 'gpg|sign' says with what"
    )
    words = condensed(said) or f"git ended with {code}"
    raise RepositoryError(f"git cannot commit in {repository.name}: {words}", hint)


def _signs(repository: Repository) -> bool:
    try:
        value: str = repository.git.git.config("--type=bool", "--get", "commit.gpgSign")
    except GitCommandError:
        return False
    return value == "true"


def _unwritable(repository: Repository, error: GitCommandError) -> RepositoryError:
    return RepositoryError(
        f"git cannot write to {repository.name}: {reason(error)}",
        "is its disk full, or is it closed to this user?",
    )
