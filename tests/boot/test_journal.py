"""The event log: every event a line, and nothing that goes wrong with it stops a deploy."""

import json
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mirage_hooks.boot import journal
from mirage_hooks.boot.journal import Journal, make_event

# Appends a hundred events of a few kilobytes each.
WRITER = """
import sys
from mirage_hooks.boot import journal
for number in range(100):
    event = journal.make_event("test", sys.argv[2], sys.argv[2] * 4000, number=number)
    journal.append(sys.argv[1], event)
"""


@pytest.fixture
def log(tmp_path: Path) -> str:
    """Where the log is."""
    return str(tmp_path / "events.jsonl")


def messages(log: str) -> list[object]:
    return [event["message"] for event in journal.read(log)]


def add(log: str, message: str) -> None:
    journal.append(log, make_event("test", "c1", message))


def test_events_are_read_in_the_order_they_were_logged(log: str) -> None:
    add(log, "first")
    add(log, "second")
    assert messages(log) == ["first", "second"]


def test_an_event_is_read_as_it_was_made(log: str) -> None:
    event = make_event("guest.fired", "c1", "www: it boots → now", guest="www", generation=3)
    journal.append(log, event)
    assert list(journal.read(log)) == [event]


def test_an_event_says_when_it_was_made() -> None:
    before = time.time()
    made = make_event("test", "c1", "text")["time"]
    assert isinstance(made, float)
    assert before <= made <= time.time()


def test_an_event_is_one_line_whatever_its_message(log: str) -> None:
    add(log, "one\ntwo\r\nthree")
    assert Path(log).read_bytes().count(b"\n") == 1


def test_letters_of_every_language_stay_readable_in_the_log(log: str) -> None:
    add(log, "größer → 日本")
    assert "größer → 日本" in Path(log).read_text()


def test_an_event_that_names_a_file_whose_name_is_no_utf8_is_logged(log: str) -> None:
    add(log, f"the file {os.fsdecode(b'caf' + bytes([0xE9]))}")
    assert len(messages(log)) == 1


def test_the_log_is_private(log: str) -> None:
    add(log, "text")
    assert stat.S_IMODE(Path(log).stat().st_mode) & 0o077 == 0


def test_no_log_holds_no_events(log: str) -> None:
    assert messages(log) == []


@pytest.mark.parametrize("line", ['{"time": 1, "mess', "nonsense", "[1]", '{"time": 1}', ""])
def test_a_line_that_is_no_event_is_passed_over(log: str, line: str) -> None:
    add(log, "first")
    with Path(log).open("a") as file:
        file.write(line + "\n")
    add(log, "second")
    assert messages(log) == ["first", "second"]


def test_a_last_line_that_a_crash_cut_short_is_passed_over(log: str) -> None:
    add(log, "first")
    with Path(log).open("ab") as file:
        file.write(b'{"time": 1, "message": "caf\xc3')
    assert messages(log) == ["first"]


def test_an_event_after_a_line_that_a_crash_cut_short_is_not_lost(log: str) -> None:
    with Path(log).open("a") as file:
        file.write('{"time": 1, "mess')
    journal.rotate(log)
    add(log, "second")
    assert messages(log) == ["second"]


def test_a_log_that_cannot_be_written_does_not_stop_the_deploy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(str(tmp_path / "missing" / "events.jsonl"), "text")
    assert "event not logged: [Errno 2]" in capsys.readouterr().err


def test_a_full_disk_does_not_stop_the_deploy(capsys: pytest.CaptureFixture[str]) -> None:
    add("/dev/full", "text")
    assert "event not logged: [Errno 28]" in capsys.readouterr().err


def test_an_event_that_is_not_logged_is_told_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(str(tmp_path / "missing" / "events.jsonl"), "what happened")
    assert "what happened" in capsys.readouterr().err


def test_writers_side_by_side_do_not_mix_their_lines(log: str) -> None:
    command = [sys.executable, "-I", "-c", WRITER, log]
    writers = [subprocess.Popen([*command, name]) for name in "abcd"]
    assert [writer.wait(30) for writer in writers] == [0] * 4
    found = messages(log)
    assert sorted(map(str, found)) == [name * 4000 for name in "abcd" for _ in range(100)]


def test_a_small_log_is_not_set_aside(log: str) -> None:
    add(log, "text")
    journal.rotate(log)
    assert not Path(log + ".1").exists()


def test_a_log_that_is_not_there_needs_no_rotation(log: str) -> None:
    journal.rotate(log)
    assert not Path(log).exists()


def grow(log: str) -> None:
    with Path(log).open("a") as file:
        file.write(" " * journal.ROTATE_BYTES + "\n")


def test_a_log_that_has_grown_is_set_aside(log: str) -> None:
    grow(log)
    journal.rotate(log)
    assert not Path(log).exists()


def test_events_that_were_set_aside_are_read_first(log: str) -> None:
    add(log, "old")
    grow(log)
    journal.rotate(log)
    add(log, "new")
    assert messages(log) == ["old", "new"]


def test_a_log_is_set_aside_once(log: str) -> None:
    for message in ("older", "old"):
        add(log, message)
        grow(log)
        journal.rotate(log)
    assert messages(log) == ["old"]


def test_a_log_that_no_deploy_rotates_is_set_aside_by_who_appends(log: str) -> None:
    grow(log)
    add(log, "last of the old")
    add(log, "first of the new")
    assert Path(log).read_text().count("\n") == 1
    assert messages(log) == ["last of the old", "first of the new"]


# Appends events that fill a log several times over.
FILLER = """
import sys
from mirage_hooks.boot import journal
journal.ROTATE_BYTES = 100_000
for number in range(1000):
    journal.append(sys.argv[1], journal.make_event("test", "c1", "x" * 500))
"""


def test_a_log_is_bounded_whoever_appends_side_by_side(log: str) -> None:
    writers = [subprocess.Popen([sys.executable, "-I", "-c", FILLER, log]) for _ in range(4)]
    assert [writer.wait(30) for writer in writers] == [0] * 4
    sizes = [path.stat().st_size for path in sorted(Path(log).parent.glob("events.jsonl*"))]
    # A writer that was about to append to it may do so yet.
    assert [size for size in sizes if size > 110_000] == []


def test_writers_side_by_side_set_aside_no_log_that_is_not_full(log: str) -> None:
    writers = [subprocess.Popen([sys.executable, "-I", "-c", FILLER, log]) for _ in range(4)]
    assert [writer.wait(30) for writer in writers] == [0] * 4
    assert Path(f"{log}.1").stat().st_size >= 100_000


# Complains into its own log until that was set aside twice.
COMPLAINER = """
import sys
from mirage_hooks.boot import journal
for number in range(300):
    journal.bound_own(sys.argv[1], 10_000)
    journal.complain(f"{number:03} " + "x" * 96)
"""


def test_a_log_that_a_process_writes_for_itself_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "monitor.log"
    with path.open("a") as own:
        command = [sys.executable, "-I", "-c", COMPLAINER, str(path)]
        subprocess.run(command, stdout=own, stderr=own, timeout=30, check=True)
    old, new = path.with_name("monitor.log.1").read_text(), path.read_text()
    assert (max(len(old), len(new)) < 10_500, new.splitlines()[-1][25:28]) == (True, "299")


def test_a_log_of_somebody_else_is_not_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "monitor.log"
    path.write_text("x" * 100)
    journal.bound_own(str(path), 10)
    assert [one.name for one in tmp_path.glob("monitor.log*")] == ["monitor.log"]


def test_a_complaint_is_dated(capsys: pytest.CaptureFixture[str]) -> None:
    journal.complain("text")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z text\n", capsys.readouterr().err)


def test_a_journal_tells_its_follower_what_it_logs(log: str) -> None:
    followed: list[str] = []
    Journal(log, "c1", followed.append).event("test", "text", guest="www")
    assert [json.loads(line) for line in followed] == list(journal.read(log))


def test_a_journal_signs_each_event_with_its_converge(log: str) -> None:
    Journal(log, "c7", lambda line: None).event("test", "text")
    assert [event["converge"] for event in journal.read(log)] == ["c7"]


def test_a_journal_tells_its_follower_what_the_disk_cannot_take() -> None:
    followed: list[str] = []
    Journal("/dev/full", "c1", followed.append).event("test", "text")
    assert [json.loads(line)["message"] for line in followed] == ["text"]


def test_a_follower_can_print_a_file_name_that_is_no_utf8(log: str) -> None:
    followed: list[str] = []
    name = os.fsdecode(b"caf" + bytes([0xE9]))
    Journal(log, "c1", followed.append).event("test", name)
    assert [line.encode() for line in followed] != []


# What nobody asked for.


@pytest.fixture
def quiet(log: str) -> Journal:
    """A journal that logs nothing until there is news."""
    made = Journal(log, "c1", lambda line: None)
    made.hold()
    return made


def test_a_journal_that_holds_back_logs_no_converge_that_changes_nothing(
    log: str, quiet: Journal
) -> None:
    quiet.event("converge.started", "main at 1234567")
    quiet.event("converge.finished", "done", exit_code=0)
    assert list(journal.read(log)) == []


def test_what_was_held_back_is_logged_in_its_order_once_there_is_news(
    log: str, quiet: Journal
) -> None:
    names = ["converge.started", "guest.planned", "guest.fired", "converge.finished"]
    for name in names:
        quiet.event(name, "something")
    assert [event["event"] for event in journal.read(log)] == names


def test_whoever_follows_a_journal_that_holds_back_sees_all(log: str) -> None:
    heard: list[str] = []
    quiet = Journal(log, "c1", heard.append)
    quiet.hold()
    quiet.event("converge.started", "main at 1234567")
    assert len(heard) == 1
