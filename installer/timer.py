"""A repository polled by systemd: units of its own, where systemd finds them, and enabled."""

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from mirage_hooks.boot.errors import HostError
from mirage_hooks.boot.systemd import Manager
from mirage_hooks.boot.users import user_name
from mirage_hooks.installer import placing, units
from mirage_hooks.installer.findings import Finding
from mirage_hooks.installer.job import Interval, Job, call, gone


@dataclass(frozen=True)
class Timer:
    """The timer of one repository, its poll service, and the service that boots its guests."""

    manager: Manager
    job: Job

    def check(self, every: Interval) -> None:
        """Raise HostError where no unit can be named after the repository, or run our program."""
        self._texts(every)
        if len(self._timer) > units.MOST_NAME or not self.job.path.isprintable():
            raise HostError(
                f"no unit of systemd can be named after {self.job.path}",
                "put the repository under a shorter path",
            )

    def put(self, every: Interval) -> list[str]:
        """Write the units, or bring them up to date; enable them and start the timer."""
        self._folder.mkdir(parents=True, exist_ok=True)
        lines = [
            placing.write(self._folder / self._name(template), text.encode(), 0o644)
            for template, text in self._texts(every).items()
        ]
        self._systemctl("daemon-reload")
        self._systemctl("enable", "--quiet", self._timer, self._up)
        self._systemctl("restart", self._timer)
        lines.append(f"{self._timer}: polls every {every.text}; {self._up}: boots with the host")
        return [*lines, *(f"{finding.finding}: {finding.mend}" for finding in self._mortal())]

    def remove(self) -> list[str]:
        """Stop and disable the units, and delete what `put` has written."""
        written = [self._folder / name for name in (self._poll, self._timer, self._up)]
        found = [path for path in written if path.exists()]
        if not found:
            return []
        self._systemctl("disable", "--quiet", "--now", self._timer, self._up)
        for path in found:
            path.unlink()
        self._systemctl("daemon-reload")
        return [f"{path}: removed" for path in found]

    def examine(self) -> list[Finding]:
        """Return what is found of the timer, and of the program that boots with the host."""
        timer = self._show(self._timer)
        if timer["LoadState"] != "loaded":
            return []
        words = ["systemctl", *self.manager.options, "enable", "--now", shlex.quote(self._timer)]
        enable = f"run: {' '.join(words)}"
        if timer["ActiveState"] != "active":
            return [Finding("failed", "poll", f"{self._timer} is not active", enable)]
        if timer["UnitFileState"] != "enabled":
            return [Finding("warning", "poll", f"{self._timer} ends with this boot", enable)]
        run = re.search(r"path=(.*?) ;", self._show(self._up)["ExecStart"])
        if (found := gone(self._up, run[1] if run else "")) is not None:
            return [found]
        return [Finding("ok", "poll", f"{self._timer} is active"), *self._mortal()]

    def _texts(self, every: Interval) -> dict[str, str]:
        wanted_by = "multi-user.target" if self.manager.whole_host else "default.target"
        job = self.job
        return units.render(job.program, job.script, every.text, every.seconds, wanted_by)

    def _mortal(self) -> list[Finding]:
        if not self.manager.ends:
            return []
        user = user_name(os.geteuid())
        text = f"nothing polls, or boots with the host, while {user} has no session"
        return [Finding("warning", "lingering", text, f"loginctl enable-linger {user}")]

    @property
    def _folder(self) -> Path:
        """Where an administrator, or a user, has units (systemd.unit(5))."""
        if self.manager.whole_host:
            return Path("/etc/systemd/system")
        configuration = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        return Path(configuration, "systemd/user")

    @property
    def _poll(self) -> str:
        return self._name(f"{units.POLL}@.service")

    @property
    def _timer(self) -> str:
        return self._name(f"{units.POLL}@.timer")

    @property
    def _up(self) -> str:
        return self._name(f"{units.UP}@.service")

    def _name(self, template: str) -> str:
        return units.instance(template, self.job.path)

    def _show(self, unit: str) -> dict[str, str]:
        """Return what systemd knows of a unit, by the names of its properties."""
        names = "LoadState,ActiveState,UnitFileState,ExecStart"
        said = self._systemctl("show", f"--property={names}", unit)
        found = dict.fromkeys(names.split(","), "")
        for line in said.splitlines():
            name, _, value = line.partition("=")
            found[name] = value
        return found

    def _systemctl(self, *words: str) -> str:
        command = ["systemctl", *self.manager.options, *words]
        return call(command, {**os.environ, **self.manager.environment}).decode(errors="replace")
