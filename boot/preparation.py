"""What guests need before any is touched: bridges, images, and monitors that stand armed."""

from collections.abc import Container, Iterable

from mirage_hooks.boot import admission, network, sockets, wiring
from mirage_hooks.boot.errors import HostError, RepositoryError
from mirage_hooks.boot.guest import Boot, short
from mirage_hooks.boot.host import Host
from mirage_hooks.boot.journal import Journal
from mirage_hooks.boot.plan import Launch
from mirage_hooks.boot.record import State
from mirage_hooks.boot.repository import Repository
from mirage_hooks.boot.revision import Blob
from mirage_hooks.boot.sockets import Listening
from mirage_hooks.boot.store import Store
from mirage_hooks.boot.switch import Switch
from mirage_hooks.boot.wiring import Held


class Preparation:
    """That of one converge's guests, which `origin` has asked for."""

    def __init__(
        self,
        repository: Repository,
        state: State,
        store: Store,
        bound: Host,
        journal: Journal,
        origin: str,
        adopt: Container[str] = (),
    ) -> None:
        """Prepare for any; `adopt` are domains that they may take the place of, ours or not."""
        self._repository = repository
        self._state = state
        self._store = store
        self._bound = bound
        self._journal = journal
        self._origin = origin
        self._adopt = adopt
        self._unmade: dict[str, HostError] = {}

    def make_bridges(self, boots: Iterable[Boot]) -> None:
        """Have the bridges that are to be ours, each once: guests are prepared side by side."""
        networks = {boot.network[device].network for boot in boots for device in boot.nics}
        for name in sorted(networks - self._unmade.keys()):
            try:
                wiring.make_bridge(self._state, self._bound, name)
            except HostError as error:
                self._unmade[name] = error

    def arm(self, guest: str, launch: Launch, taken: Listening, held: Held) -> Switch:
        """Bring a new generation to stand armed, beside what runs. Raises Error, OSError."""
        # Once more: it may be a recorded state, from before the host took a right away.
        admission.admit(launch.boot, self._bound)
        self._refuse_unmade(launch.boot)
        _refuse_taken_port(guest, launch, taken)
        self.fetch(guest, launch)
        switch = Switch(
            self._repository.common_dir,
            self._state,
            self._store,
            self._journal,
            self._bound,
            self._adopt,
        )
        switch.arm(guest, launch, self._origin, held)
        return switch

    def fetch(self, guest: str, launch: Launch) -> None:
        """Have the images of a state in the store: if need be, from their blobs in the history.

        Raises RepositoryError where one is in neither, and what `Store.add` raises.
        """
        where = launch.provenance
        if not self._store.path(launch.boot.image).exists():
            self._store.add(self._blob(guest, launch, launch.boot.image, where.path, where.blob))
        for disk, (path, oid) in where.disks.items():
            if not self._store.path(disk).exists():
                self._store.add_disk(self._blob(guest, launch, disk, path, oid))

    def _blob(self, guest: str, launch: Launch, image: str, path: str, oid: str) -> Blob:
        try:
            return self._repository.blob(path, oid)
        except RepositoryError:
            raise RepositoryError(
                f"{guest}: image {short(image)} is gone: it is not stored any more, "
                f"nor does the repository have {path} of commit {short(launch.provenance.commit)}",
                f"what runs goes on running; mirage-hooks history {guest} lists other states",
            ) from None

    def _refuse_unmade(self, boot: Boot) -> None:
        """Raise HostError where a boot needs a bridge that could not be made."""
        for device in boot.nics:
            if (error := self._unmade.get(boot.network[device].network)) is not None:
                raise error


def _refuse_taken_port(guest: str, launch: Launch, listening: Listening) -> None:
    if found := sockets.taken(network.endpoints(launch.boot), listening):
        endpoint, process = found
        raise HostError(
            f"{guest}: {endpoint} is in use by {process}",
            "end it, or give the guest another port; what runs goes on running",
        )
