"""The Xen domains of this installation: known by their uuid, never by a name or a number alone."""

from collections.abc import Container, Iterable
from uuid import UUID

from mirage_hooks.boot import links
from mirage_hooks.boot.convention import is_same_site
from mirage_hooks.boot.errors import HostError
from mirage_hooks.boot.generation import Generation
from mirage_hooks.boot.host import Host
from mirage_hooks.boot.record import State
from mirage_hooks.boot.survey import is_live
from mirage_hooks.boot.targets import xen
from mirage_hooks.boot.targets.tending import Others
from mirage_hooks.boot.xl import Listed


def identity(state: State, generation: Generation) -> UUID:
    """Return the uuid of a generation's domain."""
    alias = links.tap_alias(state.installation, generation.guest, generation.number)
    return xen.identify(alias)


def sweep(state: State, bound: Host, over: Iterable[Generation]) -> list[str]:
    """Destroy the domains of generations that are over: a monitor that was killed has left them.

    Returns their names. Raises HostError.
    """
    left = {str(identity(state, one)) for one in over if one.boot.target == "xen"}
    if not left:
        return []
    xl = xen.driven(bound.tenders)
    found = [one for one in xl.domains() if one.uuid in left]
    for one in found:
        xl.end(one.uuid)
    return [one.name for one in found]


def before(state: State, bound: Host, generation: Generation, adopt: Container[str]) -> Others:
    """Return the domains that end for a generation's: of its guest, and those to `adopt`.

    One of its guest whose tender was killed is to be paused like those, if it is not yet.

    Raises HostError where somebody else's has its name, dots or not, and is not to be adopted: a
    script may have booted the same site.
    """
    name = xen.domain_name(generation.boot, generation.guest)
    found = xen.driven(bound.tenders).domains()
    ours = {
        str(identity(state, one)): one
        for one in state.generations(generation.guest)
        if one.number != generation.number
    }
    theirs = [one for one in found if one.name == name and one.uuid not in ours]
    if generation.boot.domain.name is None:
        theirs += _of_its_site(state, found, name)
    for one in theirs:
        if one.name not in adopt:
            raise HostError(
                f"domain {one.name} (id {one.id}) runs already, and is none of ours",
                f"to have it replaced by this guest: mirage-hooks deploy --adopt {one.name}",
            )
    own = [one for one in found if one.uuid in ours]
    still = [one.uuid for one in own if one.paused or is_live(state.monitor_state(ours[one.uuid]))]
    return Others(tuple(still), tuple(one.uuid for one in (*own, *theirs) if one.uuid not in still))


def _of_its_site(state: State, found: Iterable[Listed], name: str) -> list[Listed]:
    """Return the domains, of no guest of ours, whose names have other dots than `name`."""
    alike = [one for one in found if one.name != name and is_same_site(one.name, name)]
    guests = state.guest_names() if alike else ()
    ours = {str(identity(state, one)) for guest in guests for one in state.generations(guest)}
    return [one for one in alike if one.uuid not in ours]
