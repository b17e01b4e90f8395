"""What publishes: clones of a bare deployment repository, as CI has them."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mirage_hooks.boot.repository import Repository
from mirage_hooks.boot.revision import Revision
from support import COMMAND, run

SCRIPT = b"#!/bin/sh\nexec sleep 1000\n"
FIRST, SECOND, THIRD = "1a" * 20, "2b" * 20, "3c" * 20
DESCRIBED = '[guest.www]\ntarget = "unix"\nimage = "unix/{latest}/www.unix"\n'


def other(number: int) -> bytes:
    """Return another image."""
    return SCRIPT + f"# {number}\n".encode()


@dataclass
class Publisher:
    """A job of CI's: a clone of the deployment repository, and a folder to build in."""

    folder: Path
    clone: Path

    @property
    def upstream(self) -> Path:
        return self.folder / "deployment.git"

    def image(self, content: bytes = SCRIPT, name: str = "built") -> Path:
        """Return an image that was built."""
        path = self.clone.parent / f"{self.clone.name}.{name}"
        path.write_bytes(content)
        return path

    def command(
        self, *options: str | Path, content: bytes = SCRIPT, guest: str = "www", commit: str = FIRST
    ) -> list[str | Path]:
        """Return what CI runs."""
        image = self.image(content)
        source = ["--source-commit", commit] if commit else []
        return [COMMAND, "-C", self.clone, "publish", image, "--guest", guest, *source, *options]

    def publish(
        self,
        *options: str | Path,
        content: bytes = SCRIPT,
        guest: str = "www",
        commit: str = FIRST,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Publish an image."""
        command = self.command(*options, content=content, guest=guest, commit=commit)
        return run(*command, cwd=self.folder, check=check)

    def git(self, *arguments: str | Path, check: bool = True) -> str:
        """Run git in the clone; return what it printed."""
        return run("git", *arguments, cwd=self.clone, check=check).stdout.strip()

    def bring(self, files: Mapping[str, str | bytes]) -> None:
        """Have files at the branch's tip beside what is there, brought by somebody else."""
        other = self.folder / "other"
        if not other.exists():
            run("git", "clone", "-q", self.upstream, other, cwd=self.folder)
        run("git", "pull", "-q", "origin", "main", cwd=other, check=False)
        for path, content in files.items():
            (other / path).parent.mkdir(parents=True, exist_ok=True)
            data = content.encode() if isinstance(content, str) else content
            (other / path).write_bytes(data)
        run("git", "add", "-A", cwd=other)
        run("git", "commit", "-q", "-m", "by hand", cwd=other)
        run("git", "push", "-q", "origin", "HEAD:main", cwd=other)

    @property
    def tip(self) -> Revision:
        """What the deployment repository has."""
        return Repository(self.upstream).tip("main")

    def count(self) -> int:
        """Return how many commits the deployment repository has."""
        listed = run("git", "rev-list", "--count", "main", cwd=self.upstream, check=False)
        return int(listed.stdout or 0)

    def paths(self) -> list[str]:
        """Return the paths at the branch's tip, sorted."""
        listed = run("git", "ls-tree", "-r", "--name-only", "main", cwd=self.upstream)
        return sorted(listed.stdout.splitlines())

    def text(self, path: str) -> str:
        """Return a file at the branch's tip."""
        return run("git", "show", f"main:{path}", cwd=self.upstream).stdout


def make_upstream(folder: Path) -> Path:
    """Make an empty deployment repository."""
    upstream = folder / "deployment.git"
    run("git", "init", "-q", "--bare", upstream, cwd=folder)
    return upstream


def make_publisher(folder: Path, name: str = "job", *options: str) -> Publisher:
    """Return a job with a fresh clone."""
    url = f"file://{folder / 'deployment.git'}"
    run("git", "clone", "-q", *options, url, name, cwd=folder)
    return Publisher(folder, folder / name)
