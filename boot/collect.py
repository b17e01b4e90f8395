"""Remove what nothing can go back to any more; pin what something can.

The caller holds the lock. Killed at any instant it leaves what the next collection goes on with: a
generation is noted in the history before it goes, and goes at once for every reader.
"""

import socket
import time
from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path

from mirage_hooks.boot import history, keep, pins, promised, runtime, slim
from mirage_hooks.boot.desired import DesiredState
from mirage_hooks.boot.files import is_abandoned, write_atomic
from mirage_hooks.boot.guest import short
from mirage_hooks.boot.keep import Kept
from mirage_hooks.boot.plan import Known
from mirage_hooks.boot.record import State
from mirage_hooks.boot.repository import Repository
from mirage_hooks.boot.secrets import Vault
from mirage_hooks.boot.store import Store

_KEPT_RUNS = 50


@dataclass
class Removed:
    """What was removed of one kind: how many, of how many bytes in all."""

    count: int = 0
    size: int = 0

    def add(self, size: int) -> None:
        """Count one more."""
        self.count += 1
        self.size += size

    def unlink(self, path: Path) -> None:
        """Remove a file, if nobody else did, and count it."""
        try:
            size = path.lstat().st_size
            path.unlink()
        except FileNotFoundError:
            return
        self.add(size)


@dataclass
class Collected:
    """What a collection removed; `gone` are commits found missing that were not before."""

    images: Removed = field(default_factory=Removed)
    generations: Removed = field(default_factory=Removed)
    runs: Removed = field(default_factory=Removed)
    leftovers: Removed = field(default_factory=Removed)
    history: Removed = field(default_factory=Removed)
    gone: frozenset[str] = frozenset()


def collect(
    repository: Repository,
    state: State,
    store: Store,
    states: int,
    known: Mapping[str, Known],
    desired: DesiredState | None,
    guests: Collection[str],
    asked: bool = False,
) -> Collected:
    """Collect the generations of some guests, and the images and pins that no guest needs.

    `states` healthy states are kept of each. Where what is desired could not be told (None) every
    image stays. A partial clone forgets what else was fetched, and all that its remote, `asked`
    right now, has. Raises Error, OSError.
    """
    done = Collected()
    digests = {name: one.boot.digest for name, one in desired.guests.items()} if desired else {}
    kept = {
        name: keep.decide(
            one, states, digests.get(name), _alive(state, one) if name in guests else frozenset()
        )
        for name, one in known.items()
    }
    # Images first: on a full disk they make room for what is written after them.
    if desired is not None:
        wanted = (one.boot.stored for one in desired.guests.values())
        images = frozenset[str]().union(*wanted, *(one.images for one in kept.values()))
        _collect_images(store, images, done)
        _collect_secrets(state, desired, known, kept)
    commits = frozenset[str]().union(*(one.commits for one in kept.values()))
    gone = pins.update(repository, commits)
    for name in guests:
        if name in known:
            _collect_generations(state, name, known[name], kept[name], done)
    done.gone = _told_first(state, gone)
    if desired is not None and promised.is_partial(repository.common_dir):
        done.history = Removed(*slim.drop(repository, _blobs(desired, known, kept), asked))
    return done


def sweep(state: State, common_dir: Path, done: Collected) -> None:
    """Remove what killed processes left behind, and old runs. Raises Error, OSError."""
    done.runs = forget_runs(state)
    for path in state.folder.rglob(".*.new"):
        if is_abandoned(path.name):
            done.leftovers.unlink(path)
    for path in runtime.folder(common_dir).iterdir():
        if _is_deserted(path):
            done.leftovers.unlink(path)


def forget_runs(state: State) -> Removed:
    """Remove all but the newest of the converges' own logs. Raises OSError.

    Those of a time to come go first: the clock was wrong then, and they are not the newest.
    """
    removed = Removed()
    now = time.strftime("%Y%m%dT%H%M%S~", time.gmtime())
    for path in sorted(state.runs.glob("*.jsonl"), key=lambda path: (path.name < now, path.name))[
        :-_KEPT_RUNS
    ]:
        removed.unlink(path)
    return removed


def say_gone(commits: Collection[str]) -> str:
    """Return in words that commits are not there to be pinned."""
    names = ", ".join(map(short, sorted(commits)))
    return (
        f"no longer in the repository: {names}; what was booted from there can be gone back to "
        "for as long as its image is stored"
    )


def _blobs(
    desired: DesiredState, known: Mapping[str, Known], kept: Mapping[str, Kept]
) -> frozenset[str]:
    """Return the blobs of all images that may be booted again."""
    staying = (
        one.provenance.blobs
        for name in kept
        for one in known[name].generations
        if one.boot.stored <= kept[name].images
    )
    wanted = (one.provenance.blobs for one in desired.guests.values())
    return frozenset[str]().union(*wanted, *staying)


def _alive(state: State, known: Known) -> frozenset[int]:
    """Return the generations that have a process yet, the live one or not."""
    found = set()
    for generation in known.generations:
        monitor = state.monitor_state(generation)
        if monitor is not None and (monitor.monitor.alive or monitor.alive):
            found.add(generation.number)
    return frozenset(found)


def _collect_images(store: Store, images: Set[str], done: Collected) -> None:
    unneeded = store.unneeded(images)
    for path in unneeded.images:
        done.images.unlink(path)
    for path in unneeded.entries:
        path.unlink(missing_ok=True)
    for path in unneeded.unfinished:
        done.leftovers.unlink(path)


def _collect_secrets(
    state: State, desired: DesiredState, known: Mapping[str, Known], kept: Mapping[str, Kept]
) -> None:
    """Keep the secrets of every generation that stays: none can be had again, as an image can."""
    staying = (
        one.boot.secrets
        for name in kept
        for one in known[name].generations
        if one.number in kept[name].generations
    )
    wanted = (one.boot.secrets for one in desired.guests.values())
    Vault(state.secrets).collect({digest for digest in (*wanted, *staying) if digest is not None})


def _told_first(state: State, gone: Collection[str]) -> frozenset[str]:
    """Return the commits that are gone and were not so before: each is told of once."""
    try:
        told = frozenset(state.gone.read_text().split())
    except FileNotFoundError:
        told = frozenset()
    if told != (now := frozenset(gone)):
        write_atomic(state.gone, "".join(f"{commit}\n" for commit in sorted(now)).encode())
    return now - told


def _collect_generations(
    state: State, guest: str, known: Known, kept: Kept, done: Collected
) -> None:
    # The newest stays, be there a record under it or not: numbers are never used again.
    going = [number for number in state.numbers(guest)[:-1] if number not in kept.generations]
    recorded = [one for one in known.generations if one.number in going]
    history.keep(state, guest, [history.describe(state, one, True) for one in recorded])
    for number in going:
        folder = state.generation_folder(guest, number)
        done.generations.add(sum(path.lstat().st_size for path in folder.iterdir()))
    state.forget(guest, going)


def _is_deserted(path: Path) -> bool:
    """Whether nobody listens on a socket any more: its monitor was killed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False  # its queue is full: somebody is there
    return False
