"""Volumes: the files and devices of this host that are block devices of guests."""

import os
import shlex
import shutil
import stat
from collections.abc import Container
from pathlib import Path

from mirage_hooks.boot import access, ownership, users
from mirage_hooks.boot.errors import HostError

# Solo5 takes block devices of whole sectors (tenders/common/block_attach.c).
SECTOR_BYTES = 512


def refuse_unfit(path: str) -> None:
    """Raise HostError where a volume cannot be a block device."""
    quoted = shlex.quote(path)
    try:
        mode = Path(path).stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
            raise HostError(f"volume {path} is neither a file nor a block device")
        with Path(path).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
    except FileNotFoundError:
        raise HostError(
            f"volume {path} does not exist", f"such as: truncate --size=16M {quoted}"
        ) from None
    except OSError as error:
        raise HostError(f"volume {path} cannot be used: {error.strerror}") from None
    if size == 0:
        raise HostError(f"volume {path} is empty", f"such as: truncate --size=16M {quoted}")
    if size % SECTOR_BYTES:
        raise HostError(
            f"volume {path} has {size} bytes: not a number of whole sectors of {SECTOR_BYTES}",
            f"run: truncate --size=%{SECTOR_BYTES} {quoted}",
        )


def refuse_closed(path: str, user: str | None, readonly: bool) -> None:
    """Raise HostError where a guest's user, None being who runs this, cannot use a volume."""
    hint = f"run as root: chown {user or users.user_name(os.geteuid())} {shlex.quote(path)}"
    access.refuse_closed(path, user, "r" if readonly else "rw", hint)


def refuse_torn(path: str, written: Container[str]) -> None:
    """Raise HostError where a copy of a volume would be torn: a guest that runs writes it."""
    if os.path.realpath(path) in written:
        raise HostError(
            f"volume {path} is to be copied for a guest that only reads it, but one that runs "
            "writes it: the copy would be torn",
            "stop that one first: mirage-hooks stop GUEST",
        )


def copy(path: str, to: Path, user: str | None) -> None:
    """Copy a volume for one guest alone, that runs as a user. Raises HostError.

    It may be closed to that user; so they must not choose what is copied, by a link in its place.
    """
    try:
        if user is not None:
            ownership.refuse_foreign([Path(path).parent, Path(path).resolve().parent])
    except HostError as error:
        raise HostError(
            f"volume {path} is not copied for user {user}: {error.message}",
            "keep it in a folder that nobody but root may write",
        ) from None
    try:
        shutil.copyfile(path, to)
        to.chmod(0o600)
        if user is not None:
            shutil.chown(to, user)
    except OSError as error:
        raise HostError(f"volume {path} cannot be copied: {error.strerror}") from None
