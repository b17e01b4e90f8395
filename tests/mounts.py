"""Mounts of a test's own, that no other process sees and that are gone with it."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import run

# Linux's sched.h. Python has os.unshare and os.setns from 3.12 on.
_CLONE_NEWNS = 0x00020000
_LIBC = ctypes.CDLL(None, use_errno=True)


@contextmanager
def mount_namespace() -> Iterator[None]:
    """Be, with this thread and what it starts, where mounts are nobody else's.

    Skips the test where this machine does not allow it.
    """
    outside = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    folder = Path.cwd()
    try:
        if _LIBC.unshare(_CLONE_NEWNS) != 0:
            pytest.skip(f"mounts of its own: {os.strerror(ctypes.get_errno())}")
        run("mount", "--make-rprivate", "/", cwd=Path("/"))
        try:
            yield
        finally:
            if _LIBC.setns(outside, _CLONE_NEWNS) != 0:
                raise OSError(ctypes.get_errno(), "the way back to the machine's own mounts")
            os.chdir(folder)  # setns(2) leads to the root
    finally:
        os.close(outside)


def small_disk(folder: Path, size: str) -> None:
    """Mount an empty file system of a size, such as 8m, on a folder that is made."""
    folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder), cwd=Path("/"))


def cover(path: Path, by: Path) -> None:
    """Have a file in place of another one."""
    run("mount", "--bind", str(by), str(path), cwd=Path("/"))
