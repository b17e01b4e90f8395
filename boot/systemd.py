"""The systemd that would look after what is started here: the system's, or the user's own."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from mirage_hooks.boot.users import user_name

# sd_booted(3): it is there if, and only if, systemd is what the host was booted with.
_BOOTED = Path("/run/systemd/system")
# Where logind notes who lingers (`linger_file` of logind-user.c): loginctl(1) enable-linger.
_LINGER = Path("/var/lib/systemd/linger")

_SESSION = re.compile(r"session-.+\.scope")
_USER_MANAGER = re.compile(r"user@([0-9]+)\.service")


@dataclass(frozen=True)
class Manager:
    """A systemd: the `options` that lead its programs to it, and the environment for that.

    `ends` says whether it ends with the user's last session, and everything that it runs with it.
    """

    options: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    ends: bool = False

    @property
    def whole_host(self) -> bool:
        """Whether it is the host's, not a user's own."""
        return not self.options


def manager() -> Manager | None:
    """Return the systemd that takes what this user has to run, None where none does.

    That is the host's for root. For others it is their own, if it runs (user@.service(5)).
    """
    if not _BOOTED.is_dir():
        return None
    uid = os.geteuid()
    if uid == 0:
        return Manager(())
    for runtime in (os.environ.get("XDG_RUNTIME_DIR"), f"/run/user/{uid}"):
        if runtime and Path(runtime, "systemd/private").is_socket():
            return Manager(("--user",), {"XDG_RUNTIME_DIR": runtime}, not _lingers(uid))
    return None


def mortal_unit(pid: int) -> str | None:
    """Return the unit with whose end a process may be killed, None for none that is known.

    A login session, with KillUserProcesses of logind.conf(5); a user's own systemd, where they do
    not linger; a service, as its KillMode says (systemd.kill(5)).
    """
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return None
    # A line a hierarchy, its path after the second colon (cgroups(7)).
    found = (mortal_in(group.split(":", 2)[2]) for group in groups)
    return next((unit for unit in found if unit is not None), None)


def mortal_in(group: str) -> str | None:
    """Return that unit for the path of one control group."""
    units = [part for part in group.split("/") if part.endswith((".service", ".scope"))]
    for unit in units:
        own = _USER_MANAGER.fullmatch(unit)
        if _SESSION.fullmatch(unit) or (own and not _lingers(int(own[1]))):
            return unit
    service = bool(units) and units[-1].endswith(".service")
    return units[-1] if service and not _USER_MANAGER.fullmatch(units[-1]) else None


def _lingers(uid: int) -> bool:
    return (_LINGER / user_name(uid)).exists()
