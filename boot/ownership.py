"""Who else may write what is obeyed here: a repository like that is refused, root most of all."""

import grp
import os
import pwd
import shlex
import stat
from collections.abc import Iterable
from pathlib import Path

from mirage_hooks.boot.errors import HostError
from mirage_hooks.boot.users import user_name


def obeyed(common_dir: Path) -> list[Path]:
    """Return what git, or we, do as told by: who may write it may run what they like."""
    return [common_dir / name for name in ("", "config", "config.worktree", "hooks")]


def refuse_foreign(paths: Iterable[Path]) -> None:
    """Raise HostError where one of the paths is somebody else's, or may be written by others.

    One that does not exist is nobody's. What may be written by its group alone is no danger where
    nobody else is in that group, as with a umask of 002 and a group for each user.
    """
    for path in paths:
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        if status.st_uid not in {0, os.geteuid()}:
            raise HostError(
                f"{path} belongs to user {user_name(status.st_uid)}",
                "run this as that user: what they write there would run as you",
            )
        if others := _writers(status):
            raise HostError(
                f"{path} may be written by {others}",
                f"run: chmod go-w {shlex.quote(str(path))}",
            )


def _writers(status: os.stat_result) -> str | None:
    """Return who may write beside the owner, in words, None for nobody."""
    mode = stat.S_IMODE(status.st_mode)
    if mode & stat.S_IWOTH:
        return "everybody"
    if not mode & stat.S_IWGRP:
        return None
    try:
        group = grp.getgrgid(status.st_gid)
    except KeyError:
        return f"group {status.st_gid}"
    members = {
        *group.gr_mem,
        *(one.pw_name for one in pwd.getpwall() if one.pw_gid == group.gr_gid),
    }
    trusted = {user_name(status.st_uid), user_name(os.geteuid()), "root"}
    return f"group {group.gr_name}" if members - trusted else None
