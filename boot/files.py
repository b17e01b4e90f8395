"""Files that must survive a crash: written whole or not at all.

Shared with the monitor, which stays in memory: it imports nothing but `os`.
"""

import os


def write_atomic(path: str | os.PathLike[str], data: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `data`: a reader, or a crash at any instant, finds the old or the new.

    The rename is made durable by an fsync of the folder: alone it may be lost with the power.
    """
    folder, name = os.path.split(os.fspath(path))
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        _store(descriptor, data)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    sync_folder(folder)


def append_durably(path: str | os.PathLike[str], data: bytes) -> None:
    """Append to a file, made where it is missing; on return it is there for good.

    A crash may leave the beginning of `data`. Raises OSError, on a full disk too.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    _store(os.open(path, flags, 0o600), data)
    sync_folder(os.path.dirname(os.fspath(path)))


def _store(descriptor: int, data: bytes) -> None:
    """Write all of `data`, durably, and close the file."""
    try:
        remaining = memoryview(data)
        while remaining:
            remaining = remaining[os.write(descriptor, remaining) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_abandoned(name: str) -> bool:
    """Whether a file is a temporary one, by its name, of a process that is gone."""
    *_, pid, suffix = ("", *name.split("."))
    temporary = name.startswith(".") and suffix == "new" and pid.isdecimal()
    return temporary and not os.path.exists(f"/proc/{pid}")


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def folder_size(folder: str | os.PathLike[str]) -> int:
    """Return how many bytes the files in a folder have, those in its folders too."""
    size = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                size += os.lstat(os.path.join(path, name)).st_size
            except FileNotFoundError:
                continue  # somebody removes it meanwhile
    return size
