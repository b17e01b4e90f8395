"""Commands that show: what runs, what ran, what was said."""

from typing import cast

import click

from mirage_hooks.boot import history as histories
from mirage_hooks.boot import host, journal, lock, manifest, network, survey
from mirage_hooks.boot.control import MonitorState
from mirage_hooks.boot.errors import Error
from mirage_hooks.boot.generation import Phase
from mirage_hooks.boot.guest import short
from mirage_hooks.boot.history import Past
from mirage_hooks.boot.host import Host
from mirage_hooks.boot.plan import Known
from mirage_hooks.boot.record import State
from mirage_hooks.boot.repository import Repository
from mirage_hooks.installer.commands import context as shared
from mirage_hooks.installer.output import ago, moment, print_json, print_table
from mirage_hooks.installer.prometheus import Fleet, exposition

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@click.command()
@_json
@click.option("--prometheus", is_flag=True, help="Print metrics, for node_exporter's textfiles.")
@click.pass_context
def status(context: click.Context, as_json: bool, prometheus: bool) -> int:
    """Show the guests: what runs, since when, where, and how it fares."""
    if as_json and prometheus:
        raise click.UsageError("--json and --prometheus exclude each other")
    repository = shared.repository(context)
    state = State(repository.common_dir)
    bound, _ = host.load(state.host_file)
    state.check_access()
    tip = repository.tip(bound.branch)
    _, damaged = survey.read_all(state)
    unknown = {one.guest for one in damaged}
    known = {
        name: Known() if name in unknown else survey.look(state, name)
        for name in state.guest_names()
    }
    problem = None
    try:
        described = manifest.read_guests(tip, bound)
        # Of one that left the repository, and runs no more, `history` tells.
        known = {name: one for name, one in known.items() if name in described or one.live}
        for name in described:
            known.setdefault(name, Known())
    except Error as error:
        problem = error.message
    if prometheus:
        click.echo(exposition(_fleet(repository, state, bound, known)), nl=False)
        return 0
    guests = [_describe(state, name, known[name]) for name in sorted(known)]
    for guest in guests:
        if guest["guest"] in unknown:
            guest |= {"health": "unknown", "intent": None}
    behind, fetched = repository.behind(bound.branch), repository.last_fetch(state.fetched)
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
    notes = [
        converging and f"a deploy is going on: {converging}",
        pause and f"{pause}; `mirage-hooks resume` ends that",
        problem and f"the next deploy will be refused: {problem}",
        *map(str, damaged),
        _of_branch(repository, bound.branch),
    ]
    for note in filter(None, notes):
        click.echo(note)
    _print_guests(guests)
    return 0


def _print_guests(guests: list[dict[str, object]]) -> None:
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


def _fleet(repository: Repository, state: State, bound: Host, known: dict[str, Known]) -> Fleet:
    finished = _last_finished(state)
    when, code = (finished["time"], finished["exit_code"]) if finished else (None, None)
    return Fleet(
        repository.name,
        {name: known[name] for name in sorted(known)},
        state.pause() is not None,
        repository.behind(bound.branch),
        repository.last_fetch(state.fetched),
        when if isinstance(when, float) else None,
        code if isinstance(code, int) else None,
    )


def _last_finished(state: State) -> dict[str, object] | None:
    """Return how the last converge ended: one that goes on, or was killed, has not."""
    for path in sorted(state.runs.glob("*.jsonl"), reverse=True):
        for event in journal.read(str(path)):
            if event.get("event") == "converge.finished":
                return event
    return None


def _of_branch(repository: Repository, branch: str) -> str | None:
    """Say so where another branch is checked out than the one that deploys."""
    head = repository.head_branch()
    if repository.git.bare or head == branch:
        return None
    return f"{head or 'a detached HEAD'} is checked out: pulls of it deploy nothing"


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
    names = shared.named(state, guests)
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
