"""What is open to a user."""

import os
import pwd
import subprocess

from mirage_hooks.boot.errors import HostError
from mirage_hooks.boot.users import account_of, user_name

_WORDS = {"r": "read", "w": "write", "x": "execute"}


def refuse_closed(path: str, user: str | None, need: str = "rw", hint: str = "") -> None:
    """Raise HostError where a file is closed to a user, None being who runs this.

    `need` is for what it is to be open, in letters of "rwx". The file may be in a folder that the
    user cannot enter. It is tried by test(1), as that user: access control lists count, too. `hint`
    says how to open it.
    """
    account = account_of(user) if user is not None and os.geteuid() == 0 else None
    try:
        file = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"{path} cannot be used: {error.strerror}") from None
    try:
        closed = [each for each in need if not _is_open(f"-{each}", file, account)]
    finally:
        os.close(file)
    if closed:
        who = user or user_name(os.geteuid())
        words = " and ".join(_WORDS[each] for each in closed)
        raise HostError(f"{path} is closed to user {who}, who has to {words} it", hint)


def _is_open(test: str, file: int, account: pwd.struct_passwd | None) -> bool:
    groups = os.getgrouplist(account.pw_name, account.pw_gid) if account is not None else None
    tried = subprocess.run(
        ["test", test, f"/proc/self/fd/{file}"],
        pass_fds=[file],
        user=account.pw_uid if account is not None else None,
        group=account.pw_gid if account is not None else None,
        extra_groups=groups,
        check=False,
    )
    return tried.returncode == 0
