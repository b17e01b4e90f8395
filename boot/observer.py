"""Watching a guest's tap while it boots: the addresses that it announces or is granted."""

import socket

from mirage_hooks.boot import packets
from mirage_hooks.boot.dhcp import Lease
from mirage_hooks.boot.errors import HostError
from mirage_hooks.boot.frames import Arp, Frame, Neighbour, decode
from mirage_hooks.boot.packets import ANNOUNCEMENTS, Captured
from mirage_hooks.boot.sightings import MOST_SIGHTINGS, Sighting

# A guest could send faster than we read.
_MOST_FRAMES = 10_000


class Observer:
    """A socket on a guest's tap, in whose buffer announcements wait until they are asked for."""

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self._speakers = set[str]()
        self._found: dict[tuple[str, str, str], Sighting] = {}

    @classmethod
    def open(cls, link: str) -> "Observer | None":
        """Watch a link from now on; None without the right to (CAP_NET_RAW).

        Raises HostError where there is no such link.
        """
        try:
            return cls(packets.open_socket(link, ANNOUNCEMENTS))
        except PermissionError:
            return None
        except OSError as error:
            raise HostError(f"network: cannot watch {link}: {error.strerror}") from None

    def sightings(self) -> list[Sighting]:
        """Return what was seen so far: the first sighting of each address at each MAC, by kind."""
        for _ in range(_MOST_FRAMES):
            captured = packets.receive(self._socket)
            if captured is None:
                break
            frame = decode(captured.data)
            if frame is not None:
                self._note(frame, captured)
        return list(self._found.values())

    def close(self) -> None:
        """Watch no longer. The kernel takes 10 to 20 ms for it: do it when nobody waits."""
        self._socket.close()

    def _note(self, frame: Frame, captured: Captured) -> None:
        if not captured.outgoing and len(self._speakers) < MOST_SIGHTINGS:
            self._speakers.add(frame.source)
        found = _granted(frame, captured.at) if captured.outgoing else _claimed(frame, captured.at)
        # What a server broadcasts goes to every port of the bridge: a grant is this guest's where
        # the guest has spoken as who it is granted to.
        if found is None or (captured.outgoing and found.mac not in self._speakers):
            return
        if len(self._found) < MOST_SIGHTINGS:
            self._found.setdefault((found.address, found.mac, found.how), found)


def _claimed(frame: Frame, at: float) -> Sighting | None:
    """Return what a frame of the guest's says that the guest's address is."""
    match frame.packet:
        case Arp() as arp if not arp.is_probe:
            return Sighting(str(arp.address), arp.mac, "ARP", at)
        case Neighbour() as packet:
            # Who solicits from no address tries whether the one it asks for is free (RFC 4862).
            own = packet.target
            if not packet.advertisement and not packet.source.is_unspecified:
                own = packet.source
            return Sighting(str(own), packet.mac or frame.source, "ND", at)
    return None


def _granted(frame: Frame, at: float) -> Sighting | None:
    match frame.packet:
        case Lease(mac, address, routers):
            gateway = str(routers[0]) if routers else None
            return Sighting(str(address), mac, "DHCP", at, gateway)
    return None
