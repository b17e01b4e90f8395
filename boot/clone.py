"""A clone that stays small: without images, but for those that are deployed from it."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mirage_hooks.boot import bounded, filtering, sparse
from mirage_hooks.boot.errors import ConfigError, HostError
from mirage_hooks.boot.fetching import without_secrets
from mirage_hooks.boot.files import folder_size
from mirage_hooks.boot.repository import Repository

# Where a server cannot filter, all of its history comes.
_SECONDS = 3600
# A summary of a merge, as `git pull` prints it, looks into the old images and into the new ones.
NO_SUMMARY = ("merge.stat", "false")


@dataclass(frozen=True)
class Cloned:
    """A clone that was made: where, of how many bytes, and whether old images were left out."""

    folder: Path
    size: int
    partial: bool


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
    temporary = whole.with_name(f".{whole.name}.{os.getpid()}.new")
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        _clone(url, temporary, partial)
        size = folder_size(temporary)
        _move(temporary, folder)
    except OSError as error:
        raise HostError(f"{folder} cannot be made: {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Cloned(folder, size, partial)


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


def _refuse_taken(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise HostError(f"{folder} is there, and no folder", "name another folder")
    if folder.exists() and any(folder.iterdir()):
        raise HostError(f"{folder} is there, and not empty", "name another folder, or remove it")


def _move(made: Path, folder: Path) -> None:
    """Have a clone in a folder; into one that is there, and empty, `.git` comes last."""
    if not folder.exists():
        made.rename(folder)
        return
    for path in sorted(made.iterdir(), key=lambda path: path.name == ".git"):
        path.rename(folder / path.name)


def _clone(url: str, folder: Path, partial: bool) -> None:
    options = ["--quiet", "--no-checkout", "-c", "=".join(NO_SUMMARY)]
    if partial:
        options.append(filtering.FILTER)
    _git(url, Path(), "clone", *options, "--", url, str(folder))
    repository = Repository(folder)
    if repository.git.head.is_valid():
        sparse.set_up(folder, repository.revision("HEAD"))
        _git(url, folder, "checkout", "--quiet", "HEAD", "--")


def _git(url: str, folder: Path, *arguments: str) -> None:
    """Run git for a clone of a URL. Raises RepositoryError."""
    code, said = bounded.git(folder, *arguments, seconds=_SECONDS, environment=bounded.SILENT)
    if code:
        raise filtering.unreachable(url, code, said, _SECONDS)
