"""What is asked of a converge, and the operator's word on guests that comes with it."""

import time
from collections.abc import Callable, Set
from typing import Literal

import msgspec

from mirage_hooks.boot import survey
from mirage_hooks.boot.desired import DesiredState
from mirage_hooks.boot.errors import ConfigError
from mirage_hooks.boot.generation import Generation
from mirage_hooks.boot.guest import short
from mirage_hooks.boot.intent import Intent
from mirage_hooks.boot.journal import Journal
from mirage_hooks.boot.plan import Known, Launch, Wish
from mirage_hooks.boot.record import State


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a converge. `origin` says by whom, in a word: pull, deploy, ...

    `head` says what is checked out where a hook ran; `automatic` is what nobody asked
    for by hand: a pause holds it back, and what could not be prepared of late is not tried again
    yet; `quiet` is logged only where it changes something. `adopt` are Xen domains that a guest of
    the same name may take the place of, whoever has made them.
    """

    origin: str
    head: str | None = None
    automatic: bool = False
    quiet: bool = False
    verb: Literal["deploy", "reboot", "stop", "start", "rollback", "up"] = "deploy"
    guests: tuple[str, ...] = ()
    to: int | None = None
    retry: bool = False
    allow_empty: bool = False
    adopt: tuple[str, ...] = ()


def parse(text: str) -> Request:
    """Return a request from what JSON made of it. Raises ConfigError."""
    try:
        return msgspec.json.decode(text, type=Request)
    except msgspec.DecodeError as error:
        raise ConfigError(f"this cannot be asked: {error}") from None


def refuse_unknown(request: Request, there: Set[str]) -> None:
    """Raise ConfigError where a guest is named that is not there."""
    for name in request.guests:
        if name not in there:
            guests = ", ".join(sorted(there)) or "none"
            raise ConfigError(f"there is no guest {name!r}", f"the guests here: {guests}")


def take(
    request: Request,
    state: State,
    journal: Journal,
    desired: DesiredState,
    known: dict[str, Known],
    fetch: Callable[[str, Launch], None],
) -> Wish:
    """Record the operator's word on each guest that is named, in the state and in what is known.

    What is asked for beside is returned.

    `fetch` raises Error where a state cannot be booted: nothing is pinned to it then.
    """
    there = set(desired.names)
    if request.verb != "rollback":  # one that left the repository is not held to a state of it
        there |= {name for name, one in known.items() if one.live is not None}
    refuse_unknown(request, there)
    for name in request.guests:
        one = known.get(name, Known())
        if request.verb == "rollback":
            target = _rollback_target(request, name, one)
            fetch(name, Launch.of(target))
            _pin(state, journal, desired, name, target)
        elif one.intent is not None and (request.verb == "start" or one.intent.kind == "held"):
            state.set_intent(name, None)
        if name in known:
            known[name] = survey.look(state, name)
    reboot = request.guests or tuple(desired.names)
    return Wish(
        reboot=frozenset(reboot if request.verb == "reboot" else ()),
        retry=request.retry,
        retry_only=frozenset(request.guests),
        allow_empty=request.allow_empty,
    )


def _pin(
    state: State, journal: Journal, desired: DesiredState, name: str, target: Generation
) -> None:
    """Pin a guest to the generation that it is to be rolled back to."""
    wanted = desired.guests.get(name)
    digest = wanted.boot.digest if wanted is not None else None
    state.set_intent(name, Intent("pinned", time.time(), target.number, digest))
    journal.event(
        "guest.pinned",
        f"{name}: pinned to generation {target.number} ({short(target.boot.image)}) until the "
        "repository asks for something new",
        guest=name,
        generation=target.number,
    )


def _rollback_target(request: Request, name: str, known: Known) -> Generation:
    if request.to is not None:
        target = known.numbered(request.to)
        if target is None or target.healthy_at is None:
            healthy = [str(one.number) for one in known.generations if one.healthy_at is not None]
            old = target is None and any(one.number > request.to for one in known.generations)
            raise ConfigError(
                f"{name} has no healthy generation {request.to}" + " any more" * old,
                f"these were healthy: {', '.join(healthy) or 'none'}",
            )
        return target
    running = known.live or known.last
    target = known.last_healthy(running.digest) if running is not None else None
    if target is None:
        raise ConfigError(f"{name} has no other healthy state to go back to")
    return target
