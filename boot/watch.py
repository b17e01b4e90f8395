"""What is seen of a generation's network while it boots: on its taps, and on its console."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mirage_hooks.boot import sightings
from mirage_hooks.boot.console import tail
from mirage_hooks.boot.errors import HostError
from mirage_hooks.boot.guest import Boot
from mirage_hooks.boot.health import Reachable
from mirage_hooks.boot.observer import Observer
from mirage_hooks.boot.sightings import Configured, Sighting

# Where a guest says its addresses: at its start, but a chatty one says more.
_CONSOLE_LINES = 10_000


@dataclass(frozen=True)
class Observation:
    """What was seen of one device, in words and as addresses; `warning` where it is not as told."""

    device: str
    text: str
    addresses: tuple[str, ...]
    warning: str | None


class Watch:
    """The watch over one generation's taps, from before it is fired to its verdict.

    Where the generation was left behind by a converge it is `late`: the guest has spoken already.
    """

    def __init__(self, boot: Boot, taps: Mapping[str, str], late: bool = False) -> None:
        """Watch from now on; what may not be watched, or is not there, is known by its console."""
        self._late = late
        self._boot = boot
        self._taps = taps
        self._observers: dict[str, Observer] = {}
        self.open()

    def open(self) -> None:
        """Watch what is not watched yet: a domain's vif comes only with the domain."""
        for device, tap in self._taps.items():
            if device not in self._observers:
                with contextlib.suppress(HostError):
                    if (observer := Observer.open(tap)) is not None:
                        self._observers[device] = observer

    @property
    def blind(self) -> bool:
        """Whether a tap is not watched: no right to, and so none to ask the guest on it."""
        return self._observers.keys() != self._taps.keys()

    def observations(self, console: str, fired_at: float) -> Iterator[Observation]:
        """Yield what was seen of each device so far, for those of which anything could be."""
        self.open()
        for device, nic in self._boot.nics.items():
            found = self._sightings(device, console)
            if not found and device not in self._observers:
                continue
            config = self._boot.network[device]
            told = Configured(config.interfaces, config.gateways, config.dhcp, nic.mac)
            text, warning = sightings.describe(told, found, fired_at, self._late)
            seen = sightings.first_of_each(found)
            addresses = tuple(f"{one.address} at {one.mac}" for one in seen)
            yield Observation(device, text, addresses, warning)

    def reachable(self, console: str) -> list[Reachable] | None:
        """Return where the guest is to be found: as configured, or else as it was seen.

        None where that cannot be known any more: its lease came before a late watch, or the right
        to watch has gone since.
        """
        self.open()
        if self._late and self.blind:
            return None
        found = []
        for device, tap in self._taps.items():
            seen = (str(one.ip) for one in self._sightings(device, console))
            told = [str(one.ip) for one in self._boot.network[device].interfaces]
            mac = self._boot.nics[device].mac
            found += [Reachable(tap, mac, address) for address in dict.fromkeys(told or seen)]
        return None if self._late and not found else found

    def close(self) -> None:
        """End the watch."""
        for observer in self._observers.values():
            observer.close()

    def _sightings(self, device: str, console: str) -> list[Sighting]:
        observer = self._observers.get(device)
        seen = observer.sightings() if observer is not None else []
        # The console does not say of which of several devices it speaks.
        if len(self._boot.nics) == 1:
            seen = [*seen, *sightings.from_console(tail(console, _CONSOLE_LINES))]
        return seen
