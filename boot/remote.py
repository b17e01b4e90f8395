"""The server that has the branch to publish to: what it has, and bringing it a commit.

Nothing here asks anybody: a password that is not in the environment or in git's configuration, a
key's passphrase and an unknown host key end it. What git reads from the environment, such as
GIT_SSH_COMMAND and GIT_ASKPASS, is git's alone: no argument and no message of ours has it.
"""

import os
import random
import re
import time
from dataclasses import dataclass

from mirage_hooks.boot import bounded, pins
from mirage_hooks.boot.errors import RepositoryError
from mirage_hooks.boot.fetching import explained, without_secrets
from mirage_hooks.boot.repository import Repository

_SECONDS = 300
_TRIES = 10

# How git, and servers that lock what others are just moving, say that a branch has moved.
_RACE = re.compile(
    r"\[rejected\]|cannot lock ref|failed to update ref|incorrect old value"
    "|reference already exists"
)
_GONE = re.compile(r"couldn't find remote ref", re.IGNORECASE)

# By default git sends files again that are there under another name (git-config(1)): whole images,
# which a partial clone would have to fetch for that.
_LEAST = ("-c", "pack.useSparse=false")

# How git says that a server was lost when it may have taken a push already; and that it has told.
_LOST = re.compile(
    r"hung up|unexpected disconnect|RPC failed|failed to report status|early EOF|Broken pipe"
    r"|Connection (reset|closed)"
)
_TOLD = re.compile(r"\[(remote )?rejected\]|HTTP 4\d\d")

_MENDED = "nothing is published; once that is mended, run the job again"
_UNKNOWN = "run the job again: what is published already makes no second commit"


@dataclass(frozen=True)
class Refused:
    """A push that was not taken: because the branch may just have moved, or for good.

    Where the server was lost meanwhile it `may_land`, for all that is known.
    """

    may_be_race: bool
    may_land: bool
    error: RepositoryError


@dataclass(frozen=True)
class Branch:
    """A branch of a remote."""

    repository: Repository
    remote: str
    name: str

    def fetch(self) -> str | None:
        """Return the commit that it has, fetched; None in a repository without any branch.

        Raises RepositoryError.
        """
        code, said = 0, ""
        for _ in range(_TRIES):
            code, said = self._fetch()
            if code == 0:
                return self.repository.resolve(self._ref)
            if _GONE.search(said):
                heads = self._heads()
                if not heads:
                    return None
                if f"refs/heads/{self.name}" not in heads:
                    break
                continue  # somebody has just made it
            if self._ref not in said or not _RACE.search(said):
                break
            time.sleep(random.uniform(0, 1))  # noqa: S311 - somebody else publishes from here
        raise self._away("cannot be fetched from", code, said)

    def push(self, commit: str, tip: str | None) -> Refused | None:
        """Have it be a commit, with our pre-push hook; return why it is not.

        It is left alone where it is not at `tip` any more, for None: where it is there. Without
        that, what was taken back meanwhile would come again, and a branch that was deleted, too.
        """
        name = f"refs/heads/{self.name}"
        lease = f"--force-with-lease={name}:{tip or ''}"
        options = ("--porcelain", "--recurse-submodules=no", lease)
        code, said = self._git(*_LEAST, "push", *options, self.remote, f"{commit}:{name}")
        if code == 0:
            return None
        lost = code in bounded.TOO_LONG or _LOST.search(said)
        may_land = bool(lost and not _TOLD.search(said))
        error = self._lost(code, said) if may_land else self._away("is not taken by", code, said)
        return Refused(_RACE.search(said) is not None, may_land, error)

    @property
    def _ref(self) -> str:
        return pins.published(self.remote, self.name)

    def _fetch(self) -> tuple[int, str]:
        spec = f"+refs/heads/{self.name}:{self._ref}"
        options = ("--no-tags", "--no-recurse-submodules", "--no-auto-gc", "--no-write-fetch-head")
        return self._git("fetch", *options, self.remote, spec)

    def _heads(self) -> list[str]:
        """Return the branches that are there, by their whole names. Raises RepositoryError."""
        code, said = self._git("ls-remote", "--heads", self.remote)
        if code:
            raise self._away("cannot be fetched from", code, said)
        return [word for word in said.split() if word.startswith("refs/heads/")]

    def _git(self, *arguments: str) -> tuple[int, str]:
        told = {**bounded.SILENT, "GIT_ASKPASS": os.environ.get("GIT_ASKPASS", "")}
        return bounded.git(self.repository.name, *arguments, seconds=_SECONDS, environment=told)

    def _away(self, what: str, code: int, said: str) -> RepositoryError:
        text = f"{self.name} {what} {self._where()}: {explained(code, said, _SECONDS)}"
        return RepositoryError(text, _MENDED)

    def _lost(self, code: int, said: str) -> RepositoryError:
        what = f"whether {self.name} is taken by {self._where()} is not known"
        return RepositoryError(f"{what}: {explained(code, said, _SECONDS)}", _UNKNOWN)

    def _where(self) -> str:
        """Return the URL of the remote, as git rewrites it, without what is secret in it."""
        url = self.repository.git.git.ls_remote("--get-url", "--", self.remote)
        return without_secrets(str(url))


def choose(repository: Repository, branch: str | None) -> Branch:
    """Return the branch to publish to: the one that is named, or checked out, of its upstream.

    Raises RepositoryError where there is none.
    """
    name = branch or repository.head_branch()
    if name is None:
        raise RepositoryError(
            f"no branch is checked out in {repository.name}", "name the one to publish to: --branch"
        )
    upstream = repository.upstream(name)
    if upstream is not None:
        return Branch(repository, upstream[0], upstream[1].removeprefix("refs/heads/"))
    remotes = [one.name for one in repository.git.remotes]
    if "origin" in remotes or len(remotes) == 1:
        return Branch(repository, "origin" if "origin" in remotes else remotes[0], name)
    raise RepositoryError(
        f"{repository.name} has no remote origin to publish to",
        f"git remote add origin URL, or: git branch --set-upstream-to REMOTE/{name}",
    )
