"""What it costs to verify one image of 10 MB, as committed (bzip2), beside unpacking it alone.

`bunzip2` of the same file, into a file, is the least that any verifying of it has to do. The two
take turns. The image is the compiled guest with as many bytes behind it as make the packed file 10
MB; they pack at about the rate that MirageOS images do, 1:2.5.
"""

import bz2
import random
import subprocess
import time
from pathlib import Path

from stage import COMMAND, Stage
from table import Budget, Figure

# One run alone differs by a third on a shared machine.
_ROUNDS = 31
_WARM_UP = 1
_PACKED_BYTES = 10_000_000
_RATIO = 1.3


def measure(stage: Stage) -> list[Figure]:
    """Return the line: seconds that `mirage-hooks verify` takes, and `bunzip2`."""
    clone, packed = _prepare(stage)
    verified: list[float] = []
    unpacked: list[float] = []
    for at in range(_WARM_UP + _ROUNDS):
        samples = _verify(stage, clone), _unpack(stage, packed)
        if at >= _WARM_UP:
            verified.append(samples[0])
            unpacked.append(samples[1])
    budget = Budget("ratio", _RATIO)
    return [Figure("verify: one image, beside bunzip2", "s", verified, unpacked, "ratio", budget)]


def _prepare(stage: Stage) -> tuple[Path, Path]:
    """Make a repository, not installed in, with the image committed; return it and the file."""
    clone, packed = stage.folder / "verify", stage.folder / "verify" / "www.unix.bz2"
    stage.run("git", "init", "-q", clone, cwd=stage.folder)
    packed.write_bytes(_image(stage.image("one").read_bytes()))
    (clone / "mirage-hooks.toml").write_text(
        '[guest.www]\ntarget = "unix"\nimage = "www.unix.bz2"\n'
    )
    stage.run("git", "add", "-A", cwd=clone)
    stage.run("git", "commit", "-q", "-m", "adding an image", cwd=clone)
    return clone, packed


def _image(program: bytes) -> bytes:
    """Return a program, packed, with so much behind it that it has 10 MB."""
    source = random.Random(0)
    packer = bz2.BZ2Compressor()
    packed = packer.compress(program)
    while len(packed) < _PACKED_BYTES:
        packed += packer.compress(_code(source))
    return packed + packer.flush()


def _code(source: random.Random) -> bytes:
    """Return 64 KiB that pack like machine code: words that come again, some that never did."""
    known = [source.randbytes(source.randint(2, 12)) for _ in range(400)]
    pieces = (
        source.randbytes(3) if source.random() < 0.08 else source.choice(known) for _ in range(9362)
    )
    return b"".join(pieces)


def _verify(stage: Stage, clone: Path) -> float:
    return _timed(stage, [str(COMMAND), "-C", str(clone), "verify"])


def _unpack(stage: Stage, packed: Path) -> float:
    with (stage.folder / "verify.out").open("wb") as output:
        return _timed(stage, ["bunzip2", "--stdout", str(packed)], output.fileno())


def _timed(stage: Stage, command: list[str], output: int = subprocess.DEVNULL) -> float:
    began = time.monotonic()
    code = subprocess.call(
        command, cwd=stage.folder, env=stage.environment, stdin=subprocess.DEVNULL, stdout=output
    )  # no timeout: with one, subprocess polls, in steps of up to 50 ms
    seconds = time.monotonic() - began
    if code != 0:
        raise RuntimeError(f"{command} ended with {code}")
    return seconds
