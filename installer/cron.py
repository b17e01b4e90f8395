"""A repository polled by cron: our lines in the user's crontab, and no other is changed."""

import os
import subprocess
from dataclasses import dataclass

from mirage_hooks.boot.errors import HostError
from mirage_hooks.installer import crontab
from mirage_hooks.installer.findings import Finding
from mirage_hooks.installer.job import Interval, Job, call, gone

# What crontab says on standard error where a user has none, in Debian's cron, cronie and busybox.
_NONE = ("no crontab for", "No such file or directory")


@dataclass(frozen=True)
class Cron:
    """The lines of one repository in this user's crontab."""

    job: Job

    def check(self, every: Interval) -> None:
        """Raise ConfigError where cron has no such interval, HostError where it is not ours."""
        crontab.render(self.job, every.seconds)
        _read()

    def put(self, every: Interval) -> list[str]:
        """Write the lines, in place of those that are there."""
        before = _read()
        others = crontab.without(before, self.job)
        ended = others if others.endswith("\n") or not others else f"{others}\n"
        after = f"{ended}{crontab.render(self.job, every.seconds)}"
        if after == before:
            return ["crontab: is as it should be"]
        _write(after)
        return [f"crontab: polls every {every.text}, and boots with the host"]

    def remove(self) -> list[str]:
        """Take the lines out; the crontab too, where nothing else is in it."""
        before = _read()
        after = crontab.without(before, self.job)
        if after == before:
            return []
        if after:
            _write(after)
        else:
            call(["crontab", "-r"], _environment())
        return ["crontab: polls no more"]

    def examine(self) -> list[Finding]:
        """Return what is found of the lines, and of the program that boots with the host."""
        poll, up = crontab.find(_read(), self.job)
        if poll is None:
            return []
        if (found := gone("the crontab", crontab.program(up or ""))) is not None:
            return [found]
        return [Finding("ok", "poll", f"the crontab polls: {poll}")]


def _read() -> str:
    """Return this user's crontab, "" where there is none. Raises HostError."""
    command = ["crontab", "-l"]
    try:
        done = subprocess.run(
            command, capture_output=True, env=_environment(), timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"{' '.join(command)}: {error}") from None
    said = done.stderr.decode(errors="replace").strip()
    if done.returncode == 0:
        return os.fsdecode(done.stdout)
    if any(words in said for words in _NONE):
        return ""
    raise HostError(f"{' '.join(command)} ended with {done.returncode}: {said}")


def _write(text: str) -> None:
    call(["crontab", "-"], _environment(), os.fsencode(text))


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C.UTF-8"}
