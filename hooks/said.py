"""What polls have said. A problem that stays is said once; that it has ended is said, too.

Under cron each line is a mail. The file is there while something is wrong, and no longer.
"""

import contextlib
import re
from pathlib import Path

import msgspec

from mirage_hooks.boot.files import write_atomic


class _Memory(msgspec.Struct, frozen=True):
    said: dict[str, str] = {}
    rewound: str | None = None


class Said:
    """What was said of problems that last, each by its subject, and what is said now.

    `rewound` is the commit to which the upstream was taken back, until that has been dealt with.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before = _read(path)
        self._now: dict[str, str] = {}
        self.rewound = self._before.rewound

    def is_new(self, subject: str, problem: str) -> bool:
        """Take note of a problem; return whether it was not said before."""
        # How long something took, or which process it was, is no news.
        self._now[subject] = re.sub(r"\d+", "0", problem)
        return self._before.said.get(subject) != self._now[subject]

    def ended(self, subject: str) -> bool:
        """Whether there was a problem, and it was not met again."""
        return subject in self._before.said and subject not in self._now

    def save(self) -> None:
        """Remember what was said, for the next poll. On a full disk it is said again."""
        with contextlib.suppress(OSError):
            if self._now:
                data = msgspec.json.encode(_Memory(self._now, self.rewound))
                write_atomic(self._path, data)
            else:
                self._path.unlink(missing_ok=True)


def _read(path: Path) -> _Memory:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Memory)
    except (OSError, msgspec.DecodeError):
        return _Memory()
