"""Commands that change what runs, and `plan`, which says what would."""

import os
import time

import click

from mirage_hooks.boot import host, lock, manifest, promised, survey
from mirage_hooks.boot import plan as planning
from mirage_hooks.boot.guest import short
from mirage_hooks.boot.intent import Pause
from mirage_hooks.boot.plan import Wish
from mirage_hooks.boot.record import State
from mirage_hooks.boot.secrets import Vault
from mirage_hooks.boot.store import Store
from mirage_hooks.boot.users import user_name
from mirage_hooks.installer.commands import context as shared
from mirage_hooks.installer.output import print_json

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
_allow_empty = click.option(
    "--allow-empty", is_flag=True, help="Stop every guest if the repository describes none."
)


@click.command()
@_json
@_allow_empty
@click.pass_context
def plan(context: click.Context, as_json: bool, allow_empty: bool) -> int:
    """Say what a deploy would do, and why; change nothing that runs.

    The images are unpacked and verified for it, as a deploy would; but none is fetched, in a clone
    without images.
    """
    return _show_plan(context, as_json, Wish(allow_empty=allow_empty))


def _show_plan(context: click.Context, as_json: bool, wish: Wish) -> int:
    repository = shared.repository(context)
    state = State(repository.common_dir)
    state.check_access()
    bound, _ = host.load(state.host_file)
    store = Store(state.store, bound.limits.image << 20)
    tip = repository.tip(bound.branch)
    with promised.left_there():
        desired = manifest.read(tip, bound, store, Vault(state.secrets), state.installation)
    actions = planning.plan(desired, survey.look_at_all(state), wish)
    if as_json:
        print_json(
            {
                "branch": bound.branch,
                "commit": tip.id,
                "actions": [
                    {
                        "guest": action.guest,
                        "verb": action.verb,
                        "reason": action.reason,
                        "problem": action.problem and action.problem.message,
                    }
                    for action in actions
                ],
            }
        )
        return 0
    click.echo(f"{bound.branch} at {short(tip.id)}")
    for action in actions:
        click.echo(str(action))
    if not actions:
        click.echo(desired.why_empty)
    return 0


@click.command()
@click.option("--dry-run", is_flag=True, help="Only print the plan.")
@_allow_empty
@click.option(
    "--adopt",
    multiple=True,
    metavar="DOMAIN",
    help="Let a guest take the place of a running Xen domain of its name that is not ours.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def deploy(
    context: click.Context, dry_run: bool, allow_empty: bool, adopt: tuple[str, ...], yes: bool
) -> int:
    """Make this host run what the repository says, now.

    What a pull does by itself; also tries again what failed before. Ends with 0 only if every guest
    runs as it should.
    """
    if dry_run:
        return _show_plan(context, False, Wish(retry=True, allow_empty=allow_empty))
    if adopt:
        shared.confirm(
            f"Destroy the running domain {', '.join(adopt)} once its guest is ready, or before "
            "where both cannot be there (a volume that the guest writes to, too little memory)? "
            "There is no way back to it",
            yes,
        )
    return shared.converge(context, verb="deploy", retry=True, allow_empty=allow_empty, adopt=adopt)


@click.command()
@shared.guests()
@click.pass_context
def reboot(context: click.Context, guests: tuple[str, ...]) -> int:
    """Boot guests again as they are (all where none is named).

    A held guest is booted only if it is named, which ends the hold.
    """
    return shared.converge(context, verb="reboot", guests=guests)


@click.command()
@shared.guests()
@click.option("--all", "everyone", is_flag=True, help="Every guest.")
@click.pass_context
def stop(context: click.Context, guests: tuple[str, ...], everyone: bool) -> int:
    """Stop guests and hold them: no pull starts them until `start` does."""
    if bool(guests) == everyone:
        raise click.UsageError("name the guests, or say --all")
    return shared.converge(context, verb="stop", guests=guests)


@click.command()
@shared.guests(required=True)
@click.pass_context
def start(context: click.Context, guests: tuple[str, ...]) -> int:
    """End the hold or the pin on guests, and run what the repository says."""
    return shared.converge(context, verb="start", guests=guests, retry=True)


@click.command()
@click.argument("guest", shell_complete=shared.complete_guest)
@click.option("--to", type=click.IntRange(1), metavar="N", help="The generation to go back to.")
@click.pass_context
def rollback(context: click.Context, guest: str, to: int | None) -> int:
    """Boot the last healthy state of a guest that differs from what runs, and pin it.

    The pin ends when the repository asks for something new. `mirage-hooks history GUEST` lists the
    generations.
    """
    return shared.converge(context, verb="rollback", guests=(guest,), to=to)


@click.command()
@click.pass_context
def up(context: click.Context) -> int:
    """Boot what should run: for the start of the host.

    Nothing is fetched, and what is held stays so. Where a pause holds, or what the repository says
    cannot be read, each guest gets back what it ran last.
    """
    return shared.converge(context, verb="up")


@click.command()
@click.argument("why")
@click.pass_context
def pause(context: click.Context, why: str) -> int:
    """Let no pull deploy anything until `resume`: WHY is told to whoever pulls.

    What is asked for by hand is done as ever. A pause that holds already gets the new reason.
    """
    if not why.strip() or not why.isprintable():
        raise click.UsageError("say why, in a line: whoever pulls is told")
    state = shared.installed(context)
    state.set_pause(Pause(why, time.time(), user_name(os.geteuid())))
    click.echo("pulls deploy nothing until `mirage-hooks resume`")
    if (holder := lock.holder(state.lock)) is not None:
        click.echo(f"a deploy is going on, and is let end: {holder}")
    return 0


@click.command()
@click.pass_context
def resume(context: click.Context) -> int:
    """End a pause, and deploy what it held back."""
    if not shared.installed(context).end_pause():
        click.echo("nothing is paused")
        return 0
    return shared.converge(context, verb="deploy")
