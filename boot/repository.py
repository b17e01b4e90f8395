"""The deployment repository, through git's objects: never through the work tree."""

import contextlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO, NamedTuple

import git
from git.exc import GitCommandError, GitError, InvalidGitRepositoryError, NoSuchPathError
from gitdb.exc import BadName, BadObject

from mirage_hooks.boot.errors import RepositoryError

_FILE, _FOLDER = 0o100000, 0o040000
# An entry of a tree: mode, name, and the id as bytes (gitformat-pack(5) calls it a tree entry).
_ENTRY = re.compile(rb"([0-7]{5,6}) ([^\0/]+)\0(.{20})", re.DOTALL)
_KINDS = {0o120000: "a symbolic link", 0o160000: "a submodule", _FOLDER: "a folder"}


@dataclass(frozen=True)
class Blob:
    """A file as a revision holds it."""

    path: str
    oid: str
    size: int
    _git: git.Git

    @contextmanager
    def open(self) -> Iterator[BufferedReader]:
        """Give its bytes as a stream. Raises RepositoryError where git cannot read them whole.

        From a process of its own: GitPython's shared one would be left in the midst of a blob by a
        reader who has seen enough of it.
        """
        process = self._git.cat_file("blob", self.oid, as_process=True)
        try:
            yield process.stdout
            if not process.stdout.read(1):  # read to its end: was that the whole blob?
                process.wait()
        except GitCommandError as error:
            raise _unreadable(self.path, error) from None
        finally:
            process.proc.kill()
            process.proc.wait()
            process.stdout.close()

    def text(self, limit: int) -> str:
        """Return its text. Raises RepositoryError where it is too long or no UTF-8."""
        if self.size > limit:
            raise RepositoryError(f"{self.path} has {self.size} bytes, more than {limit}")
        try:
            # Through the process that GitPython keeps for it: a manifest may have 500 pointers.
            return self._git.get_object_data(self.oid)[3].decode()
        except UnicodeDecodeError:
            raise RepositoryError(f"{self.path} is not UTF-8 text") from None
        except (ValueError, GitError, OSError) as error:
            raise _unreadable(self.path, error) from None


class Entry(NamedTuple):
    """What a folder of a revision holds under a name."""

    mode: int
    oid: str

    @property
    def kind(self) -> int:
        """Whether it is a file, a folder or something else."""
        return self.mode & 0o170000


class Revision:
    """One state of the repository's files: a commit's, or one that is still to be committed."""

    def __init__(self, root: git.Commit | git.Tree) -> None:
        """Read a commit or a tree. Raises RepositoryError where it is damaged."""
        self._has_history = isinstance(root, git.Commit)
        try:
            tree = root.tree if isinstance(root, git.Commit) else root
        # GitPython takes a commit apart and checks little: what a damaged one makes of it differs.
        except (AssertionError, ValueError, LookupError, BadObject, GitError, OSError) as error:
            raise _unreadable(f"commit {root.hexsha}", error) from None
        self._git: git.Git = root.repo.git
        self._root = Entry(_FOLDER, tree.hexsha)
        self._listings: dict[str, dict[str, Entry]] = {}
        self.id = root.hexsha

    def find(self, path: str) -> Blob | None:
        """Return the file at `path`, None where there is nothing.

        Raises RepositoryError where the path leads to, or through, what is no regular file.
        """
        here = self._at(path.split("/"), "file")
        if here is None:
            return None
        if here.kind == _FOLDER:
            raise RepositoryError(f"{path} is {_KINDS[_FOLDER]}, no file")
        try:
            return Blob(path, here.oid, int(self._git.get_object_header(here.oid)[2]), self._git)
        except (ValueError, GitError, OSError) as error:
            raise _unreadable(path, error) from None

    def files(self, folder: str) -> list[str]:
        """Return the names of the regular files in a folder, "" being the root.

        None are in what is not there or is a file. Raises RepositoryError as `find` does.
        """
        return self._names(folder, _FILE)

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders in a folder; the rest is as `files` has it."""
        return self._names(folder, _FOLDER)

    def added(self, patterns: list[str], most: int) -> list[str]:
        """Return the paths that the newest commits up to this one added, of the newest one first.

        At most so many commits count, and of their paths those that the patterns take, `glob`
        pathspecs of gitglossary(7). Raises RepositoryError where git cannot read the history.
        """
        options = [
            # A folder that is emptied as the next is filled is no rename here; a side branch counts
            # even where what it added was taken out again before the merge.
            *("--diff-filter=A", "--no-renames", "--full-history", "--root"),
            *("--name-only", "--no-relative", "--no-show-signature", "--format=", "-z"),
        ]
        if not self._has_history:
            return []
        paths = [f":(top,glob){pattern}" for pattern in patterns]
        try:
            output: str = self._git.log(*options, f"--max-count={most}", self.id, "--", *paths)
        except GitCommandError as error:
            raise RepositoryError(
                f"git cannot read the history of {self.id[:7]}: {_reason(error)}", "run: git fsck"
            ) from None
        return [path for path in output.split("\0") if path]

    def _names(self, folder: str, kind: int) -> list[str]:
        here = self._at(folder.split("/") if folder else [], "folder")
        if here is None or here.kind != _FOLDER:
            return []
        return [name for name, one in self._listing(folder, here).items() if one.kind == kind]

    def _at(self, parts: list[str], wanted: str) -> Entry | None:
        """Return what is at a path, a file or a folder, None where there is nothing."""
        here, path = self._root, ""
        for depth, name in enumerate(parts, 1):
            if here.kind == _FILE:
                return None
            found = self._listing(path, here).get(name)
            if found is None:
                return None
            here, path = found, "/".join(parts[:depth])
            if here.kind not in {_FILE, _FOLDER}:
                raise RepositoryError(f"{path} is {_KINDS.get(here.kind, 'damaged')}, no {wanted}")
        return here

    def _listing(self, path: str, folder: Entry) -> dict[str, Entry]:
        """Return what a folder holds. GitPython would take 40 ms where 5,000 old images lie."""
        if path not in self._listings:
            try:
                _, kind, _, data = self._git.get_object_data(folder.oid)
            except (ValueError, GitError, OSError) as error:
                raise _unreadable(path or "the root", error) from None
            found = _ENTRY.findall(data)
            if os.fsdecode(kind) != "tree" or sum(len(b"".join(one)) + 2 for one in found) != len(
                data
            ):
                raise _unreadable(path or "the root", ValueError(f"{folder.oid} is no sound tree"))
            self._listings[path] = {
                os.fsdecode(name): Entry(int(mode, 8), oid.hex()) for mode, name, oid in found
            }
        return self._listings[path]


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
        self.common_dir = Path(self.git.common_dir).resolve()
        # Where the git dir is not in the work tree (--separate-git-dir), git has to be told.
        self.git.git.update_environment(GIT_DIR=str(self.git.git_dir))

    @property
    def name(self) -> str:
        """Where it is, as its operator knows it."""
        return str(self.git.working_tree_dir or self.common_dir)

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
            raise RepositoryError(f"git cannot read {self.name}: {_reason(error)}") from None

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
                return Revision(git.Tree(self.git, binary, _FOLDER, ""))
        raise RepositoryError(f"{self.name} has no commit {name!r}")

    def revisions(self, span: str) -> list[str]:
        """Return the ids of the commits that a range, such as A..B, means to git, oldest first.

        Raises RepositoryError where git knows no such range.
        """
        try:
            listed: str = self.git.git.rev_list("--reverse", "--end-of-options", span, "--")
        except GitCommandError as error:
            raise RepositoryError(f"git knows no commits {span!r}: {_reason(error)}") from None
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
        """Return a blob that some revision had at `path`. Raises RepositoryError if it is gone."""
        try:
            return Blob(path, oid, int(self.git.git.cat_file("-s", oid)), self.git.git)
        except GitCommandError as error:
            raise _unreadable(path, error) from None

    def identify(self, names: list[str]) -> str:
        """Return, a line a name, the object ids that `git cat-file --batch-check` finds.

        Raises RepositoryError.
        """
        if not names:
            return ""
        try:
            output: str = self.git.git.cat_file(
                "--batch-check=%(objectname)",
                istream=_text_file("".join(f"{name}\n" for name in names)),
                strip_newline_in_stdout=False,
            )
        except GitCommandError as error:
            raise RepositoryError(f"git cannot read {self.name}: {_reason(error)}") from None
        return output

    def refs(self, folder: str) -> list[str]:
        """Return the names of the refs in a folder of them. Raises RepositoryError."""
        try:
            names: str = self.git.git.for_each_ref("--format=%(refname)", f"{folder}/")
        except GitCommandError as error:
            raise RepositoryError(f"git cannot list {folder}: {_reason(error)}") from None
        return names.splitlines()

    def update_refs(self, commands: list[str]) -> None:
        """Change refs, all or none, by lines that `git update-ref --stdin` takes.

        Raises RepositoryError.
        """
        if not commands:
            return
        text = "".join(f"{command}\n" for command in commands)
        try:
            # No hook: `reference-transaction` would run as whoever collects. With an fsync: a pull
            # ends with "bad object" at a ref that a power loss left empty.
            options = ["core.hooksPath=/dev/null", "core.fsync=committed,reference"]
            self.git.git(c=options).update_ref("--stdin", istream=_text_file(text))
        except GitCommandError as error:
            raise RepositoryError(f"git cannot update refs: {_reason(error)}") from None

    def config_values(self, key: str) -> list[str]:
        """Return what a key is set to in the repository's own configuration."""
        try:
            values: str = self.git.git.config("--local", "--get-all", key)
        except GitCommandError:
            return []
        return values.splitlines()

    def add_config(self, key: str, value: str) -> None:
        """Add a value to a key of the repository's own configuration. Raises RepositoryError."""
        try:
            self.git.git.config("--local", "--add", key, value)
        except GitCommandError as error:
            raise RepositoryError(f"git cannot set {key}: {_reason(error)}") from None

    def remove_config(self, key: str, value: str) -> None:
        """Take a value of a key out again, if it is there. Raises RepositoryError."""
        try:
            if value in self.config_values(key):
                self.git.git.config("--local", "--unset-all", key, f"^{value}$")
        except GitCommandError as error:
            raise RepositoryError(f"git cannot unset {key}: {_reason(error)}") from None

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
    def obeyed(self) -> list[Path]:
        """What git, or we, do as told by: who may write it may run what they like."""
        names = ("", "config", "config.worktree", "hooks")
        return [self.common_dir / name for name in names]

    def behind(self, branch: str) -> int | None:
        """Return how many commits of its upstream a branch lacks, None where it has no upstream."""
        try:
            return int(self.git.git.rev_list("--count", f"{branch}..{branch}@{{upstream}}"))
        except GitCommandError:
            return None

    def last_fetch(self) -> float | None:
        """Return when something was last fetched, in seconds since the epoch."""
        try:
            return (Path(self.git.git_dir) / "FETCH_HEAD").stat().st_mtime
        except FileNotFoundError:
            return None


def _unreadable(path: str, error: Exception) -> RepositoryError:
    return RepositoryError(f"git cannot read {path}: {_reason(error)}", "run: git fsck")


def _text_file(text: str) -> IO[bytes]:
    # GitPython hands `istream` to the process, which needs a real file.
    descriptor = os.memfd_create("mirage-hooks")
    file = os.fdopen(descriptor, "w+b")
    file.write(text.encode())
    file.seek(0)
    return file


def _reason(error: Exception) -> str:
    stderr = getattr(error, "stderr", None)
    return str(stderr or error).strip()
