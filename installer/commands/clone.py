"""`mirage-hooks clone`: a clone to install in, without the images that this host never ran."""

import shlex
import signal
import sys
from pathlib import Path
from types import FrameType

import click

from mirage_hooks.boot import clone as cloning
from mirage_hooks.boot.artifact import mebibytes
from mirage_hooks.boot.environment import GIVEN, leave_operation


@click.command()
@click.argument("url")
@click.argument(
    "folder", metavar="[DIR]", required=False, type=click.Path(file_okay=False, path_type=Path)
)
def clone(url: str, folder: Path | None) -> int:
    """Clone a deployment repository, without old images.

    An image is fetched when it is deployed. The work tree has none: what is deployed is read from
    git's objects. An existing clone becomes one like that by `gc --history`.
    """
    leave_operation(GIVEN)
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _end)
    done = cloning.clone(url, folder, lambda text: click.echo(text, err=True))
    quoted = shlex.quote(str(done.folder))
    if done.is_empty:
        click.echo(f"{done.folder}: cloned; it is empty: nothing was published yet")
        click.echo(f"next, once something is: cd {quoted} && git pull && mirage-hooks install")
        return 0
    without = "without images" if done.partial else "with all images"
    click.echo(f"{done.folder}: cloned {without}, {mebibytes(done.size)}")
    click.echo(f"next: cd {quoted} && mirage-hooks install")
    return 0


def _end(signum: int, frame: FrameType | None) -> None:
    """End by the way of `finally`: what was begun is removed."""
    del frame
    sys.exit(128 + signum)
