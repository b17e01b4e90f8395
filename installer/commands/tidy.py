"""`mirage-hooks gc`: remove what nothing can go back to any more."""

from pathlib import Path

import click

from mirage_hooks.boot import (
    clone,
    collect,
    host,
    lock,
    manifest,
    ownership,
    promised,
    slim,
    sparse,
    survey,
)
from mirage_hooks.boot.artifact import mebibytes
from mirage_hooks.boot.errors import ConfigError
from mirage_hooks.boot.record import State
from mirage_hooks.boot.repository import Repository
from mirage_hooks.boot.revision import Revision
from mirage_hooks.boot.secrets import Vault
from mirage_hooks.boot.store import Store
from mirage_hooks.installer.commands import context as shared


@click.command()
@click.option(
    "--history",
    is_flag=True,
    help="Drop old images from git's objects, too: the upstream has them.",
)
@click.pass_context
def gc(context: click.Context, history: bool) -> int:
    """Remove images and generations that nothing goes back to any more, and leftovers.

    Every deploy does that for the guests it changes; this does it for all, as after `keep` in the
    host file was lowered. What is removed stays in the history.

    With --history a clone becomes one as `mirage-hooks clone` makes it.
    """
    repository = shared.repository(context)
    state = State(repository.common_dir)
    state.check_access()
    ownership.refuse_foreign(repository.obeyed)
    host.load(state.host_file)
    with lock.hold(state.lock, "gc", lambda holder: click.echo(f"waiting for {holder}", err=True)):
        bound, _ = host.load(state.host_file)
        store = Store(state.store, bound.limits.image << 20)
        vault = Vault(state.secrets)
        tip = repository.tip(bound.branch)
        if history:
            _leave_images(repository, bound.branch, tip)
        with promised.left_there():
            desired = manifest.read(tip, bound, store, vault, state.installation)
        known = survey.look_at_all(state)
        done = collect.collect(repository, state, store, bound.keep, known, desired, known, history)
        collect.sweep(state, repository.common_dir, done)
    kinds = {
        "images": done.images,
        "generations": done.generations,
        "runs": done.runs,
        "leftovers": done.leftovers,
        "old images in git": done.history,
    }
    removed = {kind: one for kind, one in kinds.items() if one.count}
    for kind, one in removed.items():
        click.echo(f"{kind}: {one.count} removed, {mebibytes(one.size)}")
    if not removed:
        click.echo("nothing to remove")
    if done.gone:
        click.echo(collect.say_gone(done.gone))
    return 0


def _leave_images(repository: Repository, branch: str, tip: Revision) -> None:
    """Have images left with the upstream, and out of the work tree. Raises Error."""
    upstream = repository.upstream(branch)
    if upstream is None:
        raise ConfigError(
            f"{branch} has no upstream: nobody else has the old images",
            f"git branch --set-upstream-to REMOTE/{branch}",
        )
    slim.promise(repository, upstream[0])
    tree = repository.git.working_tree_dir
    if tree is not None and not repository.is_sparse:
        repository.set_config(*clone.NO_SUMMARY)
        sparse.set_up(Path(tree), tip)
