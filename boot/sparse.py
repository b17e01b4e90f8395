"""A work tree without images: they are read from git's objects, and a pull need not fetch them."""

import contextlib
import re
from pathlib import Path

from mirage_hooks.boot import artifact, bounded, convention, description
from mirage_hooks.boot.errors import Error, RepositoryError
from mirage_hooks.boot.fetching import explained
from mirage_hooks.boot.repository import text_file
from mirage_hooks.boot.revision import Revision

# What is left in the work tree is fetched first, where it is not here.
_SECONDS = 600


def patterns(revision: Revision) -> list[str]:
    """Return which files a work tree has, as git-sparse-checkout(1) takes it: all but images.

    Images are told by their names, and by what the manifest of a revision calls one.
    """
    named: set[str] = set()
    with contextlib.suppress(Error):  # no manifest, or an unsound one
        for guest in description.describe(revision, {}) or []:
            named |= {guest.image, *guest.disks.values()}
    globs = [*convention.IMAGES, *convention.DISKS, *(_glob(path) for path in sorted(named))]
    return ["/*", *(f"!{glob}" for glob in globs)]


def set_up(tree: Path, revision: Revision) -> None:
    """Have a work tree be without images. What was changed there stays. Raises RepositoryError."""
    with text_file("".join(f"{pattern}\n" for pattern in patterns(revision))) as lines:
        code, said = bounded.git(
            tree,
            *("sparse-checkout", "set", "--no-cone", "--stdin"),
            seconds=_SECONDS,
            environment=bounded.SILENT,
            stdin=lines,
        )
    if code:
        why = explained(code, said, _SECONDS)
        raise RepositoryError(f"{tree} cannot be without images: {why}")


def _glob(image: str) -> str:
    """Return the pattern of gitignore(5) for an image path, whatever its pointers hold."""
    literal = re.sub(r"([*?\[\\ ])", r"\\\1", image)
    return "/" + literal.replace(artifact.PLACE, "*")
