"""With what a process may be killed, told by the control groups that it is in."""

import os

import pytest

from mirage_hooks.boot import systemd

NOBODY = 54321  # a user that does not linger, as nobody has that id


@pytest.mark.parametrize(
    ("group", "unit"),
    [
        ("/", None),
        ("/user.slice/user-0.slice/session-3.scope", "session-3.scope"),
        ("/system.slice/cron.service", "cron.service"),
        ("/system.slice/x.service/payload/deeper", "x.service"),
        ("/system.slice/mirage-hooks-775d5744cb82-www-1.scope", None),
        ("/system.slice/docker-0123.scope", None),
        (f"/user.slice/user@{NOBODY}.service/app.slice/ours.scope", f"user@{NOBODY}.service"),
        (f"/user.slice/user@{NOBODY}.service/app.slice/x.service", f"user@{NOBODY}.service"),
    ],
)
def test_a_group_says_with_what_its_processes_end(group: str, unit: str | None) -> None:
    assert systemd.mortal_in(group) == unit


def test_a_process_that_is_gone_is_in_no_unit() -> None:
    process = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(process, 0)
    assert systemd.mortal_unit(process) is None
