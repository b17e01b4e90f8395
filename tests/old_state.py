"""A state folder as an earlier version left it, and the repository that it belongs to.

tests/data/state-1 was written by commit 4982262, whose command this was given:

    python tests/old_state.py OLD/bin/mirage-hooks tests/data/state-1

Two states of a guest were healthy; a third failed, and was rolled back. Then the host went down.
The images are beside this, as the repository has them: dates and names are fixed, and so are the
ids of its commits and blobs. Paths are as if it had been in /srv/deployment.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mirage_hooks.boot.process import boot_id

DATA = Path(__file__).parent / "data" / "state-1"

MANIFEST = """\
[guest.www]
target = "unix"
image = "unix/{latest}/www.unix"

[guest.www.check]
alive = "200ms"
"""

# Small, and readable; the third dies as it starts.
IMAGES = {
    "one": b"#!/bin/sh\necho I am one\nexec sleep 1000\n",
    "two": b"#!/bin/sh\necho I am two\nexec sleep 1000\n",
    "three": b"#!/bin/sh\necho I am broken\nexit 2\n",
}

_ANOTHER_BOOT = "00000000-0000-4000-8000-000000000000"
_TEXT = {".json", ".jsonl", ".toml", ".log", ""}


def _git(folder: Path, *arguments: str) -> None:
    # Whoever runs this, whenever: the ids of commits are in the records.
    names = {
        f"GIT_{who}_{what}": text
        for who in ("AUTHOR", "COMMITTER")
        for what, text in (
            ("NAME", "CI"),
            ("EMAIL", "ci@example.org"),
            ("DATE", "2026-01-01T00:00:00Z"),
        )
    }
    subprocess.run(["git", *arguments], cwd=folder, env={**os.environ, **names}, check=True)


def publish(upstream: Path, name: str, image: bytes) -> None:
    """Commit an image, and the pointer to it."""
    folder = upstream / "unix" / name
    folder.mkdir(parents=True)
    (folder / "www.unix").write_bytes(image)
    (upstream / "unix" / "latest").write_text(f"{name}\n")
    _git(upstream, "add", "-A")
    _git(upstream, "commit", "-q", "-m", name)


def history(upstream: Path) -> Iterator[str]:
    """Make the repository again, a commit for each image; yield the name of each."""
    _git(upstream.parent, "init", "-q", "-b", "main", str(upstream))
    (upstream / "mirage-hooks.toml").write_text(MANIFEST)
    for name, image in IMAGES.items():
        publish(upstream, name, image)
        yield name


def restore(folder: Path) -> tuple[Path, Path]:
    """Return an upstream, and a clone of it with the state folder as it was."""
    upstream, clone = folder / "upstream", folder / "clone"
    for _ in history(upstream):
        pass
    _git(folder, "clone", "-q", str(upstream), str(clone))
    state = clone / ".git" / "mirage-hooks"
    shutil.copytree(DATA, state)
    for path in (state, *state.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
        if os.geteuid() != 0 and path.suffix in {".json", ".toml"}:
            # Written as root, whose guests have a user of their own.
            text = path.read_text().replace('"user":"nobody",', "").replace('user = "nobody"', "")
            path.write_text(text)
    return upstream, clone


def _record(command: str, into: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="mh-") as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        os.environ |= {"XDG_RUNTIME_DIR": scratch, "HOME": scratch}
        upstream, clone = folder / "upstream", folder / "clone"
        for number, _ in enumerate(history(upstream)):
            if number == 0:
                _git(folder, "clone", "-q", str(upstream), str(clone))
                subprocess.run([command, "install", "--user", "nobody"], cwd=clone, check=True)
                subprocess.run([command, "deploy"], cwd=clone, check=True)
            else:
                _git(clone, "pull", "-q")
        state = clone / ".git" / "mirage-hooks"
        shutil.copytree(state, into, ignore=shutil.ignore_patterns("store", "lock", "runs"))
        subprocess.run([command, "stop", "--all"], cwd=clone, check=True)
        for path in into.rglob("*"):
            if path.is_file() and path.suffix in _TEXT:
                text = path.read_text().replace(str(clone), "/srv/deployment")
                path.write_text(text.replace(scratch, "/run").replace(boot_id(), _ANOTHER_BOOT))


if __name__ == "__main__":
    _record(sys.argv[1], Path(sys.argv[2]))
