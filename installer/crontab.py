"""Our lines in a crontab, as text: every other line stays as it is, byte for byte.

Each of ours ends with the mark of its installation, which to the shell is a comment.
"""

import re
import shlex

from mirage_hooks.boot.errors import ConfigError, HostError
from mirage_hooks.installer.job import Job

_BOOT = "@reboot"
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def render(job: Job, seconds: float) -> str:
    """Return our lines: a comment, the poll every so many seconds, and `up` at boot.

    Each installation has its own minute, and second. Raises ConfigError for an interval that cron
    does not have, HostError for a path that cannot stand in a crontab.
    """
    number = int(job.identity, 16)
    script = _quote(f"{job.path}/{job.script}")
    lines = (
        f"# {job.path} is polled until: mirage-hooks install --poll never",
        f"{when(seconds, number)} sleep {number % _MINUTE}; {script}",
        f"{_BOOT} {_quote(job.program)} -C {_quote(job.path)} up",
    )
    return "".join(f"{line} {_mark(job)}\n" for line in lines)


def without(crontab: str, job: Job) -> str:
    """Return a crontab without the lines of an installation."""
    return "\n".join(line for line in crontab.split("\n") if not line.endswith(_mark(job)))


def find(crontab: str, job: Job) -> tuple[str | None, str | None]:
    """Return the line that polls an installation, and the one that boots its guests, or None."""
    ours = [
        line
        for line in crontab.split("\n")
        if line.endswith(_mark(job)) and not line.startswith("#")
    ]
    poll = next((line for line in ours if not line.startswith(_BOOT)), None)
    up = next((line for line in ours if line.startswith(_BOOT)), None)
    return poll, up


def program(up: str) -> str:
    """Return the program that the line at boot runs, "" where that cannot be told."""
    try:
        return shlex.split(up.replace("\\%", "%"))[1]
    except (ValueError, IndexError):
        return ""


def when(seconds: float, number: int) -> str:
    """Return the time fields of crontab(5) for an interval, shifted by a number.

    Raises ConfigError where cron has no such interval.
    """
    minute, hour = number % 60, number // 60 % 24
    if seconds == _DAY:
        return f"{minute} {hour} * * *"
    if _HOUR <= seconds < _DAY and seconds % _HOUR == 0:
        return f"{minute} {_every(int(seconds) // _HOUR, hour, 23)} * * *"
    if _MINUTE <= seconds < _HOUR and seconds % _MINUTE == 0:
        return f"{_every(int(seconds) // _MINUTE, minute, 59)} * * * *"
    raise ConfigError(
        "cron cannot poll at that interval",
        "it can at 1m to 59m, at whole hours up to 23h, and at 1d; at others, under a supervisor "
        "of your own: mirage-hooks poll --every",
    )


def _every(step: int, number: int, last: int) -> str:
    return "*" if step == 1 else f"{number % step}-{last}/{step}"


def _mark(job: Job) -> str:
    return f"# mirage-hooks:{job.identity}"


def _quote(path: str) -> str:
    """Return a path as a word of a command in a crontab, where `%` is a line end (crontab(5))."""
    if re.search(r"[\\\n\r]", path):
        raise HostError(
            f"{path!r} cannot stand in a crontab",
            "put it under a path without backslash and line end",
        )
    return shlex.quote(path).replace("%", "\\%")
