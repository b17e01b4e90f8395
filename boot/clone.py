"""A clone that stays small: without images, but for those that are deployed from it."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mirage_hooks.boot import filtering, sparse
from mirage_hooks.boot.errors import ConfigError, HostError, RepositoryError
from mirage_hooks.boot.fetching import without_secrets
from mirage_hooks.boot.files import folder_size
from mirage_hooks.boot.repository import Repository

# Where a server cannot filter, all of its history comes.
_SECONDS = 3600
# A summary of a merge, as `git pull` prints it, looks into the old images and into the new ones.
NO_SUMMARY = ("merge.stat", "false")


@dataclass(frozen=True)
class Cloned:
    """A clone that was made: where, of how many bytes, and whether old images were left out.

    One that `is_empty` has no commit: its URL has none, on any branch.
    """

    folder: Path
    size: int
    partial: bool
    is_empty: bool


def clone(url: str, folder: Path | None, say: Callable[[str], None]) -> Cloned:
    """Clone a deployment repository into a folder, which is there whole then, or not at all.

    Where none is given, it is called as git would. Raises ConfigError, HostError, RepositoryError.
    """
    folder = folder or Path(_called(url))
    _refuse_taken(folder)
    partial = filtering.is_offered(".", url)
    if not partial:
        say(f"{without_secrets(url)} does not filter: all old images are fetched, too")
    elif is_here(url):  # whom git would not ask, but copy
        url = Path(url).absolute().as_uri()
    whole = folder.absolute()
    # Where the folder is there, it may be a disk of its own, and what it is in be closed to us.
    place = whole if whole.is_dir() else whole.parent
    temporary = place / f"{_beginning(whole)}{os.getpid()}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        is_empty = not _clone(url, temporary, partial)
        size = folder_size(temporary)
        _move(temporary, folder)
        for left in _temporaries(whole):
            shutil.rmtree(left, ignore_errors=True)
    except OSError as error:
        raise HostError(f"{folder} cannot be made: {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Cloned(folder, size, partial, is_empty)


def is_here(url: str) -> bool:
    """Whether a repository is named by its path."""
    return any(Path(f"{url}{ending}").is_dir() for ending in ("", ".git"))


def _called(url: str) -> str:
    """Return how git calls the clone of a URL (git-clone(1), on its directory)."""
    bare = url.rstrip("/").removesuffix("/.git").rstrip("/").replace(":", "/")
    name = bare.rpartition("/")[2].removesuffix(".git").removesuffix(".bundle")
    if not name or name in {".", ".."}:
        raise ConfigError(f"{without_secrets(url)} does not say how to call the clone", "name it")
    return name


def _beginning(folder: Path) -> str:
    """Return how the temporary folder for a clone is called, but for its end."""
    return f".{folder.name}.mirage-hooks-clone."


def _temporaries(folder: Path) -> set[Path]:
    """Return what clones that were killed have left in a folder."""
    beginning = _beginning(folder)
    return {path for path in folder.iterdir() if path.name.startswith(beginning)}


def _refuse_taken(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise HostError(f"{folder} is there, and no folder", "name another folder")
    if folder.exists() and set(folder.absolute().iterdir()) - _temporaries(folder.absolute()):
        raise HostError(f"{folder} is there, and not empty", "name another folder, or remove it")


def _move(made: Path, folder: Path) -> None:
    """Have a clone in a folder; into one that is there, and empty, `.git` comes last."""
    if not folder.exists():
        made.rename(folder)
        return
    for path in sorted(made.iterdir(), key=lambda path: path.name == ".git"):
        path.rename(folder / path.name)


def _clone(url: str, folder: Path, partial: bool) -> bool:
    """Make a clone; return whether there is anything in it. Raises RepositoryError."""
    options = ["--quiet", "--no-checkout", "-c", "=".join(NO_SUMMARY)]
    if partial:
        options.append(filtering.FILTER)
    filtering.ask(url, ".", "clone", *options, "--", url, str(folder), seconds=_SECONDS)
    repository = Repository(folder)
    if not repository.git.head.is_valid():
        _refuse_headless(url, repository)
        return False
    sparse.set_up(folder, repository.revision("HEAD"))
    filtering.ask(url, folder, "checkout", "--quiet", "HEAD", "--", seconds=_SECONDS)
    return True


def _refuse_headless(url: str, repository: Repository) -> None:
    """Raise RepositoryError where there are branches, but not the one that HEAD names."""
    branches = [ref.split("/", 3)[3] for ref in repository.refs("refs/remotes")]
    if branches:
        raise RepositoryError(
            f"HEAD of {without_secrets(url)} names a branch that is not there; "
            f"there are: {', '.join(branches)}",
            f"correct it there: git symbolic-ref HEAD refs/heads/{branches[0]}; or here: git clone "
            "--branch NAME, then mirage-hooks install, and gc --history for a small one",
        )
