"""The Xen domains of this installation: known by their uuid, never by a name or a number alone."""

from collections.abc import Container, Iterable
from uuid import UUID

from mirage_hooks.boot import links
from mirage_hooks.boot.errors import HostError
from mirage_hooks.boot.generation import Generation
from mirage_hooks.boot.host import Host
from mirage_hooks.boot.record import State
from mirage_hooks.boot.targets import xen
from mirage_hooks.boot.targets.tending import Others


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


def before(state: State, bound: Host, generation: Generation, adopt: Container[str]) -> Others:
    """Return the domains that end for a generation's: of its guest, and those to `adopt`.

    Raises HostError where somebody else's has its name, and is not to be adopted.
    """
    name = xen.domain_name(generation.boot, generation.guest)
    found = xen.driven(bound.tenders).domains()
    ours = {
        str(identity(state, one))
        for one in state.generations(generation.guest)
        if one.number != generation.number
    }
    theirs = [one for one in found if one.name == name and one.uuid not in ours]
    if theirs and name not in adopt:
        raise HostError(
            f"domain {name} (id {theirs[0].id}) runs already, and is none of ours",
            f"to have it replaced by this guest: mirage-hooks deploy --adopt {name}",
        )
    own = tuple(one.uuid for one in found if one.uuid in ours)
    return Others(own, tuple(one.uuid for one in theirs))
