"""Commands that put mirage-hooks into a repository, and take it out again."""

import click
from click.shell_completion import get_completion_class

from mirage_hooks.boot.repository import Repository
from mirage_hooks.installer import install as installing
from mirage_hooks.installer import schedule
from mirage_hooks.installer.commands import context as shared
from mirage_hooks.installer.hostfile import GuestOption
from mirage_hooks.installer.job import Interval

_NEVER = "never"


@click.command()
@click.argument("repo", required=False, type=click.Path())
@click.option("--branch", help="The branch that deploys (default: the one checked out).")
@click.option("--user", help="The user that guests run as; root has to name one.")
@click.option(
    "--guest", "names", multiple=True, help="A guest, where the repository has no manifest."
)
@click.option("--target", "targets", multiple=True, help="The target of that guest, such as unix.")
@click.option(
    "--image",
    "images",
    multiple=True,
    help="The path of its image, such as unix/{latest}/www.unix.",
)
@click.option(
    "--poll",
    metavar="INTERVAL",
    help="Poll the upstream so often, such as 5m, by systemd or cron, and boot guests with the "
    "host; `never` ends that.",
)
@click.option("--deploy", "and_deploy", is_flag=True, help="Deploy at once.")
@click.pass_context
def install(
    context: click.Context,
    repo: str | None,
    branch: str | None,
    user: str | None,
    names: tuple[str, ...],
    targets: tuple[str, ...],
    images: tuple[str, ...],
    poll: str | None,
    and_deploy: bool,
) -> int:
    """Make every pull in a clone of a deployment repository deploy what it brings.

    Drops the hooks, writes the host file, and boots nothing by itself. Run again it repairs and
    upgrades what is there. --guest, --target and --image go together, as often as there are guests.
    """
    if not len(names) == len(targets) == len(images):
        raise click.UsageError("--guest, --target and --image go together, once each for a guest")
    if repo is not None:
        context.find_root().obj = repo
    guests = [GuestOption(*values) for values in zip(names, targets, images, strict=True)]
    repository = shared.repository(context)
    every = Interval.parse(poll) if poll is not None and poll != _NEVER else None
    if every is not None:
        schedule.check(repository, every)
    done = installing.install(repository, branch, user, guests)
    for line in done.lines:
        click.echo(line)
    if poll is not None:
        lines = schedule.put(repository, every) if every else schedule.remove(repository)
        click.echo("\n".join(lines or ["nobody polls"]))
    click.echo(f"From now on a pull or a push of {done.branch} deploys it.")
    if and_deploy:
        return shared.converge(context, verb="deploy", retry=True)
    if done.running:
        click.echo(f"What runs goes on running: {', '.join(done.running)}.")
    else:
        click.echo(
            "Nothing is booted yet: `mirage-hooks deploy` does that"
            f"{', and so does the first poll' if every else ''},"
        )
        click.echo("and `mirage-hooks deploy --dry-run` says what it would do.")
    return 0


@click.command()
@click.option("--stop", is_flag=True, help="Stop the guests that run.")
@click.option("--leave-running", is_flag=True, help="Let them run; nobody looks after them then.")
@click.option("--keep-state", is_flag=True, help="Keep records, logs, images and the host file.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def uninstall(
    context: click.Context, stop: bool, leave_running: bool, keep_state: bool, yes: bool
) -> int:
    """Take mirage-hooks out of a repository: hooks, records, stored images, refs that keep them."""
    if stop and leave_running:
        raise click.UsageError("--stop and --leave-running exclude each other")
    repository: Repository = shared.repository(context)
    installing.refuse_running(repository, stop or leave_running)
    shared.confirm(f"Take mirage-hooks out of {repository.name}?", yes)
    for line in installing.uninstall(repository, stop, leave_running, keep_state):
        click.echo(line)
    return 0


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> int:
    """Print what makes a shell complete commands, options and guests.

    For bash: mirage-hooks completion bash > ~/.local/share/bash-completion/completions/mirage-hooks
    """
    root = context.find_root()
    found = get_completion_class(shell)
    assert found is not None  # noqa: S101 - click has these three
    click.echo(found(root.command, {}, "mirage-hooks", "_MIRAGE_HOOKS_COMPLETE").source())
    return 0
