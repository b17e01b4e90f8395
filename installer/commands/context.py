"""What commands share: the repository they are about, its guests' names, and running a converge."""

import os
import sys
from collections.abc import Callable

import click
from click.shell_completion import CompletionItem

from mirage_hooks.boot import follow, host, severity
from mirage_hooks.boot.environment import leave_operation
from mirage_hooks.boot.errors import ConfigError, Error
from mirage_hooks.boot.record import State
from mirage_hooks.boot.repository import Repository


def repository(context: click.Context, keep: frozenset[str] = frozenset()) -> Repository:
    """Return the repository a command is about, whatever git operation it is run from.

    What of its environment is to be kept, stays.
    """
    leave_operation(keep)
    return Repository(context.find_root().obj)


def installed(context: click.Context) -> State:
    """Return the state folder of the repository, if it is this user's. Raises Error."""
    state = State(repository(context).common_dir)
    host.load(state.host_file)
    state.check_access()
    return state


def complete_guest(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the name of a guest."""
    del parameter
    try:
        names = State(
            Repository(context.find_root().params.get("repo", ".")).common_dir
        ).guest_names()
    except Error:
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def guests(required: bool = False) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Return the argument that names guests."""
    return click.argument(
        "guests",
        metavar="GUEST..." if required else "[GUEST...]",
        nargs=-1,
        required=required,
        shell_complete=complete_guest,
    )


def named(state: State, guests: tuple[str, ...]) -> list[str]:
    """Return the guests that are named, all where none is. Raises ConfigError for unknown ones."""
    names = state.guest_names()
    for guest in guests:
        if guest not in names:
            raise ConfigError(
                f"no guest {guest!r} was ever booted here",
                f"these were: {', '.join(names) or 'none'}",
            )
    return list(guests) or names


def confirm(question: str, yes: bool) -> None:
    """Ask, unless the answer was given as `yes`. Raises ConfigError where nobody is there."""
    if not yes and os.isatty(0):
        click.confirm(question, abort=True)
    elif not yes:
        raise ConfigError("nobody is there to be asked", "say --yes")


def converge(context: click.Context, **request: object) -> int:
    """Start a converge, follow it, and return its exit code."""
    run = follow.start(
        str(repository(context).common_dir), {"origin": context.info_name, **request}
    )
    try:
        return follow.follow(run, _show)
    except KeyboardInterrupt:
        print("the deploy goes on; `mirage-hooks logs -f` follows it", file=sys.stderr)
        raise click.Abort from None


def _show(event: dict[str, object]) -> None:
    failed = event["event"] == "converge.finished" and event["exit_code"]
    text = f"mirage-hooks: {event['message']}" if failed else str(event["message"])
    click.echo(
        severity.ranked(text, severity.priority(event), 2 if failed else 1), err=bool(failed)
    )
