"""`mirage-hooks logs`: what guests printed, and what deploys did."""

from functools import partial

import click

from mirage_hooks.boot import history as histories
from mirage_hooks.boot import journal
from mirage_hooks.boot.errors import ConfigError
from mirage_hooks.boot.generation import Generation
from mirage_hooks.boot.record import State
from mirage_hooks.installer import deploys, growing
from mirage_hooks.installer.commands import context as shared
from mirage_hooks.installer.output import moment

_LINES = 50
_ALL = 1_000_000


@click.command()
@click.argument("guest", required=False, shell_complete=shared.complete_guest)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
@click.option("-n", "--lines", type=click.IntRange(1), help="How many (default: 50).")
@click.option(
    "--generation", type=click.IntRange(1), metavar="N", help="That generation's console."
)
@click.option("--deploy", metavar="ID", help="All that is logged of one deploy, in time order.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def logs(
    context: click.Context,
    guest: str | None,
    follow: bool,
    lines: int | None,
    generation: int | None,
    deploy: str | None,
    as_json: bool,
) -> int:
    """Show what a guest printed on its console; without a guest, what deploys did.

    --deploy shows every line of one of them: its events, and what the guests that it booted, and
    who looks after these, have printed since. --json prints the deploys' events, an object a line.
    """
    state = shared.installed(context)
    if deploy is not None:
        if guest is not None or follow or generation is not None or as_json:
            raise click.UsageError("--deploy goes with -n alone")
        for line in deploys.lines(state, deploy)[-(lines or _ALL) :]:
            click.echo(line)
        return 0
    lines = lines or _LINES
    if guest is None:
        for line in growing.lines(state.events, lines, follow):
            if (event := journal.parse(line)) is not None:
                _show_event(event, as_json)
        return 0
    if as_json:
        raise click.UsageError("--json is for the deploys' events: a console is text")
    shared.named(state, (guest,))
    chosen = _chosen(state, guest, generation)
    newest = generation is None
    while True:
        ended = partial(_newer, state, chosen, newest)
        for line in growing.lines(state.console(chosen), lines, follow, ended):
            click.echo(line)
        if not follow:
            return 0
        chosen, lines = state.generations(guest)[-1], _ALL
        click.echo(f"--- generation {chosen.number}", err=True)


def _newer(state: State, generation: Generation, wanted: bool) -> bool:
    return wanted and state.newest(generation.guest) > generation.number


def _show_event(event: dict[str, object], as_json: bool) -> None:
    if as_json:
        click.echo(journal.encode(event))
        return
    when = event.get("time")
    click.echo(f"{moment(when if isinstance(when, float) else None)} {event['message']}")


def _chosen(state: State, guest: str, number: int | None) -> Generation:
    generations = state.generations(guest)
    wanted = [one for one in generations if number in {None, one.number}]
    if wanted:
        return wanted[-1]
    if any(past.generation.number == number for past in histories.collected(state, guest)):
        raise ConfigError(
            f"generation {number} of {guest} was collected, its console too",
            f"mirage-hooks history {guest} tells how it ended",
        )
    what = "no generation yet" if number is None else f"no generation {number}"
    raise ConfigError(f"{guest} has {what}", f"mirage-hooks history {guest} lists them")
