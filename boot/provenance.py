"""Where a published image comes from: as trailers of its commit, and beside it in the tree.

Trailers are as git-interpret-trailers(1) reads them. The same facts are comments of the file that
sha256sum(1) checks the image by, where they can be read without the history, as in a shallow clone.
"""

import re
from dataclasses import dataclass

from mirage_hooks.boot.console import harmless
from mirage_hooks.boot.fetching import without_secrets
from mirage_hooks.boot.guest import Target, short

_COMMENT = re.compile(r"# ([A-Za-z-]+): (.*)")
_ENDING = ".sha256"

PUBLISHED, SOURCE_COMMIT = "Published", "Source-Commit"


@dataclass(frozen=True)
class Origin:
    """The commit that an image was built from, where that is, and the CI run that built it."""

    commit: str
    repository: str = ""
    run: str = ""


@dataclass(frozen=True)
class Publication:
    """An image as it is published: at a path, and its sha256, in hex, unpacked and packed."""

    guest: str
    target: Target
    path: str
    image: str
    packed: str
    origin: Origin

    def message(self) -> str:
        """Return the commit's message."""
        subject = f"publish {self.guest} for {self.target}: {short(self.origin.commit)}"
        return "\n".join([subject, "", *(f"{key}: {value}" for key, value in self._facts()), ""])

    def checksum(self, now: str) -> str:
        """Return the text of the file beside the image; `now` is a date that sorts as text."""
        facts = [*self._facts(), (PUBLISHED, now)]
        file = self.path.rpartition("/")[2]
        return "".join(f"# {key}: {value}\n" for key, value in facts) + f"{self.packed}  {file}\n"

    def _facts(self) -> list[tuple[str, str]]:
        facts = {
            "Guest": self.guest,
            "Target": self.target,
            "Image": self.path,
            "Image-Digest": f"sha256:{self.image}",
            "Source-Repository": self.origin.repository,
            SOURCE_COMMIT: self.origin.commit,
            "CI-Run": self.origin.run,
        }
        # A line break in a variable would end the trailer.
        said = {key: without_secrets(harmless(value)) for key, value in facts.items()}
        return [(key, value) for key, value in said.items() if value]


def checksum_path(image: str) -> str:
    """Return where the file beside an image is."""
    return image + _ENDING


def read(checksum: str) -> dict[str, str]:
    """Return the facts that the text of such a file holds."""
    return dict(_COMMENT.findall(checksum))
