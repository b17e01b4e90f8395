"""The systemd units that poll a repository and boot its guests, as text: of one, or as templates.

`contrib/systemd` has the same as templates for every repository. A unit's instance is the path of
the repository, as systemd-escape(1) has it with --path: `%f` in a unit is that path again.
"""

import os
import re

from mirage_hooks.boot.errors import HostError

POLL, UP = "mirage-hooks-poll", "mirage-hooks-up"

# The longest name of a unit (UNIT_NAME_MAX of systemd's unit-name.h).
MOST_NAME = 255

# What the jitter of a timer is at most: this part of the interval, and so many seconds.
_JITTER_PART, _MOST_JITTER = 0.1, 30.0

# The first poll comes that many seconds after the host has booted, or after `install`.
_FIRST = 60.0

# HOME: a service of the host's has none, and git and ssh look there for credentials.
# KillMode: guests, and who looks after them, go on when a service has ended or is stopped.
# The colon: what may look like a variable in the path is none (systemd.service(5)).
# sh is the program, since a program's path takes no quotes, and a repository's may have some.
_POLL_SERVICE = """\
# Fetch and deploy what is new in %f: started by mirage-hooks-poll@.timer. See docs/reference.md.
[Unit]
Description=Poll the deployment repository %f

[Service]
Type=oneshot
Environment=HOME=%h
ExecStart=:/bin/sh %f/{script}
KillMode=process
"""

_POLL_TIMER = """\
# Start mirage-hooks-poll@.service every {every}.
[Unit]
Description=Poll the deployment repository %f every {every}

[Timer]
OnActiveSec={first:g}s
OnUnitActiveSec={every}
AccuracySec=1s
RandomizedDelaySec={jitter:g}s
FixedRandomDelay=true

[Install]
WantedBy=timers.target
"""

# Not after network-online.target: what has to wait for the network is made good by the next poll.
_UP_SERVICE = """\
# Boot the guests of %f when the host starts. See docs/reference.md.
[Unit]
Description=Boot the guests of %f
After=network.target

[Service]
Type=oneshot
Environment=HOME=%h
ExecStart={program} -C %f up
KillMode=process

[Install]
WantedBy={wanted_by}
"""


def render(
    program: str, script: str, every: str, seconds: float, wanted_by: str = "multi-user.target"
) -> dict[str, str]:
    """Return the text of each unit by its name as a template.

    `program` is mirage-hooks, `script` the one that polls, by its path in the repository; `every`
    is the interval as systemd.time(7) has it, too, `seconds` the same as a number.
    """
    words = {
        "program": quote(program),
        "script": script,
        "every": every,
        "first": min(seconds, _FIRST),
        "jitter": min(seconds * _JITTER_PART, _MOST_JITTER),
        "wanted_by": wanted_by,
    }
    return {
        f"{POLL}@.service": _POLL_SERVICE.format(**words),
        f"{POLL}@.timer": _POLL_TIMER.format(**words),
        f"{UP}@.service": _UP_SERVICE.format(**words),
    }


def quote(program: str) -> str:
    """Return a program's path as the first word of ExecStart (systemd.service(5)).

    Raises HostError for what cannot be one (`string_is_safe` of systemd's string-util.c).
    """
    if not program.isprintable() or re.search(r"""["'\\]""", program):
        raise HostError(
            f"{program!r} cannot be run by a unit of systemd",
            "install mirage-hooks under a path without quotes and backslashes",
        )
    path = f":{program}".replace("%", "%%")
    return path if re.fullmatch(r"[-:/.\w%+@]+", path, re.ASCII) else f'"{path}"'


def escape(path: str) -> str:
    """Return an absolute path, without `//` and `..`, as `systemd-escape --path` does."""
    data = os.fsencode(path).strip(b"/")
    escaped = "".join(
        chr(byte)
        if re.fullmatch(rb"[A-Za-z0-9:_.]", bytes([byte])) and not (byte == ord(".") and at == 0)
        else "-"
        if byte == ord("/")
        else f"\\x{byte:02x}"
        for at, byte in enumerate(data)
    )
    return escaped or "-"


def instance(template: str, path: str) -> str:
    """Return the name of a template's unit for a repository."""
    return template.replace("@.", f"@{escape(path)}.")
