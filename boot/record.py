"""The state folder: everything that outlives a process.

host.toml                     the host file (host.py)
lock                          who converges (lock.py)
settled, watched, monitors,
bound                         the hooks' fast path (settled.py)
events.jsonl                  the event log (journal.py)
runs/ID.jsonl                 one converge, for those who follow it
intents/GUEST.json            the operator's word, where it is not `follow` (intent.py)
faults/GUEST.json             what kept a guest from being prepared, until it is (faults.py)
guests/GUEST/N/               one generation:
    generation.json           its record, the converger's (generation.py)
    orders.json               what its monitor was told
    monitor.json              what its monitor says
    console.log, monitor.log  what the guest and the monitor printed; .1 of each is what was before
guests/GUEST/history.jsonl    what is left of generations that were collected (history.py)
notifying                     whose event the operator's command is told (notify.py)
gone                          commits that cannot be pinned: said already (collect.py)
store/                        unpacked images (store.py)
secrets/                      secret arguments (secrets.py)
paused                        why hooks deploy nothing, while they do not
poll                          the script that polls (pollfile.py of the installer)
poll.lock                     one poll at a time
poll.bound                    what it is to fetch, and the host file that says so
poll.json                     what polls have said, while something is wrong
fetch.log                     what git said to the last fetch of a poll

Beside it, since who may push may not look into it: `mirage-hooks.trigger` (follow.py).
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import msgspec

from mirage_hooks.boot import control, host, installation, ownership
from mirage_hooks.boot.control import MonitorState
from mirage_hooks.boot.errors import HostError
from mirage_hooks.boot.faults import Fault
from mirage_hooks.boot.files import sync_folder, write_atomic
from mirage_hooks.boot.follow import trigger
from mirage_hooks.boot.generation import FORMAT, Generation
from mirage_hooks.boot.intent import Intent, Pause
from mirage_hooks.boot.users import user_name

FOLDER = "mirage-hooks"

_INTENTS, _FAULTS = "intents", "faults"

T = TypeVar("T")


class _Format(msgspec.Struct):
    format: int | None = None


class DamagedError(HostError):
    """A record that cannot be read. The next deploy sets it aside (rebuild.py)."""

    def __init__(self, path: Path, error: Exception) -> None:
        super().__init__(
            f"the state folder is damaged: {path}: {error}",
            "what runs goes on running; `mirage-hooks deploy` sets the file aside, and records "
            "what runs anew",
        )
        self.path = path

    @property
    def guest(self) -> str:
        """The guest that it is about."""
        by_name = self.path.parent.name in {_INTENTS, _FAULTS}
        return self.path.stem if by_name else self.path.parent.parent.name

    @property
    def is_intent(self) -> bool:
        """Whether it is the operator's word on the guest."""
        return self.path.parent.name == _INTENTS


class State:
    """The state folder of one repository."""

    def __init__(self, common_dir: Path) -> None:
        self.folder = common_dir / FOLDER
        self.installation = installation.identify(common_dir)
        self.host_file = self.folder / host.NAME
        self.lock = self.folder / "lock"
        self.trigger = Path(trigger(common_dir))
        self.settled = self.folder / "settled"
        self.watched = self.folder / "watched"
        self.bound = self.folder / "bound"
        self.monitors = self.folder / "monitors"
        self.events = self.folder / "events.jsonl"
        self.runs = self.folder / "runs"
        self.outcome = self.folder / "outcome.json"
        self.store = self.folder / "store"
        self.secrets = self.folder / "secrets"
        self._paused = self.folder / "paused"
        self.gone = self.folder / "gone"
        self.poll = self.folder / "poll"
        self.poll_bound = self.folder / "poll.bound"
        self.polls = self.folder / "poll.json"
        self.fetch_log = self.folder / "fetch.log"
        self.fetched = self.folder / "poll.fetched"
        self._faults = self.folder / _FAULTS
        self._intents = self.folder / _INTENTS
        self._guests = self.folder / "guests"
        self._read: dict[Path, tuple[tuple[int, int], Generation]] = {}

    def check_access(self) -> None:
        """Raise HostError where this user is not the one the state belongs to, or cannot write."""
        try:
            status = self.folder.stat()
        except OSError:
            return  # not installed: host.load says so
        if status.st_uid != os.geteuid():
            raise HostError(
                f"the state in {self.folder} belongs to user {user_name(status.st_uid)}",
                "run this as that user: what runs here is theirs",
            )
        if not os.access(self.folder, os.W_OK | os.X_OK, effective_ids=True):
            raise HostError(f"the state folder {self.folder} cannot be written to")
        ownership.refuse_foreign([self.folder])

    def guest_names(self) -> list[str]:
        """Return every guest that ever had a generation here, a fault, or the operator's word."""
        booted = {entry.name for entry in _entries(self._guests)}
        told = [*_entries(self._intents), *_entries(self._faults)]
        return sorted(booted | {entry.stem for entry in told if entry.suffix == ".json"})

    def generations(self, guest: str) -> list[Generation]:
        """Return a guest's generations, oldest first. Raises DamagedError."""
        found = (self.generation(guest, number) for number in self.numbers(guest))
        return [generation for generation in found if generation is not None]

    def generation(self, guest: str, number: int) -> Generation | None:
        """Return a record, None where there is none. Raises DamagedError.

        One that was read before is decoded again only where it was replaced.
        """
        path = self.generation_folder(guest, number) / "generation.json"
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        version = (status.st_ino, status.st_mtime_ns)
        if (known := self._read.get(path)) is not None and known[0] == version:
            return known[1]
        generation = _decode(path, Generation)
        if generation is not None:
            self._read[path] = (version, generation)
        return generation

    def generation_folder(self, guest: str, number: int) -> Path:
        """Return where a generation's files are."""
        return self._guests / guest / str(number)

    def console(self, generation: Generation) -> Path:
        """Return a generation's console log."""
        return self.generation_folder(generation.guest, generation.number) / control.CONSOLE

    def newest(self, guest: str) -> int:
        """Return the number of a guest's newest generation, 0 where there was none."""
        return max(self.numbers(guest), default=0)

    def next_number(self, guest: str) -> int:
        """Take the next number of a guest, for good: its folder exists from here on."""
        number = self.newest(guest) + 1
        self.generation_folder(guest, number).mkdir(parents=True, mode=0o700)
        sync_folder(self._guests / guest)
        return number

    def save(self, generation: Generation) -> Generation:
        """Record a generation, durably; return it."""
        folder = self.generation_folder(generation.guest, generation.number)
        write_atomic(folder / "generation.json", msgspec.json.encode(generation))
        return generation

    def monitor_state(self, generation: Generation) -> MonitorState | None:
        """Return what a generation's monitor last said of itself, None where it said nothing.

        Raises DamagedError.
        """
        return self.monitor_of(generation.guest, generation.number)

    def monitor_of(self, guest: str, number: int) -> MonitorState | None:
        """Return what the monitor of a number last said of itself, as `monitor_state` does."""
        return _decode(
            self.generation_folder(guest, number) / control.STATE, MonitorState, control.FORMAT
        )

    def intent(self, guest: str) -> Intent | None:
        """Return the operator's word on a guest, None for `follow`. Raises DamagedError."""
        return _decode(self._intents / f"{guest}.json", Intent)

    def set_intent(self, guest: str, intent: Intent | None) -> None:
        """Record the operator's word on a guest."""
        _write_or_remove(self._intents / f"{guest}.json", intent)

    def fault(self, guest: str) -> Fault | None:
        """Return what last kept a guest from being prepared, None once it was or for nothing."""
        return _decode(self._faults / f"{guest}.json", Fault)

    def set_fault(self, guest: str, fault: Fault | None) -> None:
        """Record what kept a guest from being prepared."""
        _write_or_remove(self._faults / f"{guest}.json", fault)

    def pause(self) -> Pause | None:
        """Return the pause that holds, None for none. Raises HostError where it is damaged."""
        try:
            return msgspec.json.decode(self._paused.read_bytes(), type=Pause)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise HostError(
                f"{self._paused} is damaged: {error}", "`mirage-hooks resume` ends the pause"
            ) from None

    def set_pause(self, pause: Pause) -> None:
        """Record a pause, in place of another."""
        write_atomic(self._paused, msgspec.json.encode(pause))

    def end_pause(self) -> bool:
        """End the pause; return whether there was one."""
        there = self._paused.exists()
        self._paused.unlink(missing_ok=True)
        return there

    def history(self, guest: str) -> Path:
        """Return where the history of a guest's collected generations is."""
        return self._guests / guest / "history.jsonl"

    def forget(self, guest: str, numbers: Iterable[int]) -> None:
        """Remove generations: each at once for every reader, and what a killed one left of some."""
        for number in numbers:
            folder = self.generation_folder(guest, number)
            folder.rename(folder.with_name(f".{number}.gone"))
            self._read.pop(folder / "generation.json", None)
        for folder in (self._guests / guest).glob(".*.gone"):
            shutil.rmtree(folder)

    def remove(self) -> None:
        """Delete the whole state folder."""
        shutil.rmtree(self.folder)

    def numbers(self, guest: str) -> list[int]:
        """Return the numbers of a guest that are taken, in order, recorded under or not."""
        names = (entry.name for entry in _entries(self._guests / guest))
        return sorted(int(name) for name in names if name.isdecimal())


def _write_or_remove(path: Path, value: msgspec.Struct | None) -> None:
    if value is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(mode=0o700, exist_ok=True)
    write_atomic(path, msgspec.json.encode(value))


def _decode(path: Path, to: type[T], known: int = FORMAT) -> T | None:
    try:
        data = path.read_bytes()
        _refuse_newer(path, data, known)
        return msgspec.json.decode(data, type=to)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamagedError(path, error) from None


def _refuse_newer(path: Path, data: bytes, known: int) -> None:
    """Raise HostError for a file of a format that came after this version, DecodeError for none."""
    found = msgspec.json.decode(data, type=_Format).format
    if found is not None and found > known:
        raise HostError(
            f"{path} was written by a newer mirage-hooks: its format is {found}, and this version "
            f"knows {known}",
            "what runs goes on running; install that version again, then run: mirage-hooks install",
        )


def _entries(folder: Path) -> list[Path]:
    try:
        return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except FileNotFoundError:
        return []
