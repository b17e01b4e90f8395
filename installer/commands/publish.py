"""`mirage-hooks publish`: what CI runs, to have an image in the deployment repository."""

import os
from pathlib import Path
from typing import cast

import click

from mirage_hooks.boot import ci, convention
from mirage_hooks.boot import publish as publishing
from mirage_hooks.boot.environment import GIVEN
from mirage_hooks.boot.errors import ConfigError
from mirage_hooks.boot.guest import Target
from mirage_hooks.boot.provenance import Origin
from mirage_hooks.boot.publish import Order
from mirage_hooks.installer.commands import context as shared

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("image", type=_FILE)
@click.option("--guest", required=True, help="The guest whose image this is.")
@click.option(
    "--target",
    type=click.Choice(convention.TARGETS),
    help="Refuse an image for any other target (default: the image's own).",
)
@click.option(
    "--source-commit", metavar="SHA", help="What it was built from (default: as CI says it)."
)
@click.option(
    "--source-branch",
    default="main",
    show_default=True,
    help="The branch whose builds are published: CI's other runs are refused.",
)
@click.option(
    "--with",
    "siblings",
    type=_FILE,
    multiple=True,
    help="A file to lie beside the image, such as config.ml.",
)
@click.option(
    "--compression",
    type=click.Choice(list(convention.ENDINGS)),
    help="How to pack it (default: as the image's path ends, else bzip2).",
)
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    help="Remove all but so many of the guest's images from the tree.",
)
@click.option("--branch", help="The branch to publish to (default: the one checked out).")
@click.pass_context
def publish(
    context: click.Context,
    image: Path,
    guest: str,
    target: str | None,
    source_commit: str | None,
    source_branch: str,
    siblings: tuple[Path, ...],
    compression: str | None,
    keep: int | None,
    branch: str | None,
) -> int:
    """Verify an image, and push it to the deployment repository in one commit.

    Run by CI, in a clone of the deployment repository (-C): neither its work tree nor its index is
    touched. An image that the branch has already makes no commit.
    """
    run = ci.detect(os.environ)
    if run is not None:
        ci.admit(run, source_branch)
    commit = source_commit or (run.commit if run is not None else "")
    if not commit:
        raise ConfigError(
            "no CI system says which commit the image was built from",
            "name it: --source-commit $(git rev-parse HEAD)",
        )
    origin = Origin(commit, run.repository, run.url) if run is not None else Origin(commit)
    order = Order(
        guest,
        image,
        origin,
        cast("Target | None", target),
        compression,
        siblings,
        keep,
        branch,
    )
    outcome = publishing.publish(
        shared.repository(context, GIVEN), order, lambda text: click.echo(text, err=True)
    )
    click.echo(f"{guest}: {outcome}")
    return 0
