"""What is run for a repository and how often, whoever runs it; and how those are spoken to."""

import os
import subprocess
from dataclasses import dataclass
from typing import Protocol

from mirage_hooks.boot import guest
from mirage_hooks.boot.errors import ConfigError, HostError
from mirage_hooks.installer.findings import Finding

# systemctl waits for a job that systemd has to begin, crontab for nobody.
_SECONDS = 60.0


@dataclass(frozen=True)
class Interval:
    """How often is polled: as it was written, and in seconds."""

    text: str
    seconds: float

    @classmethod
    def parse(cls, text: str) -> "Interval":
        """Return an interval such as "5m". Raises ConfigError for what is none."""
        try:
            seconds = guest.seconds(text)
        except ValueError as error:
            raise ConfigError(f"--poll: {error}", "or: --poll never") from None
        if seconds < 1:
            raise ConfigError(f"--poll {text}: it has to be a second at least")
        return cls(text, seconds)


@dataclass(frozen=True)
class Job:
    """What is run for one repository, and the installation's id.

    `program` is mirage-hooks itself, `path` what it is given; `script` is the one that polls, by
    its path from there.
    """

    program: str
    path: str
    script: str
    identity: str


def gone(runs: str, program: str) -> Finding | None:
    """Return that the program which something runs is gone, None where it is there.

    The script that polls is looked at by itself, whoever runs it.
    """
    if os.access(program, os.X_OK):
        return None
    mend = "install mirage-hooks again, then run: mirage-hooks install --poll 5m"
    return Finding("failed", "poll", f"{runs} runs {program or 'nothing'}, which is gone", mend)


class Scheduler(Protocol):
    """What runs the polls of one repository, and its `up` when the host starts."""

    def check(self, every: Interval) -> None:
        """Raise ConfigError or HostError where it cannot poll so; nothing is changed."""

    def put(self, every: Interval) -> list[str]:
        """Have it poll, in place of what it did; return what was done, a line each."""

    def remove(self) -> list[str]:
        """Have it poll no more; return what was done, a line each, none where it did not poll."""

    def examine(self) -> list[Finding]:
        """Return what is found of its polls, nothing where it does not poll."""


def call(command: list[str], environment: dict[str, str], given: bytes = b"") -> bytes:
    """Run a command; return what it printed. Raises HostError where it fails."""
    try:
        done = subprocess.run(
            command,
            input=given,
            capture_output=True,
            env=environment,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"{' '.join(command)}: {error}") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise HostError(f"{' '.join(command)} ended with {done.returncode}: {said}")
    return done.stdout
