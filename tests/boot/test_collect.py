"""Collecting: what goes, what is left of it, and what a collection that is killed leaves."""

import os
import socket
from dataclasses import asdict
from pathlib import Path

import msgspec
import pytest

from mirage_hooks.boot import collect, control, history, pins, runtime, survey
from mirage_hooks.boot.collect import Collected
from mirage_hooks.boot.control import MonitorState
from mirage_hooks.boot.desired import DesiredState
from mirage_hooks.boot.keep import RECENT
from mirage_hooks.boot.process import ProcessId, boot_id, identify
from mirage_hooks.boot.record import State
from mirage_hooks.boot.repository import Repository
from mirage_hooks.boot.store import Store
from mirage_hooks.boot.unpack import Unpacked
from support import collect_killed_at, past_generation, record, run

DEAD = 4_194_304  # one more than the largest pid there can be
GONE = "1" * 40
OLDER = 4  # generations that are older than those that always stay


class Host:
    """A repository of one commit, a state folder, a store; and collections of all of it."""

    def __init__(self, folder: Path) -> None:
        run("git", "commit", "-q", "--allow-empty", "-m", "one", cwd=folder)
        self.commit = run("git", "rev-parse", "HEAD", cwd=folder).stdout.strip()
        self.repository = Repository(folder)
        self.common_dir = self.repository.common_dir
        self.state.folder.mkdir(mode=0o700)
        self.store = Store(self.state.store, 1 << 20)

    @property
    def state(self) -> State:
        """The state folder, nothing of it known yet."""
        return State(self.common_dir)

    def boot(self, count: int, guest: str = "www", same: bool = False) -> None:
        """Record generations, each with an image of its own or all with the `same`."""
        for number in range(1, count + 1):
            name = f"{guest}-{0 if same else number}"
            image = self.unpack(name)
            record(self.state, past_generation(number, image, self.commit, guest=guest))

    def unpack(self, name: str) -> str:
        """Put an image into the store, and its blob into the index; return its sha256."""
        image = f"{name.encode().hex():0>64}"
        blobs = self.state.store / "blobs"
        blobs.mkdir(parents=True, exist_ok=True)
        self.store.path(image).write_bytes(b"x" * 1000)
        stored = Unpacked("unix", sha256=image, size=1000, packed_size=1000, compression="none")
        (blobs / f"{name}.json").write_bytes(msgspec.json.encode(stored))
        return image

    def collect(self, *guests: str, states: int = 3) -> Collected:
        """Collect, by default for the guest www."""
        return collect.collect(
            self.repository,
            self.state,
            self.store,
            states,
            survey.look_at_all(self.state),
            DesiredState("", {}),
            guests or ("www",),
        )

    def images(self) -> int:
        """Return how many images are stored."""
        return len([path for path in self.state.store.iterdir() if path.is_file()])

    def pinned(self) -> str:
        """Return the names of the refs that pin, a line each."""
        found: str = self.repository.git.git.for_each_ref(
            "--format=%(refname)", "refs/mirage-hooks"
        )
        return found


@pytest.fixture
def host(folder: Path) -> Host:
    return Host(folder)


# Generations.


def test_folders_of_old_generations_go(host: Host) -> None:
    host.boot(RECENT + OLDER, same=True)
    assert host.collect().generations.count == OLDER
    assert host.state.numbers("www") == list(range(OLDER + 1, RECENT + OLDER + 1))


def test_a_generation_that_went_is_in_the_history_as_it_was(host: Host) -> None:
    host.boot(RECENT + OLDER)
    before = history.ever(host.state, "www")
    host.collect()
    after = sorted(history.ever(host.state, "www"), key=lambda past: past.generation.number)
    assert [past.generation for past in after] == [past.generation for past in before]
    assert [past.collected for past in after] == [True] * OLDER + [False] * RECENT


def test_the_history_tells_how_the_guest_ended(host: Host) -> None:
    host.boot(RECENT + 1, same=True)
    ended = ProcessId(boot_id(), DEAD, 1)
    said = MonitorState("stopped", ended, None, "/run/socket", 1.5, "exited with 3", 3, 2)
    path = host.state.generation_folder("www", 1) / control.STATE
    path.write_bytes(msgspec.json.encode(asdict(said)))
    host.collect()
    (past,) = history.collected(host.state, "www")
    assert (past.exit, past.restarts) == ("exited with 3", 2)


def test_a_second_collection_finds_nothing(host: Host) -> None:
    host.boot(RECENT + OLDER)
    host.collect()
    again = host.collect()
    assert (again.images.count, again.generations.count) == (0, 0)


def test_numbers_are_not_used_again(host: Host) -> None:
    host.boot(RECENT + OLDER)
    host.collect()
    assert host.state.next_number("www") == RECENT + OLDER + 1


def test_a_number_without_a_record_goes_but_for_the_newest(host: Host) -> None:
    host.boot(2)
    for number in (3, 4):
        host.state.generation_folder("www", number).mkdir()
    host.collect()
    assert host.state.numbers("www") == [1, 2, 4]


def test_only_the_guests_that_are_named_are_looked_at(host: Host) -> None:
    host.boot(RECENT + OLDER)
    host.boot(RECENT + OLDER, "mail")
    host.collect("www")
    assert len(host.state.numbers("mail")) == RECENT + OLDER


def test_a_guest_whose_monitor_lives_keeps_that_generation(host: Host) -> None:
    host.boot(RECENT + OLDER)
    me = identify(os.getpid())
    said = MonitorState("stopping", me, None, "/run/socket")
    path = host.state.generation_folder("www", 1) / control.STATE
    path.write_bytes(msgspec.json.encode(asdict(said)))
    host.collect()
    (generation, *_) = host.state.generations("www")
    assert generation.number == 1
    assert host.store.path(generation.boot.image).exists()


# Images.


def test_images_of_old_states_go_and_their_index_with_them(host: Host) -> None:
    host.boot(5)
    assert host.collect().images.count == 2
    assert (host.images(), len(list((host.state.store / "blobs").iterdir()))) == (3, 3)


def test_an_image_stays_while_any_guest_keeps_it(host: Host) -> None:
    host.boot(5)
    shared = host.state.generations("www")[0].boot.image
    record(host.state, past_generation(1, shared, host.commit, guest="mail"))
    host.collect()
    assert host.store.path(shared).exists()


def test_an_image_that_was_never_booted_goes(host: Host) -> None:
    host.boot(1)
    image = host.unpack("never")
    host.collect()
    assert not host.store.path(image).exists()


def test_no_image_goes_where_it_is_not_known_what_is_desired(host: Host) -> None:
    host.boot(5)
    known = survey.look_at_all(host.state)
    collect.collect(host.repository, host.state, host.store, 3, known, None, ["www"])
    assert host.images() == 5


def test_an_index_entry_without_its_image_goes(host: Host) -> None:
    host.boot(2)
    host.store.path(host.state.generations("www")[0].boot.image).unlink()
    host.collect()
    assert len(list((host.state.store / "blobs").iterdir())) == 1


# Pins.


def test_commits_that_can_be_gone_back_to_are_pinned(host: Host) -> None:
    host.boot(1)
    host.collect()
    assert host.pinned() == f"refs/mirage-hooks/keep/{host.commit}"


def test_a_pin_that_nothing_needs_any_more_is_dropped(host: Host) -> None:
    host.boot(1)
    host.collect()
    host.state.forget("www", [1])
    host.collect()
    assert host.pinned() == ""


def test_a_commit_that_is_gone_is_passed_over_and_said_once(host: Host) -> None:
    host.boot(2)
    host.state.save(past_generation(1, "a" * 64, GONE))
    assert host.collect().gone == {GONE}
    assert host.collect().gone == frozenset()
    assert host.pinned() == f"refs/mirage-hooks/keep/{host.commit}"


def test_pins_are_left_alone_where_nothing_changed(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.boot(2)
    host.collect()

    def refuse(commands: list[str]) -> None:
        assert commands == []

    monkeypatch.setattr(host.repository, "update_refs", refuse)
    host.collect()


def test_without_pins_nothing_of_ours_is_left_in_the_repository(host: Host) -> None:
    before = {str(path) for path in host.common_dir.rglob("*")}
    pins.update(host.repository, {host.commit})
    pins.remove(host.repository)
    assert {str(path) for path in host.common_dir.rglob("*")} == before


# Leftovers.


def test_temporary_files_of_killed_processes_go(host: Host) -> None:
    host.boot(1)
    folder = host.state.generation_folder("www", 1)
    dead = [folder / f".monitor.json.{DEAD}.new", host.state.folder / f".settled.{DEAD}.new"]
    alive = folder / f".monitor.json.{os.getpid()}.new"
    for path in [*dead, alive]:
        path.write_text("half")
    done = Collected()
    collect.sweep(host.state, host.common_dir, done)
    assert [path.exists() for path in [*dead, alive]] == [False, False, True]
    assert (done.leftovers.count, done.leftovers.size) == (2, 8)


def test_an_image_that_was_never_unpacked_whole_goes(host: Host) -> None:
    host.boot(1)
    half = host.state.store / f".0123.{DEAD}.new"
    half.write_text("half")
    assert host.collect().leftovers.count == 1
    assert not half.exists()


def test_sockets_go_whose_monitor_is_gone(host: Host) -> None:
    folder = runtime.folder(host.common_dir)
    with socket.socket(socket.AF_UNIX) as alive, socket.socket(socket.AF_UNIX) as dead:
        alive.bind(str(folder / "alive-1"))
        alive.listen()
        dead.bind(str(folder / "dead-1"))
        dead.close()
        collect.sweep(host.state, host.common_dir, Collected())
        assert [path.name for path in folder.iterdir()] == ["alive-1"]


def test_old_runs_go(host: Host) -> None:
    host.state.runs.mkdir()
    for number in range(60):
        (host.state.runs / f"20260101T0000{number:02}-1.jsonl").touch()
    assert collect.forget_runs(host.state).count == 10
    assert not (host.state.runs / "20260101T000009-1.jsonl").exists()


# The history's file.


def test_a_line_that_a_crash_cut_short_is_passed_over(host: Host) -> None:
    host.boot(RECENT + 2, same=True)
    host.state.history("www").write_bytes(b'{"generation":{"guest":"ww')
    host.collect()
    assert [past.generation.number for past in history.collected(host.state, "www")] == [1, 2]


def test_a_history_does_not_grow_without_end(host: Host) -> None:
    path = host.state.history("www")
    path.parent.mkdir(parents=True)
    for start in range(0, 6000, 500):
        some = (past_generation(number, "a" * 64, GONE) for number in range(start, start + 500))
        history.keep(host.state, "www", map(history.Past, some))
    kept = [past.generation.number for past in history.collected(host.state, "www")]
    assert kept[-1000:] == list(range(5000, 6000))
    assert len(kept) < 5500


def test_a_full_disk_removes_no_generation(host: Host) -> None:
    host.boot(RECENT + 2, same=True)
    host.state.history("www").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        host.collect()
    assert len(host.state.numbers("www")) == RECENT + 2


# Killed.

GC = """
from mirage_hooks.installer import cli
sys.argv = ["mirage-hooks", "-C", sys.argv[1], "gc"]
cli.main()
"""


def test_killed_at_any_step_a_collection_loses_nothing_and_tells_nothing_twice(
    host: Host, folder: Path
) -> None:
    host.state.host_file.write_text('branch = "main"\n')
    host.state.host_file.chmod(0o600)
    count = RECENT + 2
    step, ended = 0, -9
    while ended != 0:
        step += 1
        for number in range(count - RECENT - 1, count + 1):
            if number not in host.state.numbers("www"):
                image = host.unpack(f"www-{number}")
                record(host.state, past_generation(number, image, host.commit))
        ended = collect_killed_at(step, GC, folder)
        assert ended in {0, -9}
        told = sorted(past.generation.number for past in history.ever(host.state, "www"))
        assert told == list(range(1, count + 1))
        kept = host.state.generations("www")[-3:]
        assert [host.store.path(one.boot.image).exists() for one in kept] == [True] * 3
        assert host.state.newest("www") == count
        count += 2
    assert step > 8
    host.collect()
    left = host.state.generation_folder("www", 1).parent
    assert len(list(left.iterdir())) == RECENT + 1
