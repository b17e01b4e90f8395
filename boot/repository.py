"""The deployment repository, through git's objects: never through the work tree."""

import contextlib
import os
from pathlib import Path
from typing import IO

import git
from git.exc import GitCommandError, GitError, InvalidGitRepositoryError, NoSuchPathError
from gitdb.exc import BadName, BadObject

from mirage_hooks.boot import bounded, ownership, promised
from mirage_hooks.boot.errors import RepositoryError
from mirage_hooks.boot.revision import FOLDER, Blob, Revision, reason, unreadable

# A disk may be slow; refs are few.
_SECONDS = 60


class Repository:
    """A git repository mirage-hooks is, or is to be, installed in."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the repository that `path` is in. Raises RepositoryError."""
        try:
            self.git = git.Repo(path, search_parent_directories=True, expand_vars=False)
        except (InvalidGitRepositoryError, NoSuchPathError):
            raise RepositoryError(
                f"{os.fspath(path)} is not in a git repository",
                "clone the deployment repository first, then name the clone",
            ) from None
        if (
            self.git.config_reader("repository").get("extensions", "objectformat", fallback="sha1")
            != "sha1"
        ):
            raise RepositoryError(
                f"{os.fspath(path)} has ids of sha256, which mirage-hooks cannot read",
                "have a deployment repository of sha1: git init --object-format=sha1",
            )
        self.common_dir = Path(self.git.common_dir).resolve()
        # Where the git dir is not in the work tree (--separate-git-dir), git has to be told.
        # In a partial clone nothing is fetched by the way: what has to be is, by promised.py.
        self.git.git.update_environment(GIT_DIR=str(self.git.git_dir), GIT_NO_LAZY_FETCH="1")

    @property
    def name(self) -> str:
        """Where it is, as its operator knows it."""
        return str(self.git.working_tree_dir or self.common_dir)

    @property
    def places(self) -> list[str]:
        """Where it is, and where it was cloned from."""
        return [self.name, *self.config_values("remote.origin.url")]

    def head_branch(self) -> str | None:
        """Return the branch that is checked out, None where HEAD is detached."""
        return None if self.git.head.is_detached else self.git.head.reference.name

    def tip(self, branch: str) -> Revision:
        """Return the commit a branch points to. Raises RepositoryError where it points to none."""
        try:
            # Not rev-parse: to that `main~1` is a commit, too.
            tip = self.git.git.show_ref("--verify", "--hash", f"refs/heads/{branch}")
            return Revision(self.git.commit(tip))
        except (GitCommandError, BadName, BadObject, ValueError):
            raise RepositoryError(
                f"branch {branch} of {self.name} has no commit",
                "push or pull it once, or name another: mirage-hooks install --branch BRANCH",
            ) from None
        except (GitError, OSError) as error:
            raise RepositoryError(f"git cannot read {self.name}: {reason(error)}") from None

    def resolve(self, ref: str) -> str | None:
        """Return the id that a ref, by its whole name, points to; None where it is not there."""
        try:
            found: str = self.git.git.show_ref("--verify", "--hash", ref)
        except GitCommandError:
            return None
        return found

    def is_ancestor(self, old: str, new: str) -> bool:
        """Whether a commit is part of another's history. Raises RepositoryError."""
        try:
            self.git.git.merge_base("--is-ancestor", old, new)
        except GitCommandError as error:
            if error.status == 1:
                return False
            raise RepositoryError(f"git cannot compare {old} and {new}: {reason(error)}") from None
        return True

    def upstream(self, branch: str) -> tuple[str, str] | None:
        """Return the remote of a branch, and its name there, None where it has none set.

        What `git pull` goes by (git-config(1), branch.<name>.remote and .merge).
        """
        keys = (f"branch.{branch}.{key}" for key in ("remote", "merge"))
        try:
            remote, ref = (self.git.git.config("--get", key) for key in keys)
        except GitCommandError:
            return None
        return remote, ref

    def revision(self, name: str) -> Revision:
        """Return the commit, or the tree, that git knows by a name. Raises RepositoryError."""
        for kind in ("commit", "tree"):
            with contextlib.suppress(GitCommandError, BadName, BadObject, ValueError):
                oid = self.git.git.rev_parse(
                    "--verify", "--quiet", "--end-of-options", f"{name}^{{{kind}}}"
                )
                binary = bytes.fromhex(oid)
                if kind == "commit":
                    return Revision(git.Commit(self.git, binary))
                return Revision(git.Tree(self.git, binary, FOLDER, ""))
        raise RepositoryError(f"{self.name} has no commit {name!r}")

    def revisions(self, span: str) -> list[str]:
        """Return the ids of the commits that a range, such as A..B, means to git, oldest first.

        Raises RepositoryError where git knows no such range.
        """
        try:
            listed: str = self.git.git.rev_list("--reverse", "--end-of-options", span, "--")
        except GitCommandError as error:
            raise RepositoryError(f"git knows no commits {span!r}: {reason(error)}") from None
        return listed.split()

    def unpushed(self, commit: str) -> list[str]:
        """Return the ids of the commits up to one that no remote is known to have, oldest first.

        Only that one, where nothing is known of any remote.
        """
        if not self.git.git.for_each_ref("--count=1", "refs/remotes/"):
            return [commit]
        listed: str = self.git.git.rev_list("--reverse", commit, "--not", "--remotes")
        return listed.split()

    def blob(self, path: str, oid: str) -> Blob:
        """Return a blob that some revision had at `path`, fetched in a partial clone.

        Raises RepositoryError if it is gone, HostError where its server is away.
        """
        promised.have(self.git, path, oid)
        try:
            self.git.git.cat_file("-e", oid)
        except GitCommandError as error:
            raise unreadable(path, error) from None
        return Blob(path, oid, self.git)

    def identify(self, names: list[str]) -> str:
        """Return, a line a name, the object ids that `git cat-file --batch-check` finds.

        Raises RepositoryError.
        """
        if not names:
            return ""
        try:
            output: str = self.git.git.cat_file(
                "--batch-check=%(objectname)",
                istream=text_file("".join(f"{name}\n" for name in names)),
                strip_newline_in_stdout=False,
            )
        except GitCommandError as error:
            raise RepositoryError(f"git cannot read {self.name}: {reason(error)}") from None
        return output

    def refs(self, folder: str) -> list[str]:
        """Return the names of the refs in a folder of them. Raises RepositoryError."""
        try:
            names: str = self.git.git.for_each_ref("--format=%(refname)", f"{folder}/")
        except GitCommandError as error:
            raise RepositoryError(f"git cannot list {folder}: {reason(error)}") from None
        return names.splitlines()

    def update_refs(self, commands: list[str]) -> None:
        """Change refs, all or none, by lines that `git update-ref --stdin` takes.

        Raises RepositoryError.
        """
        if not commands:
            return
        # No hook: `reference-transaction` would run as whoever collects. With an fsync: a pull ends
        # with "bad object" at a ref that a power loss left empty.
        with text_file("".join(f"{command}\n" for command in commands)) as lines:
            code, said = bounded.git(
                self.name,
                *("-c", "core.hooksPath=/dev/null", "-c", "core.fsync=committed,reference"),
                *("update-ref", "--stdin"),
                seconds=_SECONDS,
                environment={"GIT_DIR": str(self.git.git_dir)},
                stdin=lines,
                umask=bounded.umask_of(self.common_dir),
            )
        if code:
            raise RepositoryError(f"git cannot update refs: {said or f'it ended with {code}'}")

    def config_values(self, key: str) -> list[str]:
        """Return what a key is set to in the repository's own configuration."""
        try:
            values: str = self.git.git.config("--local", "--get-all", key)
        except GitCommandError:
            return []
        return values.splitlines()

    def set_config(self, key: str, value: str) -> None:
        """Set a key of the repository's own configuration. Raises RepositoryError."""
        try:
            self.git.git.config("--local", key, value)
        except GitCommandError as error:
            raise RepositoryError(f"git cannot set {key}: {reason(error)}") from None

    def add_config(self, key: str, value: str) -> None:
        """Add a value to a key of the repository's own configuration. Raises RepositoryError."""
        try:
            self.git.git.config("--local", "--add", key, value)
        except GitCommandError as error:
            raise RepositoryError(f"git cannot set {key}: {reason(error)}") from None

    def remove_config(self, key: str, value: str) -> None:
        """Take a value of a key out again, if it is there. Raises RepositoryError."""
        try:
            if value in self.config_values(key):
                self.git.git.config("--local", "--unset-all", key, f"^{value}$")
        except GitCommandError as error:
            raise RepositoryError(f"git cannot unset {key}: {reason(error)}") from None

    def remove_empty_section(self, section: str) -> None:
        """Remove a section of the configuration that holds no key: git leaves some behind."""
        try:
            self.git.git.config("--local", "--get-regexp", rf"^{section}\.")
        except GitCommandError:
            with contextlib.suppress(GitCommandError):
                self.git.git.config("--local", "--remove-section", section)

    def hooks_path(self) -> tuple[str, str] | None:
        """Return where core.hooksPath is set (its scope) and to what, None where it is not set."""
        try:
            found = self.git.git.config("--show-scope", "--get", "core.hooksPath")
        except GitCommandError:
            return None
        scope, _, path = found.partition("\t")
        return scope, path

    def hooks_folder(self) -> Path:
        """Return the folder that git takes the repository's hooks from, there or not."""
        if self.hooks_path() is None:
            return self.common_dir / "hooks"
        # Expanded by git: ~, %(prefix), and relative to where hooks are run (githooks(5)).
        path = self.git.git.config("--type=path", "--get", "core.hooksPath")
        return Path(self.git.working_tree_dir or self.common_dir, path).resolve()

    def ignores(self, path: Path) -> bool:
        """Whether git would never commit a file at a path in the work tree."""
        try:
            self.git.git.check_ignore("--quiet", "--no-index", str(path))
        except GitCommandError:
            return False
        return True

    @property
    def is_sparse(self) -> bool:
        """Whether its work tree leaves files out, as git-sparse-checkout(1) has it."""
        try:
            found: str = self.git.git.config("--type=bool", "--get", "core.sparseCheckout")
        except GitCommandError:
            return False
        return found == "true"

    @property
    def obeyed(self) -> list[Path]:
        """What git, or we, do as told by (ownership.py)."""
        return ownership.obeyed(self.common_dir)

    def behind(self, branch: str) -> int | None:
        """Return how many commits of its upstream a branch lacks, None where it has no upstream."""
        try:
            return int(self.git.git.rev_list("--count", f"{branch}..{branch}@{{upstream}}"))
        except GitCommandError:
            return None

    def last_fetch(self, polled: Path) -> float | None:
        """Return when a fetch last went well, in seconds since the epoch; None if nothing tells.

        Polls leave a stamp at `polled`. Whoever else fetches leaves an empty FETCH_HEAD when that
        fails: git empties it first.
        """
        times = [polled.stat().st_mtime] if polled.exists() else []
        with contextlib.suppress(FileNotFoundError):
            fetched = (Path(self.git.git_dir) / "FETCH_HEAD").stat()
            times += [fetched.st_mtime] if fetched.st_size else []
        return max(times, default=None)


def text_file(text: str) -> IO[bytes]:
    """Return a file in memory, at its beginning: what a process is given has to be a real file."""
    descriptor = os.memfd_create("mirage-hooks")
    file = os.fdopen(descriptor, "w+b")
    file.write(text.encode())
    file.seek(0)
    return file
