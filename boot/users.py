"""Users, as people know them. Hooks load this: it does without subprocess."""

import os
import pwd

from mirage_hooks.boot.errors import HostError


def user_name(uid: int) -> str:
    """Return a user's name, the number for one without."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def account_of(user: str) -> pwd.struct_passwd:
    """Return a user's account. Raises HostError where there is none."""
    try:
        return pwd.getpwnam(user)
    except (KeyError, ValueError):
        raise HostError(f"user {user!r} does not exist on this host") from None


def uid_of(user: str | None) -> int:
    """Return a user's id, None being who runs this. Raises HostError."""
    return account_of(user).pw_uid if user is not None else os.geteuid()
