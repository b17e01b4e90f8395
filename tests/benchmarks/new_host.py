"""What a new host takes to have the newest of 200 images of 3 MB, beside `git clone` and its work.

Both clone from a git daemon: on loopback, where nothing is slow but the machine, and at 100 Mbit/s,
in a namespace. To have the image means for us `mirage-hooks clone`, and the image verified in the
store; for git that it has come, with all others. Bytes are those of git's objects: what comes stays
there. Images are random behind the guest's program, which nothing packs.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stage import COMMAND, Stage, free_port
from table import Budget, Figure

from mirage_hooks.boot.files import folder_size
from namespace import Namespace, missing_for_namespaces

_IMAGES = 200
_BYTES = 3_000_000
_ROUNDS = 3
_RATE = "100mbit"
_BUDGET = Budget("ratio", 0.05)

# What a deploy does to have an image prepared.
_STORE = """
import sys
from pathlib import Path
from mirage_hooks.boot import artifact
from mirage_hooks.boot.repository import Repository
from mirage_hooks.boot.store import Store
blob = artifact.locate(Repository(sys.argv[1]).tip("main"), "unix/{latest}/www.unix").blob
Store(Path(sys.argv[2]), 1 << 30).add(blob)
"""


def measure(stage: Stage) -> list[Figure]:
    """Return bytes and seconds until the newest image is there, and those of `git clone`."""
    folder = stage.folder / "new-host"
    folder.mkdir()
    _publish(stage, folder / "upstream")
    figures = _compare(stage, folder, "loopback", None)
    with _link() as linked:
        if linked:
            figures += _compare(stage, folder, _RATE, _BUDGET)
    shutil.rmtree(folder)
    return figures


def _compare(stage: Stage, folder: Path, link: str, budget: Budget | None) -> list[Figure]:
    """Clone in turn over a link; `budget` is that of the seconds."""
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    with _daemon(stage, folder) as url:
        for _ in range(_ROUNDS):
            theirs.append(_timed(stage, folder, ["git", "clone", "-q", url, "clone"]))
            store = [sys.executable, "-I", "-c", _STORE, "clone", "store"]
            ours.append(_timed(stage, folder, [str(COMMAND), "clone", url, "clone"], store))
    name = f"new host: newest of {_IMAGES} images, {link}"
    return [
        Figure(name, "s", [one for one, _ in ours], [one for one, _ in theirs], budget=budget),
        Figure(name, "MB", [one for _, one in ours], [one for _, one in theirs], budget=_BUDGET),
    ]


@contextmanager
def _link() -> Iterator[bool]:
    """Have a loopback that is as slow as many a host's uplink; False where there can be none."""
    if (missing := missing_for_namespaces()) is not None:
        print(f"no new host at {_RATE}: {missing}")
        yield False
        return
    namespace = Namespace()
    try:
        bucket = ("rate", _RATE, "burst", "128kb", "latency", "50ms")
        namespace.run("tc", "qdisc", "add", "dev", "lo", "root", "tbf", *bucket)
        with namespace.entered():
            yield True
    finally:
        namespace.end()


def _publish(stage: Stage, upstream: Path) -> None:
    """Make a repository in which image after image was published."""
    stage.run("git", "init", "-q", "--bare", upstream, cwd=stage.folder)
    stage.run("git", "config", "uploadpack.allowFilter", "true", cwd=upstream)
    program = stage.image("one").read_bytes()
    command = ["git", "-c", "core.compression=0", "fast-import", "--quiet"]
    with subprocess.Popen(
        command, cwd=upstream, env=stage.environment, stdin=subprocess.PIPE
    ) as importing:
        assert importing.stdin is not None
        for at in range(_IMAGES):
            image = program + os.urandom(_BYTES - len(program))
            files = {f"unix/{at:040x}/www.unix": image, "unix/latest": f"{at:040x}\n".encode()}
            importing.stdin.write(
                f"commit refs/heads/main\ncommitter B <b@example.org> {at} +0000\n".encode()
            )
            importing.stdin.write(b"data 5\nimage\n")
            for path, content in files.items():
                importing.stdin.write(f"M 100644 inline {path}\ndata {len(content)}\n".encode())
                importing.stdin.write(content + b"\n")
    if importing.returncode != 0:
        raise RuntimeError(f"git fast-import ended with {importing.returncode}")


@contextmanager
def _daemon(stage: Stage, folder: Path) -> Iterator[str]:
    """Serve the repository; give its URL."""
    port = free_port()
    command = ["git", "daemon", "--export-all", f"--base-path={folder}", f"--port={port}"]
    with subprocess.Popen(
        [*command, "--listen=127.0.0.1", "--reuseaddr"],
        env=stage.environment,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as daemon:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        yield f"git://127.0.0.1:{port}/upstream"
        os.killpg(daemon.pid, 15)


def _timed(stage: Stage, folder: Path, *commands: list[str]) -> tuple[float, float]:
    """Run commands that make `clone`; return their seconds, and its objects' MB."""
    began = time.monotonic()
    for command in commands:
        stage.run(*command, cwd=folder)
    seconds = time.monotonic() - began
    size = folder_size(folder / "clone" / ".git" / "objects") / 1e6
    for name in ("clone", "store"):
        shutil.rmtree(folder / name, ignore_errors=True)
    return seconds, size
