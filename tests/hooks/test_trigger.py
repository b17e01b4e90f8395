"""What hooks share: printing for whoever follows, who may read slowly, or have gone."""

import os
import subprocess
import sys
import time

import pytest

# More than a pipe holds (64 KiB), in one piece and in many; then a word on how it ended.
PRINT = """\
import sys
from mirage_hooks.hooks import trigger
trigger._PATIENCE = float(sys.argv[1])
for _ in range(int(sys.argv[2])):
    trigger.say("x" * int(sys.argv[3]))
print("done", flush=True)
"""

SIZES = [(1, 200_000), (2000, 100)]


def start(patience: float, count: int, size: int, stderr: int) -> "subprocess.Popen[bytes]":
    """Start a process that prints as a hook does."""
    return subprocess.Popen(
        [sys.executable, "-c", PRINT, str(patience), str(count), str(size)],
        stdout=subprocess.PIPE,
        stderr=stderr,
    )


@pytest.mark.parametrize(("count", "size"), SIZES)
def test_a_pipe_that_nobody_reads_ends_the_printing(count: int, size: int) -> None:
    read, write = os.pipe()
    process = start(0.2, count, size, write)
    os.close(write)
    try:
        stdout, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        os.close(read)
    assert (stdout, process.returncode) == (b"done\n", 0)


@pytest.mark.parametrize(("count", "size"), SIZES)
def test_a_pipe_whose_reader_has_gone_ends_the_printing(count: int, size: int) -> None:
    read, write = os.pipe()
    os.close(read)
    process = start(20, count, size, write)
    os.close(write)
    stdout, _ = process.communicate(timeout=20)
    assert (stdout, process.returncode) == (b"done\n", 0)


@pytest.mark.parametrize(("count", "size"), SIZES)
def test_a_slow_reader_is_given_every_byte(count: int, size: int) -> None:
    read, write = os.pipe()
    process = start(20, count, size, write)
    os.close(write)
    data = b""
    while chunk := os.read(read, 16384):
        data += chunk
        time.sleep(0.02)
    os.close(read)
    process.communicate(timeout=20)
    assert data == (b"x" * size + b"\n") * count
