"""Records that are damaged or lost: made anew from what is alive, and said so."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from faulty import Faulty, wrong_with
from mirage_hooks.boot import control, journal, runtime
from support import Site, monitors_of, wait_for

DAMAGED = {
    "empty": b"",
    "garbage": b"\x00\xff\xfe{]",
    "truncated": b'{"format": 1, "guest": "www", "numb',
    "wrong types": b'{"phase": 7, "monitor": {"boot": 1, "pid": "x", "start": []}, "kind": []}',
}
FILES = ("generation.json", "monitor.json")

each_damage = pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)


def folder_of(site: Site) -> Path:
    """Return the folder of the generation that runs."""
    live = site.live()
    assert live is not None
    return site.state.generation_folder("www", live.number)


def tender(site: Site) -> int:
    """Return the pid of what runs."""
    found = site.monitor().tender
    assert found is not None
    return found.pid


def told(site: Site, name: str) -> list[str]:
    """Return what events of a kind say."""
    events = journal.read(str(site.state.events))
    return [str(one["message"]) for one in events if one["event"] == name]


def lose_sockets(site: Site) -> None:
    """Lose the control sockets of what runs."""
    shutil.rmtree(runtime.folder(site.state.folder.parent))


# What is damaged.


@each_damage
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_record_of_what_runs_is_told_anew_by_its_monitor(
    frail: Faulty, file: str, damage: bytes
) -> None:
    before, path = tender(frail.site), folder_of(frail.site) / file
    path.write_bytes(damage)
    assert frail.converge() == 0, frail.said()
    assert tender(frail.site) == before
    assert wrong_with(frail, "one") == []
    assert path.with_name(f"{file}.damaged").read_bytes() == damage
    assert str(path) in told(frail.site, "state.damaged")[0]
    assert "recorded anew" in told(frail.site, "state.rebuilt")[0]


@each_damage
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_record_of_what_is_over_is_as_good_as_gone(
    frail: Faulty, publish: Callable[[str], None], file: str, damage: bytes
) -> None:
    old = folder_of(frail.site)
    publish("two")
    assert frail.converge() == 0
    before = tender(frail.site)
    (old / file).write_bytes(damage)
    assert frail.converge() == 0, frail.said()
    assert tender(frail.site) == before
    assert wrong_with(frail, "two") == []
    assert told(frail.site, "state.rebuilt") == []


@each_damage
@pytest.mark.parametrize("word", ["intents", "faults"])
def test_a_damaged_word_on_a_guest_is_set_aside(frail: Faulty, word: str, damage: bytes) -> None:
    path = frail.site.state.folder / word / "www.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(damage)
    assert frail.converge() == 0, frail.said()
    assert wrong_with(frail, "one") == []
    assert not path.exists()
    assert frail.site.state.guest_names() == ["www"]


def test_a_guest_that_was_held_is_held_when_the_word_on_it_is_damaged(frail: Faulty) -> None:
    frail.converge("stop", guests=["www"])
    path = frail.site.state.folder / "intents" / "www.json"
    path.write_bytes(b"")
    assert frail.converge() == 0, frail.said()
    assert frail.site.live() is None
    assert frail.site.state.intent("www") is not None


def test_a_damaged_record_of_one_guest_keeps_no_other_from_deploying(
    frail: Faulty, publish: Callable[[str], None]
) -> None:
    folder = frail.site.state.generation_folder("other", 1)
    folder.mkdir(parents=True)
    (folder / "generation.json").write_bytes(b"{")
    publish("two")
    assert frail.converge() == 0, frail.said()
    assert wrong_with(frail, "two") == []


@pytest.mark.parametrize("file", FILES)
def test_the_status_says_what_is_damaged_and_changes_nothing(frail: Faulty, file: str) -> None:
    path = folder_of(frail.site) / file
    whole = path.read_bytes()
    path.write_bytes(b"{")
    shown = json.loads(frail.site.command("status", "--json").stdout)
    said = frail.site.command("status").stdout
    assert path.read_bytes() == b"{"
    path.write_bytes(whole)
    assert shown["damaged"] == [str(path)]
    assert [guest["health"] for guest in shown["guests"]] == ["unknown"]
    assert str(path) in said


def test_garbage_in_any_file_of_the_state_keeps_nothing_from_being_deployed(
    frail: Faulty, publish: Callable[[str], None]
) -> None:
    pages = ["two", "one"]
    kept = {"host.toml", "key"}  # the operator's own, and what has no second copy
    files = [path for path in frail.site.state.folder.rglob("*") if path.is_file()]
    for turn, path in enumerate(path for path in files if path.name not in kept):
        if not path.exists() or path.parent.name == "store":
            continue
        path.write_bytes(b"\xff\x00{\n")
        publish(pages[turn % 2])
        assert frail.converge() == 0, f"{path}: {frail.said()}"
        assert wrong_with(frail, pages[turn % 2]) == [], path


# What is lost.


def lose(site: Site, what: str) -> None:
    """Delete a part of the state folder, or all of it but what `install` makes."""
    if what == "everything":
        host = site.state.host_file.read_text()
        shutil.rmtree(site.state.folder)
        site.install()
        site.state.host_file.write_text(host)
    elif what == "guest":
        shutil.rmtree(site.state.folder / "guests" / "www")
    else:
        (folder_of(site) / what).unlink()


@pytest.mark.parametrize("sockets", ["there", "gone"])
@pytest.mark.parametrize("what", ["everything", "guest", *FILES])
def test_what_runs_is_found_and_goes_on(frail: Faulty, what: str, sockets: str) -> None:
    before = tender(frail.site)
    if sockets == "gone":
        lose_sockets(frail.site)
    lose(frail.site, what)
    assert frail.converge() == 0, frail.said()
    assert tender(frail.site) == before
    assert wrong_with(frail, "one") == []
    assert "generation 1 runs, and what was recorded of it is lost" in str(
        told(frail.site, "state.rebuilt")
    )


def test_what_was_found_is_replaced_by_the_next_number(
    frail: Faulty, publish: Callable[[str], None]
) -> None:
    publish("two")
    assert frail.converge() == 0
    lose(frail.site, "everything")
    publish("one")
    assert frail.converge() == 0, frail.said()
    assert wrong_with(frail, "one") == []
    assert [one.number for one in frail.site.state.generations("www")] == [2, 3]


def test_what_was_found_is_restarted_by_its_monitor_as_ever(frail: Faulty) -> None:
    lose(frail.site, "everything")
    assert frail.converge() == 0
    os.kill(tender(frail.site), signal.SIGKILL)
    wait_for(lambda: frail.site.monitor().restarts == 1)
    assert wrong_with(frail, "one") == []


@pytest.mark.parametrize("sockets", ["there", "gone"])
def test_what_cannot_say_what_it_is_is_stopped_and_booted_anew(frail: Faulty, sockets: str) -> None:
    before = frail.site.monitor()
    # As a monitor was before there were records to remember.
    control.ask(before.socket, {"do": "remember", "record": {}}, 5)
    if sockets == "gone":
        lose_sockets(frail.site)
    lose(frail.site, "everything")
    assert frail.converge() == 0, frail.said()
    assert not before.monitor.alive
    assert wrong_with(frail, "one") == []
    assert "stopped, to be booted anew" in told(frail.site, "state.rebuilt")[0]


def test_no_secret_is_told_with_what_is_found(frail: Faulty, tmp_path: Path) -> None:
    frail.site.hide("--hello=hunter2")
    assert frail.converge() == 0
    _, record = control.describe(frail.site.monitor().socket)
    assert "hunter2" not in json.dumps(record)


def test_monitors_of_another_state_folder_are_left_alone(frail: Faulty, tmp_path: Path) -> None:
    shutil.copytree(frail.site.clone, tmp_path / "copy", symlinks=True)
    other = Site(frail.site.upstream, tmp_path / "copy", frail.site.port, frail.site.compiled)
    lose(other, "guest")
    other.state.settled.unlink(missing_ok=True)
    other.command("stop", "www", check=False)
    assert len(monitors_of(frail.site.state)) == 1
    assert frail.page() == "one"
