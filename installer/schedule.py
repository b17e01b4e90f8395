"""Who calls `poll`, and `up` when the host starts: systemd, or cron where it is not."""

import shutil
import sys
from pathlib import Path

from mirage_hooks.boot import installation, systemd
from mirage_hooks.boot.errors import HostError
from mirage_hooks.boot.record import State
from mirage_hooks.boot.repository import Repository
from mirage_hooks.installer.cron import Cron
from mirage_hooks.installer.findings import Finding
from mirage_hooks.installer.job import Interval, Job, Scheduler
from mirage_hooks.installer.timer import Timer


def check(repository: Repository, every: Interval) -> None:
    """Raise ConfigError or HostError where a repository cannot be polled so."""
    found = _schedulers(repository)
    if not found:
        raise HostError(
            "there is nothing that could poll: neither systemd nor crontab",
            "install cron; or, under a supervisor of your own: mirage-hooks poll --every",
        )
    found[0].check(every)


def put(repository: Repository, every: Interval) -> list[str]:
    """Have a repository polled, by one scheduler only; return what was done, a line each.

    It was checked that it can be. Raises HostError.
    """
    first, *others = _schedulers(repository)
    lines = first.put(every)
    return [*lines, *(line for other in others for line in other.remove())]


def remove(repository: Repository) -> list[str]:
    """Have a repository polled no more; return what was done, a line each. Raises HostError."""
    return [line for one in _schedulers(repository) for line in one.remove()]


def examine(repository: Repository) -> list[Finding]:
    """Return what is found of a repository's polls. Raises HostError."""
    found = [finding for one in _schedulers(repository) for finding in one.examine()]
    nobody = "nobody polls: only a pull or a push deploys (mirage-hooks install --poll 5m)"
    return found or [Finding("ok", "poll", nobody)]


def _schedulers(repository: Repository) -> list[Scheduler]:
    """Return those that this host has, the first choice first."""
    folder = repository.common_dir
    path = folder.parent if folder.name == ".git" else folder
    job = Job(
        # Not `which`: the one that stands beside the interpreter of the hooks.
        str(Path(sys.executable).with_name("mirage-hooks")),
        str(path),
        str(State(folder).poll.relative_to(path)),
        installation.identify(folder),
    )
    found: list[Scheduler] = []
    if (manager := systemd.manager()) is not None:
        found.append(Timer(manager, job))
    if shutil.which("crontab") is not None:
        found.append(Cron(job))
    return found
