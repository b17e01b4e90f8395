"""Where control sockets live: a short path, private, gone after a reboot."""

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from mirage_hooks.boot.errors import HostError

# sockaddr_un holds 108 bytes, the last of them a NUL (unix(7)).
_SOCKET_PATH_BYTES = 107
_SOCKET_NAME_BYTES = 24


def folder(common_dir: Path) -> Path:
    """Return, made where it is missing, the folder for a repository's sockets.

    It is `/run/mirage-hooks/ID` for root, else in XDG_RUNTIME_DIR or /run/user/UID, else in /tmp:
    the first that is ours, and short enough. Raises HostError where none is.
    """
    identity = hashlib.sha256(os.fsencode(common_dir)).hexdigest()[:12]
    for base in _bases():
        path = base / "mirage-hooks" / identity
        if len(os.fsencode(path)) + 1 + _SOCKET_NAME_BYTES <= _SOCKET_PATH_BYTES and _is_ours(base):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            return path
    raise HostError("there is no folder for control sockets: neither /run nor /tmp can be used")


def socket_path(common_dir: Path, guest: str, number: int) -> str:
    """Return where a generation's control socket goes."""
    return str(folder(common_dir) / f"{hashlib.sha256(guest.encode()).hexdigest()[:8]}-{number}")


def remove(common_dir: Path) -> None:
    """Delete a repository's socket folder, and those it is in if nothing else is left there."""
    path = folder(common_dir)
    for socket in path.iterdir():
        socket.unlink(missing_ok=True)
    path.rmdir()
    with contextlib.suppress(OSError):
        path.parent.rmdir()
        _private().rmdir()


def _bases() -> Iterator[Path]:
    uid = os.geteuid()
    if given := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(given)
    yield Path("/run") if uid == 0 else Path(f"/run/user/{uid}")
    private = _private()
    try:
        private.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return
    yield private


def _private() -> Path:
    return Path(f"/tmp/mirage-hooks-{os.geteuid()}")  # noqa: S108 - checked by _is_ours


def _is_ours(base: Path) -> bool:
    try:
        status = base.lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and not stat.S_IMODE(status.st_mode) & 0o022
        and os.access(base, os.W_OK)
    )
