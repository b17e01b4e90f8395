"""`plan` and a converge that changes nothing: with 1 and 500 guests, 10 and 5,000 old images.

Every guest is a process that runs. The old images are in the repository's history and in its tree,
a folder each, as CI leaves them. The two histories are one: the second is the first, grown. `plan`
is the command; the converge is the process that a hook starts, from its start to its end.
"""

import subprocess
import sys
import time
from pathlib import Path

from stage import COMMAND, SOURCE, Stage
from table import Budget, Figure

_ROUNDS = 7
_GUESTS = (1, 500)
_IMAGES = (10, 5000)
_MOST_MS = 1000.0
# What may lie between two medians of one thing on a machine that does something else, too.
_FLAT = 1.15
_FIRST_PORT = 20000


def measure(stage: Stage) -> list[Figure]:
    """Return a line for each command, number of guests, and length of history."""
    figures = []
    for guests in _GUESTS:
        fleet = Stage(stage.folder / f"fleet-{guests}", stage.environment)
        try:
            _set_up(fleet, guests, _IMAGES[0])
            before = _time(fleet)
            _add_history(fleet, _IMAGES[1] - _IMAGES[0])
            after = _time(fleet)
        finally:
            fleet.clear_away()
        limit = Budget("median", _MOST_MS)
        for command, samples in before.items():
            name = f"{command}: {guests} guests, {_IMAGES[0]} old images"
            figures.append(Figure(name, "ms", samples, budget=limit))
            name = f"{command}: {guests} guests, {_IMAGES[1]} old images"
            flat = Budget("ratio", _FLAT)
            figures.append(Figure(name, "ms", after[command], samples, "ratio", flat))
    return figures


def _set_up(fleet: Stage, guests: int, images: int) -> None:
    fleet.folder.mkdir()
    fleet.run("git", "init", "-q", fleet.upstream, cwd=fleet.folder)
    image = _image(fleet)
    manifest = []
    for at in range(guests):
        name, port = f"g{at:03d}", _FIRST_PORT + at
        folder = fleet.upstream / name / f"{at:040x}"
        folder.mkdir(parents=True)
        (folder / f"{name}.unix").write_bytes(image + f"{at:08d}".encode())
        (fleet.upstream / name / "latest").write_text(f"{folder.name}\n")
        manifest.append(
            f'[guest.{name}]\ntarget = "unix"\nimage = "{name}/{{latest}}/{name}.unix"\n'
            f'args = ["--ipv4=127.0.0.1/8", "--port={port}"]\n'
            f'[guest.{name}.check]\ntcp = "127.0.0.1:{port}"\nwithin = "30s"\n'
        )
    (fleet.upstream / "mirage-hooks.toml").write_text("".join(manifest))
    fleet.commit("the fleet")
    fleet.clone("ours")
    _add_history(fleet, images)
    fleet.install()
    fleet.mirage_hooks("deploy")


def _image(fleet: Stage) -> bytes:
    """Return the guest, linked dynamically: 500 of it are small."""
    path = fleet.folder / "image"
    fleet.run("cc", "-O2", "-o", path, SOURCE, cwd=fleet.folder)
    return path.read_bytes()


def _add_history(fleet: Stage, images: int) -> None:
    """Add commits that add an image of the first guest each, and leave its pointer alone."""
    begin = len(list((fleet.upstream / "g000").iterdir()))
    head = fleet.run("git", "rev-parse", "HEAD", cwd=fleet.upstream).strip()
    stream = []
    for at in range(begin, begin + images):
        data = f"\x7fELF old {at}"
        folder = f"{at + (1 << 100):040x}"
        stream.append(
            f"commit refs/heads/main\ncommitter B <b@example.org> {1700000000 + at} +0000\n"
            f"data 0\n{f'from {head}' if at == begin else ''}\n"
            f"M 100755 inline g000/{folder}/g000.unix\ndata {len(data)}\n{data}\n"
        )
    subprocess.run(
        ["git", "fast-import", "--quiet"],
        cwd=fleet.upstream,
        env=fleet.environment,
        input="".join(stream).encode(),
        timeout=120,
        check=True,
    )
    fleet.run("git", "reset", "-q", "--hard", cwd=fleet.upstream)
    fleet.run("git", "pull", "-q", "--ff-only", cwd=fleet.ours)
    fleet.run("git", "gc", "-q", cwd=fleet.ours)


def _time(fleet: Stage) -> dict[str, list[float]]:
    """Return milliseconds of each command, taken in turn."""
    converge = (sys.executable, "-I", "-m", "mirage_hooks.boot.converge")
    commands: dict[str, tuple[str | Path, ...]] = {
        "plan": (COMMAND, "plan"),
        "converge": (*converge, fleet.ours / ".git", "benchmark", '{"origin": "pull"}'),
    }
    samples: dict[str, list[float]] = {name: [] for name in commands}
    for at in range(_ROUNDS + 1):
        for name, command in commands.items():
            began = time.monotonic()
            fleet.run(*command, cwd=fleet.ours)
            if at:  # the first fills caches
                samples[name].append((time.monotonic() - began) * 1000)
    return samples
