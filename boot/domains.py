"""The Xen domains of this installation: known by their uuid, never by a name or a number alone."""

from collections.abc import Container, Iterable
from uuid import UUID

from mirage_hooks.boot import binding, control, links
from mirage_hooks.boot.convention import is_same_site
from mirage_hooks.boot.errors import HostError
from mirage_hooks.boot.generation import Generation
from mirage_hooks.boot.host import Host
from mirage_hooks.boot.process import boot_id
from mirage_hooks.boot.record import State
from mirage_hooks.boot.targets import xen
from mirage_hooks.boot.targets.tending import Others


def identity(state: State, generation: Generation) -> UUID:
    """Return the uuid of a generation's domain."""
    alias = links.tap_alias(state.installation, generation.guest, generation.number)
    return xen.identify(alias)


def sweep(state: State, bound: Host, over: Iterable[Generation]) -> list[str]:
    """Destroy the domains of generations that are over: a monitor that was killed has left them.

    Returns their names. Raises HostError.
    """
    left = {str(identity(state, one)) for one in over if _may_be_there(state, one)}
    if not left:
        return []
    xl = xen.driven(bound.tenders)
    found = [one for one in xl.domains() if one.uuid in left]
    for one in found:
        xl.end(one.uuid)
    return [one.name for one in found]


def _may_be_there(state: State, generation: Generation) -> bool:
    """Whether a generation may have a domain: none outlives the boot of the host's kernel."""
    if generation.boot.target != "xen":
        return False
    if (monitor := state.monitor_state(generation)) is not None:
        return monitor.monitor.boot == boot_id()
    folder = state.generation_folder(generation.guest, generation.number)
    return (folder / control.ORDERS).exists()  # its monitor was killed before it stood armed


def before(state: State, bound: Host, generation: Generation, adopt: Container[str]) -> Others:
    """Return the domains that end for a generation's: of its guest, and those to `adopt`.

    One whose tender was killed is to be paused like those, if it is not yet; so is one of another
    guest of ours that has the name. What is looked after keeps it until guests are switched. What
    volumes somebody else's has is not known: any may be in the way.

    Raises HostError where somebody else's has the name, dots or not, and is not to be adopted: a
    script may have booted the same site.
    """
    found = xen.driven(bound.tenders).domains()
    ours = {
        str(identity(state, one)): one
        for guest in state.guest_names()
        for one in state.generations(guest)
    }
    name = generation.boot.domain.called(generation.guest)
    made_up = generation.boot.domain.name is None
    theirs = [
        one
        for one in found
        if one.uuid not in ours and (one.name == name or (made_up and is_same_site(one.name, name)))
    ]
    for one in theirs:
        if one.name not in adopt:
            raise HostError(
                f"domain {one.name} (id {one.id}) runs already, and is none of ours",
                f"to have it replaced by this guest: mirage-hooks deploy --adopt {one.name}",
            )
    ours.pop(str(identity(state, generation)), None)
    # One that crashed may have no domain just now, and another one when this takes its place.
    still = [
        uuid
        for uuid, one in ours.items()
        if one.guest == generation.guest and one.boot.target == "xen" and _is_tended(state, one)
    ]
    serving = [one.uuid for one in theirs]
    for one in found:
        before = ours.get(one.uuid)
        if before is None or one.uuid in still:
            continue
        monitored = state.monitor_state(before) is not None
        # Without a monitor's word it may be about to be armed, side by side with this one.
        left = one.name == name and monitored and not _is_tended(state, before)
        if before.guest == generation.guest or left:
            (still if one.paused else serving).append(one.uuid)
    there = {one.uuid for one in found}
    torn = any(
        binding.torn(one.boot, generation.boot)
        and one.boot.target == "xen"
        and (uuid in there or _is_tended(state, one))
        for uuid, one in ours.items()
    )
    has_volumes = any(volume.image is None for volume in generation.boot.volumes.values())
    return Others(tuple(still), tuple(serving), torn or (bool(theirs) and has_volumes))


def _is_tended(state: State, generation: Generation) -> bool:
    monitor = state.monitor_state(generation)
    return monitor is not None and monitor.monitor.alive
