"""One converger per repository, and who it is."""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mirage_hooks.boot.process import ProcessId, identify


@contextmanager
def hold(path: Path, reason: str, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold the repository's lock, waiting for whoever has it.

    `flock`, never `lockf`: the lock belongs to the open file and is not lost when another
    descriptor of it is closed (flock(2)). The descriptor is not inherited by children (PEP 446).
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting(holder(path) or "another converge")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        me = identify(os.getpid())
        owner = {
            "pid": me.pid,
            "boot": me.boot,
            "start": me.start,
            "reason": reason,
            "since": time.time(),
        }
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(owner).encode(), 0)
        try:
            yield
        finally:
            os.truncate(descriptor, 0)
    finally:
        os.close(descriptor)


def holder(path: Path) -> str | None:
    """Return who holds the lock, in words; None for nobody."""
    try:
        owner = json.loads(path.read_bytes())
        process = ProcessId(owner["boot"], owner["pid"], owner["start"])
        passed = time.time() - owner["since"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return f"{owner['reason']} (pid {process.pid}, for {passed:.0f} s)" if process.alive else None
