"""`mirage-hooks poll`: fetch, move the branch along, converge."""

import os
import random
import signal
import subprocess
import sys
import time
from types import FrameType

import click

from mirage_hooks.boot.errors import HostError
from mirage_hooks.boot.guest import seconds
from mirage_hooks.installer.commands import context as shared

# Hosts that were started together are not to ask their upstream together.
_JITTER = 0.1


def _interval(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> float | None:
    del context, parameter
    try:
        return max(seconds(value), 1.0) if value is not None else None
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.option(
    "--every",
    callback=_interval,
    metavar="DURATION",
    help="Stay in the foreground and poll so often, such as 30s.",
)
@click.pass_context
def poll(context: click.Context, every: float | None) -> int:
    """Fetch, and make this host run what came; also what was missed, failed or died before.

    Silent while there is nothing to do. What cron, timers and supervisors run.
    """
    script = str(shared.installed(context).poll)
    if not os.access(script, os.X_OK):
        raise HostError(f"{script} is missing, or not executable", "run: mirage-hooks install")
    if every is None:
        os.execv(script, [script])  # noqa: S606 - no shell: this is the script
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, _end)
    while True:
        _run(script)
        time.sleep(every * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311 - no secret


def _run(script: str) -> None:
    """Poll once. Ended meanwhile, the poll ends, too; a deploy that has begun goes on."""
    process = subprocess.Popen([script])
    try:
        process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def _end(signum: int, frame: FrameType | None) -> None:
    del signum, frame
    sys.exit(0)
