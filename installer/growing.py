"""Logs that grow, and are set aside as `.1` when they are full: what they hold, and what comes."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

_PAUSE = 0.1


def lines(
    path: Path, last: int, follow: bool, ended: Callable[[], bool] = lambda: False
) -> Iterator[str]:
    """Yield the last lines of a log; then, to `follow`, what it gets until it has `ended`.

    Read from one open file, over its rotation: nothing is lost between the two.
    """
    kept: deque[str] = deque(maxlen=last)
    aside = path.with_name(f"{path.name}.1")
    if aside.exists():
        with _open(aside) as old:
            kept.extend(_complete(old))
    file = _open(path) if path.exists() else None
    if file is not None:
        kept.extend(_complete(file))
    yield from kept
    while follow:
        over = ended()
        if file is not None:
            rotated = not _is(file, path)
            yield from _complete(file)
            if rotated:
                file.close()
                file = None
        if file is None and path.exists():
            file = _open(path)
        elif over:
            return
        else:
            time.sleep(_PAUSE)


def _open(path: Path) -> TextIO:
    return path.open(encoding="utf-8", errors="replace")


def _is(file: TextIO, path: Path) -> bool:
    """Whether an open file is still the one under its name."""
    return (
        path.exists() and path.stat().st_ino == Path(f"/proc/self/fd/{file.fileno()}").stat().st_ino
    )


def _complete(file: TextIO) -> Iterator[str]:
    """Yield the lines that have come to their end; leave a last one that has not for later."""
    while True:
        position = file.tell()
        line = file.readline()
        if not line.endswith("\n"):
            file.seek(position)
            return
        yield line.removesuffix("\n")
