"""Faults of the host that kept a guest from being prepared: tried again, but not at every converge.

What is merely missing, such as a bridge or room on a disk, may be there again in a minute. Trying
costs: an image is read, a monitor started.
"""

from datetime import UTC, datetime

import msgspec

from mirage_hooks.boot.errors import (
    ConfigError,
    Error,
    HostError,
    ImageError,
    RepositoryError,
)

_FIRST, _LONGEST = 60.0, 3600.0
_KINDS = {
    kind.exit_code: kind for kind in (Error, ConfigError, RepositoryError, ImageError, HostError)
}


class Fault(msgspec.Struct, frozen=True):
    """What kept a boot digest from being prepared, on a host whose file has the digest `host`.

    `count` is how often in a row, `next` when it is tried again; seconds since the epoch.
    """

    digest: str
    host: str
    count: int
    next: float
    message: str
    hint: str
    exit_code: int

    def postpones(self, digest: str, host: str, now: float) -> bool:
        """Whether a boot is not to be tried yet. A clock that was set back postpones nothing."""
        unchanged = (digest, host) == (self.digest, self.host)
        return unchanged and 0 < self.next - now <= _LONGEST

    @property
    def error(self) -> Error:
        """What was said of it."""
        return _KINDS.get(self.exit_code, Error)(self.message, self.hint)

    @property
    def when(self) -> str:
        """When it is tried again, in words."""
        moment = datetime.fromtimestamp(self.next, UTC).isoformat(timespec="seconds")
        return f"tried again from {moment} on, or by `mirage-hooks deploy`"


def again(before: Fault | None, digest: str, host: str, error: Error, now: float) -> Fault:
    """Return the fault that a try in vain has left, after the one before it.

    The pause doubles, from a minute to an hour, while boot and host file stay what they are.
    """
    same = before is not None and (before.digest, before.host) == (digest, host)
    count = before.count + 1 if before is not None and same else 1
    pause = min(_FIRST * 2.0 ** min(count - 1, 10), _LONGEST)
    return Fault(digest, host, count, now + pause, error.message, error.hint, error.exit_code)
