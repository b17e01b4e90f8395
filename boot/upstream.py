"""The branch that deploys, and what its upstream has: how they stand, and moving the one along.

What was fetched is in a ref of our own (pins.UPSTREAM): FETCH_HEAD is anybody's who fetches.
"""

import shlex
import time
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Literal

from git.exc import GitCommandError

from mirage_hooks.boot import bounded, pins
from mirage_hooks.boot.errors import RepositoryError
from mirage_hooks.boot.fetching import BLOCKED, DIVERGED, NOT_FETCHED, UpstreamError, condensed
from mirage_hooks.boot.guest import short
from mirage_hooks.boot.repository import Repository
from mirage_hooks.boot.revision import reason

# Tells our post-merge which state folder's poll it is run by: the poll converges by itself.
POLLED_BY = "MIRAGE_HOOKS_POLL"
# The hooks of others run in a merge; seconds.
_MOST_SECONDS = 900
# Where git keeps which branch a rebase is about.
_REBASES = ("rebase-merge", "rebase-apply")


class Standing(Enum):
    """How a branch stands to its upstream."""

    LEVEL = auto()
    BEHIND = auto()
    AHEAD = auto()
    DIVERGED = auto()


@dataclass(frozen=True)
class Move:
    """A branch that was moved: the event for it, and what hooks of others printed meanwhile."""

    event: Literal["repository.advanced", "repository.followed"]
    message: str
    printed: str = ""


def standing(repository: Repository, tip: str | None, theirs: str, rewound: bool) -> Standing:
    """Return how a branch stands to its upstream; `tip` is None for one without a commit.

    What looks like local commits is history that was taken back, where the upstream was `rewound`.
    """
    if tip == theirs:
        return Standing.LEVEL
    if tip is None or repository.is_ancestor(tip, theirs):
        return Standing.BEHIND
    if repository.is_ancestor(theirs, tip) and not rewound:
        return Standing.AHEAD
    return Standing.DIVERGED


def update(
    repository: Repository,
    state: Path,
    branch: str,
    policy: Literal["stop", "follow"],
    rewound: bool,
) -> Move | None:
    """Move a branch to what was fetched, if its policy has it so; None where it stays.

    Raises RepositoryError, mostly UpstreamError. `state` is the state folder, for the hook.
    """
    theirs = repository.resolve(pins.UPSTREAM)
    tip = repository.resolve(f"refs/heads/{branch}")
    if theirs is None:
        hint = "it is tried again at the next poll"
        raise UpstreamError(NOT_FETCHED, f"{branch}: nothing was fetched", hint)
    where = standing(repository, tip, theirs, rewound)
    if where in {Standing.LEVEL, Standing.AHEAD}:
        return None
    step = _Step(repository, state, branch, tip, theirs)
    if where is Standing.BEHIND:
        return step.advance()
    if policy == "stop":
        raise _diverged(repository, branch, str(tip), theirs)
    return step.follow(pins.back_up(repository, branch, str(tip), time.time()))


@dataclass(frozen=True)
class _Step:
    """From one commit to another, of a branch that may be checked out somewhere."""

    repository: Repository
    state: Path
    branch: str
    tip: str | None
    theirs: str

    def advance(self) -> Move:
        tree = _checked_out(self.repository, self.branch)
        printed = ""
        if tree is None:
            self._set("mirage-hooks poll: fast-forward")
        else:
            printed = self._git(tree, "merge", "--ff-only", "--quiet", self.theirs)
        was = short(self.tip) if self.tip is not None else "nothing"
        text = f"{self.branch}: {was} -> {short(self.theirs)}"
        return Move("repository.advanced", text, printed)

    def follow(self, backup: str) -> Move:
        tree = _checked_out(self.repository, self.branch)
        if tree is None:
            self._set("mirage-hooks poll: follow the upstream")
            back = f"git -C {_quoted(self.repository.common_dir)} update-ref refs/heads/"
            back += f"{self.branch} {backup}"
        else:
            self._git(tree, "reset", "--keep", "--quiet", self.theirs)
            back = f"git -C {_quoted(tree)} reset --keep {backup}"
        text = (
            f"{self.branch} follows its upstream, whose history is another: "
            f"{short(str(self.tip))} -> {short(self.theirs)}; what it was is kept as {backup}\n"
            f'  to go back: upstream = "stop" in [poll] of host.toml, then: {back}'
        )
        return Move("repository.followed", text)

    def _set(self, message: str) -> None:
        _refuse_rebase(self.repository, self.branch)
        name = f"refs/heads/{self.branch}"
        try:
            self.repository.git.git.update_ref("-m", message, name, self.theirs, self.tip or "")
            self.repository.git.git.gc("--auto", "--quiet")  # as a merge does
        except GitCommandError as error:
            raise self._blocked(self.repository.name, reason(error)) from None

    def _git(self, tree: Path, *arguments: str) -> str:
        """Run git in a work tree, with the hooks of others; return what they printed."""
        told = {POLLED_BY: str(self.state)}
        code, printed = bounded.git(tree, *arguments, seconds=_MOST_SECONDS, environment=told)
        # A merge ends with 0 whatever its hooks do (githooks(5)); one that hangs has moved it, too.
        if code and self.repository.resolve(f"refs/heads/{self.branch}") != self.theirs:
            raise self._blocked(str(tree), printed or f"git ended with {code}")
        return printed

    def _blocked(self, where: str, words: str) -> UpstreamError:
        changes = "overwritten by" in words or "not uptodate" in words
        return UpstreamError(
            BLOCKED,
            f"{self.branch} stays at {short(self.tip) if self.tip else 'nothing'} in {where}, "
            f"though its upstream has {short(self.theirs)}: {condensed(words)}",
            "commit, stash or discard the local changes there; what runs goes on running"
            if changes
            else "once that is mended, the next poll goes on; what runs goes on running",
        )


def _checked_out(repository: Repository, branch: str) -> Path | None:
    """Return the work tree in which a branch is checked out, None where it is in none.

    Raises RepositoryError where nobody knows where that is.
    """
    try:
        listed: str = repository.git.git.worktree("list", "--porcelain")
    except GitCommandError as error:
        raise RepositoryError(f"git cannot list work trees: {reason(error)}") from None
    for entry in listed.split("\n\n"):
        first, *rest = entry.split("\n")
        tree = Path(first.removeprefix("worktree "))
        if f"branch refs/heads/{branch}" in rest and tree.exists():
            return _main_tree(repository) if tree.resolve() == repository.common_dir else tree
    return None


def _main_tree(repository: Repository) -> Path:
    """Return the main work tree, where the git dir is not in it (--separate-git-dir)."""
    found = repository.config_values("core.worktree")
    if not found:
        raise RepositoryError(
            f"nobody knows where the work tree of {repository.common_dir} is",
            'in it, run: git config core.worktree "$(git rev-parse --show-toplevel)"',
        )
    return Path(repository.common_dir, found[-1])


def _refuse_rebase(repository: Repository, branch: str) -> None:
    """Raise UpstreamError while a rebase of a branch goes on: it is checked out nowhere then."""
    folders = [repository.common_dir, *repository.common_dir.glob("worktrees/*")]
    for path in (one / kind / "head-name" for one in folders for kind in _REBASES):
        if path.exists() and path.read_text().strip() == f"refs/heads/{branch}":
            raise UpstreamError(
                BLOCKED,
                f"{branch} is not moved while a rebase of it goes on ({path.parent})",
                "end it with: git rebase --continue, or --abort",
            )


def _diverged(repository: Repository, branch: str, tip: str, theirs: str) -> UpstreamError:
    ours = len(repository.revisions(f"{theirs}..{tip}"))
    return UpstreamError(
        DIVERGED,
        f"{branch} has {ours} commit{'s' * (ours != 1)} that its upstream has not: it is at "
        f"{short(tip)}, the upstream at {short(theirs)}; nothing new is deployed",
        f"push them or rebase them (git pull --rebase), or drop them: git reset --keep "
        f'{short(theirs)}; upstream = "follow" in [poll] of host.toml does that by itself',
    )


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
