"""What a revision of the repository holds: its folders and files, through git's objects."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BufferedReader
from typing import NamedTuple

import git
from git.exc import GitCommandError, GitError
from gitdb.exc import BadObject

from mirage_hooks.boot import promised
from mirage_hooks.boot.errors import Error, RepositoryError

_FILE, FOLDER = 0o100000, 0o040000
# An entry of a tree: mode, name, and the id as bytes (gitformat-pack(5) calls it a tree entry).
_ENTRY = re.compile(rb"([0-7]{5,6}) ([^\0/]+)\0(.{20})", re.DOTALL)
# What `git hash-object /dev/null` says: the id of every empty file.
_EMPTY = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
_KINDS = {0o120000: "a symbolic link", 0o160000: "a submodule", FOLDER: "a folder"}


@dataclass(frozen=True)
class Blob:
    """A file as a revision holds it.

    In a partial clone its bytes may still be with a server: who asks for them, or for how many they
    are, has them fetched. Raises HostError then where that cannot be done.
    """

    path: str
    oid: str
    _repo: git.Repo

    @cached_property
    def _git(self) -> git.Git:
        """What reads it, once it is here."""
        promised.have(self._repo, self.path, self.oid)
        return self._repo.git

    @property
    def size(self) -> int:
        """How many bytes it has. Raises RepositoryError where git cannot read it."""
        try:
            return int(self._git.get_object_header(self.oid)[2])
        except (ValueError, GitError, OSError) as error:
            raise unreadable(self.path, error) from None

    @property
    def is_empty(self) -> bool:
        """Whether it has no bytes: told by its id, wherever they are."""
        return self.oid == _EMPTY

    @contextmanager
    def open(self) -> Iterator[BufferedReader]:
        """Give its bytes as a stream. Raises RepositoryError where git cannot read them whole.

        From a process of its own: GitPython's shared one would be left in the midst of a blob by a
        reader who has seen enough of it.
        """
        process = self._git.cat_file("blob", self.oid, as_process=True)
        try:
            try:
                yield process.stdout
            finally:  # also where too little came of it to be understood
                if not process.stdout.read(1):  # read to its end: was that the whole blob?
                    process.wait()
        except GitCommandError as error:
            raise unreadable(self.path, error) from None
        finally:
            process.proc.kill()
            process.proc.wait()
            process.stdout.close()

    def text(self, limit: int) -> str:
        """Return its text. Raises RepositoryError where it is too long or no UTF-8."""
        if (size := self.size) > limit:
            raise RepositoryError(f"{self.path} has {size} bytes, more than {limit}")
        try:
            # Through the process that GitPython keeps for it: a manifest may have 500 pointers.
            return self._git.get_object_data(self.oid)[3].decode()
        except UnicodeDecodeError:
            raise RepositoryError(f"{self.path} is not UTF-8 text") from None
        except (ValueError, GitError, OSError) as error:
            raise unreadable(self.path, error) from None


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
            raise unreadable(f"commit {root.hexsha}", error) from None
        self._repo = root.repo
        self._git: git.Git = root.repo.git
        self._root = Entry(FOLDER, tree.hexsha)
        self._listings: dict[str, dict[str, Entry]] = {}
        self.id = root.hexsha

    def find(self, path: str) -> Blob | None:
        """Return the file at `path`, None where there is nothing.

        Raises RepositoryError where the path leads to, or through, what is no regular file.
        """
        here = self._at(path.split("/"), "file")
        if here is None:
            return None
        if here.kind == FOLDER:
            raise RepositoryError(f"{path} is {_KINDS[FOLDER]}, no file")
        return Blob(path, here.oid, self._repo)

    def bring(self, blobs: Iterable[Blob]) -> dict[str, Error]:
        """Fetch, in a partial clone, what is not here of some files: all at once.

        Returns what could not be had, by its id, and why.
        """
        return promised.bring(self._repo, {blob.oid: blob.path for blob in blobs})

    def oid(self, path: str) -> str | None:
        """Return the object id of whatever is at a path, as git cat-file has it; None for nothing.

        Raises RepositoryError where git cannot read a folder on the way.
        """
        here, at = self._root, ""
        for depth, name in enumerate(parts := path.split("/"), 1):
            found = self._listing(at, here).get(name) if here.kind == FOLDER else None
            if found is None:
                return None
            here, at = found, "/".join(parts[:depth])
        return here.oid

    def files(self, folder: str) -> list[str]:
        """Return the names of the regular files in a folder, "" being the root.

        None are in what is not there or is a file. Raises RepositoryError as `find` does.
        """
        return self._names(folder, _FILE)

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders in a folder; the rest is as `files` has it."""
        return self._names(folder, FOLDER)

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
                f"git cannot read the history of {self.id[:7]}: {reason(error)}", "run: git fsck"
            ) from None
        return [path for path in output.split("\0") if path]

    def _names(self, folder: str, kind: int) -> list[str]:
        here = self._at(folder.split("/") if folder else [], "folder")
        if here is None or here.kind != FOLDER:
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
            if here.kind not in {_FILE, FOLDER}:
                raise RepositoryError(f"{path} is {_KINDS.get(here.kind, 'damaged')}, no {wanted}")
        return here

    def _listing(self, path: str, folder: Entry) -> dict[str, Entry]:
        """Return what a folder holds. GitPython would take 40 ms where 5,000 old images lie."""
        if path not in self._listings:
            promised.have(self._repo, path or "the root", folder.oid)
            try:
                _, kind, _, data = self._git.get_object_data(folder.oid)
            except (ValueError, GitError, OSError) as error:
                raise unreadable(path or "the root", error) from None
            found = _ENTRY.findall(data)
            if os.fsdecode(kind) != "tree" or sum(len(b"".join(one)) + 2 for one in found) != len(
                data
            ):
                raise unreadable(path or "the root", ValueError(f"{folder.oid} is no sound tree"))
            self._listings[path] = {
                os.fsdecode(name): Entry(int(mode, 8), oid.hex()) for mode, name, oid in found
            }
        return self._listings[path]


class UnreadableError(RepositoryError):
    """git cannot read what is in a revision: nobody knows what that holds."""


def unreadable(path: str, error: Exception) -> UnreadableError:
    """Return what is raised where git cannot read something."""
    return UnreadableError(f"git cannot read {path}: {reason(error)}", "run: git fsck")


def reason(error: Exception) -> str:
    """Return what git, or what reads for it, said."""
    stderr = getattr(error, "stderr", None)
    return str(stderr or error).strip()
