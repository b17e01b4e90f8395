"""The state folder: what is recorded is read again, and what is damaged is named."""

import os
import pwd
import shlex
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import msgspec
import pytest

from mirage_hooks.boot import control
from mirage_hooks.boot.artifact import Provenance
from mirage_hooks.boot.control import MonitorState
from mirage_hooks.boot.device import NetworkConfig
from mirage_hooks.boot.errors import HostError
from mirage_hooks.boot.generation import Generation, Phase
from mirage_hooks.boot.guest import Boot, Check, Restart
from mirage_hooks.boot.intent import Intent, Pause
from mirage_hooks.boot.process import identify
from mirage_hooks.boot.record import State
from support import USER


@pytest.fixture
def state(tmp_path: Path) -> State:
    """A state folder, private and empty."""
    made = State(tmp_path)
    made.folder.mkdir(mode=0o700)
    return made


def generation(number: int, guest: str = "www", phase: Phase = Phase.PREPARING) -> Generation:
    return Generation(
        guest=guest,
        number=number,
        boot=Boot(
            target="unix",
            image="a" * 64,
            arguments=("--port=80", "--hello=größer"),
            memory=64,
            network={"service": NetworkConfig(address="10.0.0.2/24")},
            user="mirage",
        ),
        provenance=Provenance("1" * 40, "www.xz", "2" * 40, {"latest": "1"}, "xz", 1, 2),
        check=Check(http="http://10.0.0.2/", within="5s"),
        restart=Restart(on="always", limit=3, window="1m"),
        origin="pull",
        converge="c1",
        created=1.5,
        phase=phase,
        healthy_at=2.5,
        ended_at=3.5,
        reason="replaced",
        observed=("tcp *:80",),
    )


def record(state: State, number: int = 1) -> Path:
    """Record a generation; return its file."""
    folder = state.generation_folder("www", number)
    folder.mkdir(parents=True)
    state.save(generation(number))
    return folder / "generation.json"


# Generations.


def test_a_generation_is_read_as_it_was_recorded(state: State) -> None:
    state.generation_folder("www", 1).mkdir(parents=True)
    saved = state.save(generation(1))
    assert state.generations("www") == [saved]


@pytest.mark.parametrize("phase", list(Phase))
def test_a_generation_keeps_its_phase(state: State, phase: Phase) -> None:
    state.generation_folder("www", 1).mkdir(parents=True)
    state.save(generation(1, phase=phase))
    assert [one.phase for one in state.generations("www")] == [phase]


def test_a_generation_that_was_read_has_the_digest_it_had(state: State) -> None:
    record(state)
    assert [one.digest for one in state.generations("www")] == [generation(1).digest]


def test_a_generation_is_recorded_anew_in_its_place(state: State) -> None:
    record(state)
    state.save(generation(1).become(Phase.FAILED, reason="no answer"))
    assert [(one.phase, one.reason) for one in state.generations("www")] == [
        (Phase.FAILED, "no answer")
    ]


def test_generations_are_in_the_order_of_their_numbers(state: State) -> None:
    for number in (10, 9, 2):
        record(state, number)
    assert [one.number for one in state.generations("www")] == [2, 9, 10]


def test_a_record_is_private(state: State) -> None:
    assert stat.S_IMODE(record(state).stat().st_mode) == 0o600


def test_a_guest_that_never_was_here_has_no_generations(state: State) -> None:
    assert state.generations("www") == []


def test_guests_are_known_by_their_generations(state: State) -> None:
    state.next_number("www")
    state.next_number("mail")
    assert state.guest_names() == ["mail", "www"]


# Numbers.


def test_the_first_generation_is_number_one(state: State) -> None:
    assert state.next_number("www") == 1


def test_numbers_go_up_by_one(state: State) -> None:
    assert [state.next_number("www") for _ in range(11)] == list(range(1, 12))


def test_each_guest_counts_for_itself(state: State) -> None:
    state.next_number("www")
    assert state.next_number("mail") == 1


def test_a_number_is_taken_before_anything_is_recorded_under_it(state: State) -> None:
    state.next_number("www")
    assert State(state.folder.parent).next_number("www") == 2


def test_a_number_without_a_record_is_no_generation(state: State) -> None:
    state.next_number("www")
    assert state.generations("www") == []


def test_a_number_is_not_used_again_when_older_ones_are_deleted(state: State) -> None:
    state.next_number("www")
    state.next_number("www")
    state.generation_folder("www", 1).rmdir()
    assert state.next_number("www") == 3


def test_what_is_no_generation_in_a_guests_folder_is_passed_over(state: State) -> None:
    record(state)
    (state.generation_folder("www", 1).parent / "notes").mkdir()
    (state.generation_folder("www", 1).parent / ".2").mkdir()
    assert [one.number for one in state.generations("www")] == [1]


# Damage.

DAMAGED = [b"", b'{"format": 1, "gue', b"[]", b"{}", b"\xff\xfe", b"null"]


@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_damaged_record_is_named(state: State, damaged: bytes) -> None:
    path = record(state)
    path.write_bytes(damaged)
    with pytest.raises(HostError, match=f"the state folder is damaged: {path}: "):
        state.generations("www")


def test_a_record_of_a_phase_that_is_not_known_is_damaged(state: State) -> None:
    path = record(state)
    path.write_bytes(path.read_bytes().replace(b'"preparing"', b'"levitating"'))
    with pytest.raises(HostError, match=f"damaged: {path}: .*levitating"):
        state.generations("www")


def test_a_record_of_a_network_that_cannot_be_is_damaged(state: State) -> None:
    path = record(state)
    path.write_bytes(path.read_bytes().replace(b"10.0.0.2/24", b"10.0.0.999/24"))
    with pytest.raises(HostError, match=f"damaged: {path}: "):
        state.generations("www")


def test_a_damaged_record_comes_with_a_way_out(state: State) -> None:
    record(state).write_bytes(b"")
    with pytest.raises(HostError) as damage:
        state.generations("www")
    assert "`mirage-hooks deploy` sets the file aside" in damage.value.hint


def test_a_damaged_record_of_one_guest_leaves_the_others_readable(state: State) -> None:
    record(state).write_bytes(b"")
    state.next_number("mail")
    state.save(generation(1, guest="mail"))
    assert len(state.generations("mail")) == 1


@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_damaged_intent_is_named(state: State, damaged: bytes) -> None:
    state.set_intent("www", Intent("held", 1.0))
    path = state.folder / "intents" / "www.json"
    path.write_bytes(damaged)
    with pytest.raises(HostError, match=f"damaged: {path}: "):
        state.intent("www")


@pytest.mark.parametrize(
    "damaged", [*DAMAGED, b'{"monitor": 1, "tender": null}', b'{"monitor": {}, "tender": null}']
)
def test_a_damaged_monitor_state_is_named(state: State, damaged: bytes) -> None:
    path = record(state).with_name(control.STATE)
    path.write_bytes(damaged)
    with pytest.raises(HostError, match=f"damaged: {path}: "):
        state.monitor_state(generation(1))


# What the monitor says.


def test_a_generation_without_a_monitor_has_no_monitor_state(state: State) -> None:
    record(state)
    assert state.monitor_state(generation(1)) is None


@pytest.mark.parametrize("with_tender", [True, False], ids=["with tender", "without tender"])
def test_a_monitor_state_is_read_as_it_was_written(state: State, with_tender: bool) -> None:
    me = identify(os.getpid())
    said = MonitorState("running", me, me if with_tender else None, "/run/socket", 1.5, "text", 2)
    record(state).with_name(control.STATE).write_bytes(msgspec.json.encode(asdict(said)))
    assert state.monitor_state(generation(1)) == said


# Intents.


@pytest.mark.parametrize("intent", [Intent("held", 1.5), Intent("pinned", 1.5, 3, "a" * 64)])
def test_an_intent_is_read_as_it_was_recorded(state: State, intent: Intent) -> None:
    state.set_intent("www", intent)
    assert state.intent("www") == intent


def test_a_guest_without_an_intent_follows(state: State) -> None:
    assert state.intent("www") is None


def test_an_intent_that_is_over_is_forgotten(state: State) -> None:
    state.set_intent("www", Intent("held", 1.0))
    state.set_intent("www", None)
    assert state.intent("www") is None


def test_following_can_be_asked_for_twice(state: State) -> None:
    state.set_intent("www", None)
    state.set_intent("www", None)
    assert state.intent("www") is None


def test_each_guest_has_its_own_intent(state: State) -> None:
    state.set_intent("www", Intent("held", 1.0))
    assert state.intent("mail") is None


# Access.


def test_a_private_state_folder_of_ones_own_is_taken(state: State) -> None:
    state.check_access()
    assert stat.S_IMODE(state.folder.stat().st_mode) == 0o700


def test_a_state_folder_that_is_not_there_is_left_to_others_to_report(tmp_path: Path) -> None:
    State(tmp_path).check_access()
    assert not State(tmp_path).folder.exists()


@pytest.mark.parametrize("mode", [0o702, 0o777])
def test_a_state_folder_that_others_may_write_is_refused(state: State, mode: int) -> None:
    state.folder.chmod(mode)
    with pytest.raises(HostError, match="may be written by everybody"):
        state.check_access()


def test_a_state_folder_that_others_may_write_comes_with_the_command_that_mends_it(
    state: State,
) -> None:
    state.folder.chmod(0o777)
    with pytest.raises(HostError) as refused:
        state.check_access()
    assert refused.value.hint == f"run: chmod go-w {shlex.quote(str(state.folder))}"


@pytest.fixture
def anothers(tmp_path: Path) -> State:
    """A state folder of another user."""
    if USER is None:
        pytest.skip("only root can give a folder away")
    made = State(tmp_path)
    made.folder.mkdir(mode=0o700)
    os.chown(made.folder, pwd.getpwnam(USER).pw_uid, -1)
    return made


def test_a_state_folder_of_another_user_is_refused_by_that_users_name(anothers: State) -> None:
    with pytest.raises(HostError, match=f"belongs to user {USER}\n"):
        anothers.check_access()


def test_a_state_folder_of_a_user_without_a_name_is_refused(anothers: State) -> None:
    os.chown(anothers.folder, 54321, -1)
    with pytest.raises(HostError, match="belongs to user 54321\n"):
        anothers.check_access()


@pytest.fixture
def unprivileged() -> Iterator[State]:
    """A state folder of a user whom permissions hold back, who runs the test meanwhile."""
    if USER is not None:
        os.seteuid(pwd.getpwnam(USER).pw_uid)
    try:
        with tempfile.TemporaryDirectory() as folder:
            made = State(Path(folder))
            made.folder.mkdir(mode=0o700)
            yield made
    finally:
        os.seteuid(os.getuid())


@pytest.mark.parametrize("mode", [0o500, 0o600])
def test_a_state_folder_that_cannot_be_written_is_refused(unprivileged: State, mode: int) -> None:
    unprivileged.folder.chmod(mode)
    with pytest.raises(HostError, match=f"{unprivileged.folder} cannot be written to"):
        unprivileged.check_access()


# A pause.

PAUSE = Pause("moving the disks", 1700000000.0, "mirage")


def test_nothing_is_paused_at_first(state: State) -> None:
    assert state.pause() is None


def test_a_pause_is_kept_until_it_is_ended(state: State) -> None:
    state.set_pause(PAUSE)
    assert state.pause() == PAUSE
    assert (state.end_pause(), state.pause(), state.end_pause()) == (True, None, False)


def test_a_pause_takes_the_place_of_another(state: State) -> None:
    state.set_pause(PAUSE)
    state.set_pause(Pause("still moving", 1700000001.0, "root"))
    assert state.pause() == Pause("still moving", 1700000001.0, "root")


def test_a_damaged_pause_is_refused_and_can_be_ended(state: State) -> None:
    (state.folder / "paused").write_text("{")
    with pytest.raises(HostError, match=r"paused is damaged: .*\n  `mirage-hooks resume` ends"):
        state.pause()
    assert state.end_pause()


# The end.


def test_removing_the_state_leaves_nothing_of_it(state: State) -> None:
    record(state)
    state.remove()
    assert not state.folder.exists()


# Of other versions.


def test_a_record_with_a_field_of_another_version_is_read(state: State) -> None:
    path = record(state)
    path.write_bytes(path.read_bytes().replace(b'{"format":1,', b'{"format":1,"colour":"red",'))
    assert state.generations("www") == [generation(1)]


def test_a_record_without_a_format_is_of_the_first(state: State) -> None:
    path = record(state)
    path.write_bytes(path.read_bytes().replace(b'"format":1,', b""))
    assert state.generations("www") == [generation(1)]


@pytest.mark.parametrize("rest", [b"", b'"phase":"levitating",'])
def test_a_record_of_a_newer_format_is_refused_as_such(state: State, rest: bytes) -> None:
    path = record(state)
    path.write_bytes(path.read_bytes().replace(b'"format":1,', b'"format":2,' + rest))
    message = f"{path} was written by a newer mirage-hooks: its format is 2"
    with pytest.raises(HostError, match=message) as refused:
        state.generations("www")
    assert "install that version again" in refused.value.hint


def said_by_monitor(state: State, **changes: object) -> Path:
    """Have a monitor's state recorded that says more, or something else; return its file."""
    said = asdict(MonitorState("running", identify(os.getpid()), None, "/run/socket"))
    path = record(state).with_name(control.STATE)
    path.write_bytes(msgspec.json.encode({**said, **changes}))
    return path


def test_a_monitor_of_another_version_may_say_more(state: State) -> None:
    me = asdict(identify(os.getpid()))
    said_by_monitor(state, mood="good", monitor={**me, "name": "www"})
    monitor = state.monitor_state(generation(1))
    assert monitor == MonitorState("running", identify(os.getpid()), None, "/run/socket")


def test_a_monitor_of_an_earlier_version_may_say_less(state: State) -> None:
    path = said_by_monitor(state)
    said = msgspec.json.decode(path.read_bytes())
    for field in ("started", "exit", "exit_code", "restarts", "dropped", "format"):
        del said[field]
    path.write_bytes(msgspec.json.encode(said))
    monitor = state.monitor_state(generation(1))
    assert monitor == MonitorState("running", identify(os.getpid()), None, "/run/socket")


def test_a_monitor_of_a_newer_format_is_refused_as_such(state: State) -> None:
    path = said_by_monitor(state, format=2, monitor="of another shape")
    with pytest.raises(HostError, match=f"{path} was written by a newer mirage-hooks"):
        state.monitor_state(generation(1))
