"""Solo5's own tenders and images for them, where this machine has both.

MIRAGE_HOOKS_TEST_IMAGES names a folder of images, `*.spt` and `*.hvt`, each with one device: a
network. They take their address as MirageOS's do, but for `test_net.*` of Solo5's own tests, which
has 10.0.0.2 compiled in.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

VARIABLE = "MIRAGE_HOOKS_TEST_IMAGES"
TARGETS: tuple[Literal["spt", "hvt"], ...] = ("spt", "hvt")


@dataclass(frozen=True)
class Real:
    """An image, and the tender that is to run it."""

    target: Literal["spt", "hvt"]
    tender: str
    image: Path

    def __str__(self) -> str:
        return f"{self.tender}, {self.image.name}"

    @property
    def device(self) -> str:
        """What the manifest says of its address."""
        return "baked = true" if self.image.stem == "test_net" else 'address = "10.0.0.2/24"'


def found() -> list[Real]:
    """Return what this machine has."""
    folder = Path(os.environ.get(VARIABLE, "/nonexistent"))
    return [
        Real(target, tender, image)
        for target in TARGETS
        if (tender := shutil.which(f"solo5-{target}")) is not None
        for image in sorted(folder.glob(f"*.{target}"))
    ]


def header() -> list[str]:
    """Return a line for each tender, on who plays it in these tests."""
    real = found()
    lines = []
    for target in TARGETS:
        images = [one.image.name for one in real if one.target == target]
        also = f"and the real one with {', '.join(images)}" if images else "the real one is not"
        lines.append(f"solo5-{target}: a stand-in is tried, {also}")
    return lines
