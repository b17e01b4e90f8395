"""Users, as people know them, and what is open to them."""

import os
import pwd
from pathlib import Path

from mirage_hooks.boot.errors import HostError


def user_name(uid: int) -> str:
    """Return a user's name, the number for one without."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def refuse_closed(path: str, user: str | None) -> None:
    """Raise HostError where a user, None being who runs this, cannot read and write a file."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise HostError(f"{path} cannot be used: {error.strerror}") from None
    account = pwd.getpwnam(user) if user is not None else None
    if account is None:
        open_to = os.access(path, os.R_OK | os.W_OK, effective_ids=True)
    elif status.st_uid == account.pw_uid:
        open_to = status.st_mode & 0o600 == 0o600
    elif status.st_gid in os.getgrouplist(account.pw_name, account.pw_gid):
        open_to = status.st_mode & 0o060 == 0o060
    else:
        open_to = status.st_mode & 0o006 == 0o006
    if not open_to:
        raise HostError(f"{path} is closed to user {user or user_name(os.geteuid())}")
