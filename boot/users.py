"""Users, as people know them."""

import pwd


def user_name(uid: int) -> str:
    """Return a user's name, the number for one without."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
