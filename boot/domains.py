"""The Xen domains of this installation: known by their uuid, never by a name or a number alone."""

from collections.abc import Container, Iterable
from uuid import UUID

from mirage_hooks.boot import links
from mirage_hooks.boot.errors import HostError
from mirage_hooks.boot.host import Host
from mirage_hooks.boot.record import Generation, State
from mirage_hooks.boot.targets import xen
from mirage_hooks.boot.xl import Listed


def identity(state: State, generation: Generation) -> UUID:
    """Return the uuid of a generation's domain."""
    alias = links.tap_alias(state.installation, generation.guest, generation.number)
    return xen.identify(alias)


def sweep(state: State, bound: Host, over: Iterable[Generation]) -> None:
    """Destroy the domains of generations that are over: a monitor that was killed has left them.

    Raises HostError.
    """
    left = {str(identity(state, one)) for one in over if one.boot.target == "xen"}
    if not left:
        return
    xl = xen.driven(bound.tenders)
    for uuid in left & {one.uuid for one in xl.domains()}:
        xl.end(uuid)


def refuse_taken(
    state: State, bound: Host, generation: Generation, adopt: Container[str]
) -> str | None:
    """Return the uuid of somebody else's domain that has a generation's name, where it is to end.

    None where nobody's has it. Raises HostError where one has that is not among those to `adopt`.
    """
    name = xen.domain_name(generation.boot, generation.guest)
    other = _named(state, bound, generation.guest, name)
    if other is None or name in adopt:
        return other.uuid if other is not None else None
    raise HostError(
        f"domain {name} (id {other.id}) runs already, and is none of ours",
        f"to have it replaced by this guest: mirage-hooks deploy --adopt {name}",
    )


def _named(state: State, bound: Host, guest: str, name: str) -> Listed | None:
    """Return the domain with a name that is none of this guest's."""
    ours = {str(identity(state, one)) for one in state.generations(guest)}
    found = xen.driven(bound.tenders).domains()
    return next((one for one in found if one.name == name and one.uuid not in ours), None)
