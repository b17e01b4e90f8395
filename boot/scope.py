"""A transient scope of its own for what is to outlive the unit, or the session, that starts it.

systemd kills what is left in a control group when the unit it belongs to ends: a session of one's
own does not escape that.
"""

import subprocess
from collections.abc import Sequence
from typing import IO

from mirage_hooks.boot import systemd

_MANAGER_SECONDS = 10.0


def run(
    unit: str,
    command: Sequence[str],
    *,
    keep: int,
    output: IO[bytes],
    environment: dict[str, str],
    seconds: float,
) -> bool:
    """Run a command that detaches itself, to the end of its first process.

    Under systemd it gets the scope `unit`; return False where systemd refused that, and it had to
    go without. `keep` is a descriptor that it inherits. Raises OSError, SubprocessError.
    """
    manager = systemd.manager()
    # The scope of a user's systemd that ends with the session would be no better than the session.
    if manager is None or manager.ends:
        _run(command, keep, output, environment, seconds)
        return True
    # systemd-run(1) has a scope made, moves itself into it, and becomes the command.
    options = (*manager.options, "--scope", "--quiet", "--collect", f"--unit={unit}")
    scoped = ("systemd-run", *options, "--", *command)
    try:
        _run(scoped, keep, output, {**environment, **manager.environment}, _MANAGER_SECONDS)
    except (OSError, subprocess.SubprocessError):
        # What failed may be the command itself; it has not detached then, and fails once more.
        _run(command, keep, output, environment, seconds)
        return False
    return True


def _run(
    command: Sequence[str], keep: int, output: IO[bytes], environment: dict[str, str], limit: float
) -> None:
    subprocess.run(
        command,
        pass_fds=[keep],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd="/",
        env=environment,
        timeout=limit,
        check=True,
    )
