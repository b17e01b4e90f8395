"""Commands that show: what runs, what ran, what was said."""

from functools import partial
from typing import cast

import click

from mirage_hooks.boot import history as histories
from mirage_hooks.boot import host, journal, lock, manifest, network, survey
from mirage_hooks.boot.control import MonitorState
from mirage_hooks.boot.errors import ConfigError, Error
from mirage_hooks.boot.guest import short
from mirage_hooks.boot.history import Past
from mirage_hooks.boot.plan import Known
from mirage_hooks.boot.record import Generation, Phase, State
from mirage_hooks.boot.repository import Repository
from mirage_hooks.installer import growing
from mirage_hooks.installer.commands import context as shared
from mirage_hooks.installer.output import ago, moment, print_json, print_table

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
_ALL = 1_000_000


@click.command()
@_json
@click.pass_context
def status(context: click.Context, as_json: bool) -> int:
    """Show the guests: what runs, since when, where, and how it fares."""
    repository = shared.repository(context)
    state = State(repository.common_dir)
    bound, _ = host.load(state.host_file)
    state.check_access()
    tip = repository.tip(bound.branch)
    damaged = survey.damaged(state)
    unknown = {one.guest for one in damaged}
    known = {
        name: Known() if name in unknown else survey.look(state, name)
        for name in state.guest_names()
    }
    problem = None
    try:
        for name in manifest.read_guests(tip, bound):
            known.setdefault(name, Known())
    except Error as error:
        problem = error.message
    guests = [_describe(state, name, known[name]) for name in sorted(known)]
    for guest in guests:
        if guest["guest"] in unknown:
            guest |= {"health": "unknown", "intent": None}
    behind, fetched = repository.behind(bound.branch), repository.last_fetch()
    converging, pause = lock.holder(state.lock), state.pause()
    if as_json:
        print_json(
            {
                "repository": repository.name,
                "branch": bound.branch,
                "commit": tip.id,
                "behind": behind,
                "last_fetch": moment(fetched),
                "converging": converging,
                "paused": pause and {"why": pause.why, "since": pause.time, "by": pause.by},
                "problem": problem,
                "damaged": [str(one.path) for one in damaged],
                "guests": guests,
            }
        )
        return 0
    upstream = "no upstream" if behind is None else f"{behind} behind its upstream"
    click.echo(
        f"{repository.name}: {bound.branch} at {short(tip.id)}, {upstream}, fetched {ago(fetched)}"
    )
    if converging:
        click.echo(f"a deploy is going on: {converging}")
    if pause:
        click.echo(f"{pause}; `mirage-hooks resume` ends that")
    if problem:
        click.echo(f"the next deploy will be refused: {problem}")
    for one in damaged:
        click.echo(str(one))
    _warn_of_branch(repository, bound.branch)
    columns = [
        "guest",
        "target",
        "image",
        "commit",
        "since",
        "address",
        "health",
        "restarts",
        "intent",
    ]
    print_table(columns, [[_cell(guest[column]) for column in columns] for guest in guests])
    for guest in guests:
        for warning in cast("list[str]", guest["warnings"]):
            click.echo(f"{guest['guest']}: warning: {warning}")
    return 0


def _warn_of_branch(repository: Repository, branch: str) -> None:
    head = repository.head_branch()
    if not repository.git.bare and head != branch:
        click.echo(f"{head or 'a detached HEAD'} is checked out: pulls of it deploy nothing")


def _cell(value: object) -> str:
    return "-" if value in {None, ""} else str(value)


def _describe(state: State, name: str, known: Known) -> dict[str, object]:
    """Return a guest as `status --json` shows it."""
    shown = known.live or known.last
    monitor = state.monitor_state(shown) if shown is not None else None
    intent = known.intent.kind if known.intent is not None else "follow"
    facts: dict[str, object] = {
        "guest": name,
        "target": None,
        "image": None,
        "commit": None,
        "generation": None,
        "since": None,
        "address": None,
        "health": _health(known, monitor),
        "restarts": None,
        "intent": intent,
        "pid": None,
        "warnings": [],
    }
    if shown is None:
        return facts
    facts |= {
        "target": shown.boot.target,
        "image": short(shown.boot.image),
        "commit": short(shown.provenance.commit),
        "generation": shown.number,
    }
    if known.live is None or monitor is None:
        return facts
    return facts | {
        "since": moment(monitor.started),
        "address": ", ".join(shown.observed)
        or "; ".join(one.describe() for one in network.configured(shown.boot)),
        "restarts": monitor.restarts,
        "pid": monitor.tender.pid if monitor.tender is not None else None,
        "warnings": list(known.live.warnings),
    }


def _health(known: Known, monitor: MonitorState | None) -> str:
    live = known.live
    if live is None:
        return "given up" if known.given_up else "down"
    if monitor is not None and monitor.phase == "backing-off":
        return "restarting"
    return {Phase.HEALTHY: "healthy", Phase.FAILED: "failed"}.get(live.phase, "checking")


@click.command()
@shared.guests()
@click.option(
    "-n", "--lines", type=click.IntRange(1), default=20, show_default=True, help="How many."
)
@_json
@click.pass_context
def history(context: click.Context, guests: tuple[str, ...], lines: int, as_json: bool) -> int:
    """List the generations of guests, newest first: what was booted, why, and how it ended."""
    state = shared.installed(context)
    names = _named(state, guests)
    found = [past for name in names for past in histories.ever(state, name)]
    found.sort(key=lambda one: (one.generation.created, one.generation.number), reverse=True)
    rows = [_record(past) for past in found[:lines]]
    if as_json:
        print_json(rows)
        return 0
    columns = ["guest", "generation", "booted", "image", "commit", "origin", "outcome", "reason"]
    print_table(columns, [[_cell(row[column]) for column in columns] for row in rows])
    return 0


def _record(past: Past) -> dict[str, object]:
    """Return a generation as `history --json` shows it."""
    generation = past.generation
    return {
        "guest": generation.guest,
        "generation": generation.number,
        "booted": moment(generation.created),
        "image": short(generation.boot.image),
        "commit": short(generation.provenance.commit),
        "origin": generation.origin,
        "outcome": str(generation.phase),
        "reason": "; ".join(
            [generation.reason, *(f"warning: {one}" for one in generation.warnings)]
        ),
        "healthy_at": moment(generation.healthy_at),
        "ended_at": moment(generation.ended_at),
        "exit": past.exit,
        "restarts": past.restarts,
        "digest": generation.digest,
        "path": generation.provenance.path,
        "arguments": list(generation.boot.arguments),
        "observed": list(generation.observed),
        "warnings": list(generation.warnings),
        "converge": generation.converge,
        "collected": past.collected,
    }


@click.command()
@click.argument("guest", required=False, shell_complete=shared.complete_guest)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
@click.option(
    "-n", "--lines", type=click.IntRange(1), default=50, show_default=True, help="How many."
)
@click.option(
    "--generation", type=click.IntRange(1), metavar="N", help="That generation's console."
)
@_json
@click.pass_context
def logs(
    context: click.Context,
    guest: str | None,
    follow: bool,
    lines: int,
    generation: int | None,
    as_json: bool,
) -> int:
    """Show what a guest printed on its console; without a guest, what deploys did.

    --json prints the deploys' events, an object a line.
    """
    state = shared.installed(context)
    if guest is None:
        for line in growing.lines(state.events, lines, follow):
            if (event := journal.parse(line)) is not None:
                _show_event(event, as_json)
        return 0
    if as_json:
        raise click.UsageError("--json is for the deploys' events: a console is text")
    _named(state, (guest,))
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


def _named(state: State, guests: tuple[str, ...]) -> list[str]:
    names = state.guest_names()
    for guest in guests:
        if guest not in names:
            raise ConfigError(
                f"no guest {guest!r} was ever booted here",
                f"these were: {', '.join(names) or 'none'}",
            )
    return list(guests) or names
