"""Installations of mirage-hooks as users have them: in a virtual environment of their own."""

import io
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# The last commit before records, orders and monitors' states were first promised to be read.
OLD = "4982262"

_SOURCES = ["boot", "hooks", "installer", "mirage_hooks"]
_FILES = ["setup.cfg", "pyproject.toml", "README.md", "LICENSE"]


@dataclass(frozen=True)
class Installation:
    """A virtual environment, and the sources that are installed into it."""

    folder: Path
    sources: Path

    @property
    def command(self) -> Path:
        """The command line."""
        return self.folder / "bin" / "mirage-hooks"

    def install(self, *options: str) -> None:
        """Install the sources with pip; nothing is fetched."""
        command = [sys.executable, "-m", "pip", "--python", f"{self.folder}/bin/python"]
        offline = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
        done = subprocess.run(
            [*command, "install", *offline, *options, str(self.sources)],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        if done.returncode != 0:
            pytest.fail(f"pip cannot install {self.sources}:\n{done.stdout}{done.stderr}")


def make(folder: Path, sources: Path) -> Installation:
    """Install sources into a new environment, which has what they need from that of the tests."""
    made = Installation(folder / "venv", sources)
    venv.create(made.folder, symlinks=True)
    needed = folder / "needed"
    needed.mkdir()
    ours = Path(sysconfig.get_path("purelib"))
    for entry in ours.iterdir():
        # Not the one that the tests run, nor how it is found.
        if "mirage_hooks" not in entry.name and entry.suffix != ".pth":
            (needed / entry.name).symlink_to(entry)
    packages = made.folder / ours.relative_to(sys.prefix)
    (packages / "needed.pth").write_text(f"{needed}\n")
    made.install()
    return made


def present_sources(folder: Path) -> Path:
    """Return a copy of the present code: building leaves files in its folder."""
    copy = folder / "present"
    copy.mkdir()
    for name in _SOURCES:
        shutil.copytree(
            ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in _FILES:
        shutil.copy(ROOT / name, copy)
    return copy


def old_sources(folder: Path) -> Path:
    """Return the code as it was at OLD; skip where this clone does not have it."""
    done = subprocess.run(["git", "archive", OLD], cwd=ROOT, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"git has no commit {OLD} here: {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder / "old", filter="fully_trusted")
    return folder / "old"
