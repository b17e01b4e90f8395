"""Who comes after whom where guests are switched: pure."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from mirage_hooks.boot import binding, network, targets
from mirage_hooks.boot.control import MonitorState
from mirage_hooks.boot.generation import Generation
from mirage_hooks.boot.survey import Running


@dataclass(frozen=True)
class Predecessor:
    """A generation that ends before another one boots, and its monitor.

    One that is to `make_way` may leave to the other's tender what does nothing any more.
    """

    generation: Generation
    monitor: MonitorState
    make_way: bool


def predecessors(
    new: Generation, moving: Collection[Generation], live: Mapping[str, Running]
) -> Iterator[Predecessor]:
    """Yield what ends for a new generation: its guest's own, and what has what it is to have.

    That is of guests which are `moving`, too: two may exchange what they have. One that ends for
    several makes way for none: what it left would be in the way of the others.
    """
    for name in (other.guest for other in moving if other.guest in live):
        old, monitor = live[name]
        after = [one.guest for one in moving if one.guest == name or contested(old, one)]
        if new.guest in after:
            yield Predecessor(old, monitor, after == [name] and _sees_to(new, old))


def blocked(new: Generation, moving: Collection[Generation], live: Mapping[str, Running]) -> str:
    """Return what a new generation is to have that a guest has which stays, "" for nothing."""
    staying = live.keys() - {other.guest for other in moving}
    for name in sorted(staying):
        if what := contested(live[name][0], new):
            return f"{what} is still that of {name}"
    return ""


def contested(old: Generation, new: Generation) -> str:
    """Return what a running generation has that a new one is to have, "" for nothing."""
    held = network.endpoints(old.boot)
    for endpoint in network.endpoints(new.boot):
        if any(endpoint.overlaps(other) for other in held):
            return f"port {endpoint.port}"
    return binding.contested((old.guest, old.boot), (new.guest, new.boot))


def _sees_to(new: Generation, old: Generation) -> bool:
    """Whether the new tender takes away what the old one may leave."""
    return new.boot.target == old.boot.target and targets.named(new.boot.target).outside
