"""A guest's console: harmless to a terminal, bounded, and never in the guest's way."""

import re
import stat
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirage_hooks.boot.console import (
    LINE_BYTES,
    ConsoleLog,
    Redactor,
    date,
    harmless,
    said,
    tail,
    text_of,
)

LARGE = 2**21
BIDI = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}

# Stores eleven lines at once where there is room for a part of them, and says how much was dropped.
PART = """
import resource, sys
from mirage_hooks.boot.console import ConsoleLog
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
log = ConsoleLog(sys.argv[1], 1 << 20)
log.write((b"x" * 99 + b"\\n") * 11)
print(log.dropped)
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where the console is kept."""
    return str(tmp_path / "console.log")


def printed(path: str, *chunks: bytes, limit: int = LARGE) -> list[str]:
    """Print chunks on a console; return its lines, without their dates."""
    log = ConsoleLog(path, limit)
    for chunk in chunks:
        log.write(chunk)
    log.flush()
    return [text_of(line) for line in tail(path, 1_000_000)]


# Harmless.


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        (b"over\rwritten", r"over\x0dwritten"),
        (b"a\x00b\x08\x7f", r"a\x00b\x08\x7f"),
        ("\x9b31m".encode(), r"\x9b31m"),
        ("\u202etxt.exe\u2066".encode(), r"\u202etxt.exe\u2066"),
        (b"\xff\xfe", r"\xff\xfe"),
        (b"\x9b31m", r"\x9b31m"),
    ],
    ids=["escape", "carriage return", "C0", "C1", "bidi", "no UTF-8", "raw C1"],
)
def test_what_could_fool_a_terminal_is_shown_instead(path: str, data: bytes, shown: str) -> None:
    assert printed(path, data + b"\n") == [shown]


@pytest.mark.parametrize("text", ["plain", "größer → 日本", "a\tb", "", "\\x1b", "שלום"])
def test_ordinary_text_is_stored_as_it_is(path: str, text: str) -> None:
    assert printed(path, text.encode() + b"\n") == [text]


def test_a_line_that_ends_as_on_a_terminal_is_stored_without_its_return(path: str) -> None:
    assert printed(path, b"text\r\n") == ["text"]


def controls(text: str) -> set[str]:
    return {char for char in text if unicodedata.category(char) == "Cc" or char in BIDI} - {"\t"}


@given(st.text())
def test_no_control_character_but_the_tab_is_harmless(text: str) -> None:
    assert controls(harmless(text)) == set()


@given(st.text())
def test_nothing_but_control_characters_is_changed(text: str) -> None:
    if not controls(text):
        assert harmless(text) == text


@given(st.lists(st.binary() | st.text().map(str.encode)))
def test_no_control_character_but_tab_and_newline_is_ever_stored(chunks: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "console.log")
        printed(str(path), *chunks)
        stored = path.read_bytes().decode() if path.exists() else ""
    assert controls(stored) <= {"\n"}


@given(st.lists(st.text("ab\n\u00e9\u65e5"), min_size=1).map("".join), st.integers(1, 5))
def test_how_the_guest_cuts_its_output_makes_no_difference(text: str, size: int) -> None:
    data = text.encode()
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    with tempfile.TemporaryDirectory() as folder:
        lines = printed(f"{folder}/console.log", *chunks)
    assert lines == text.removesuffix("\n").split("\n")[: len(lines)]
    assert len(lines) == len(text.splitlines())


# Lines.


def test_each_line_is_dated(path: str) -> None:
    printed(path, b"text\n")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z text", tail(path, 1)[0])


def test_a_line_waits_for_its_end(path: str) -> None:
    ConsoleLog(path, LARGE).write(b"half a li")
    assert tail(path, 9) == []


def test_a_last_line_without_an_end_is_stored_when_the_guest_has_ended(path: str) -> None:
    assert printed(path, b"one\ntw", b"o") == ["one", "two"]


def test_a_flush_with_nothing_to_store_stores_nothing(path: str) -> None:
    ConsoleLog(path, LARGE).flush()
    assert not Path(path).exists()


def test_a_note_is_told_from_what_the_guest_printed(path: str) -> None:
    ConsoleLog(path, LARGE).note("the guest exited with 0")
    assert text_of(tail(path, 1)[0]) == "[mirage-hooks: the guest exited with 0]"


def test_a_note_comes_after_a_line_that_was_not_ended(path: str) -> None:
    log = ConsoleLog(path, LARGE)
    log.write(b"last words")
    log.note("end")
    assert [text_of(line) for line in tail(path, 9)] == ["last words", "[mirage-hooks: end]"]


def test_a_guest_that_prints_no_newline_is_stored_in_pieces(path: str) -> None:
    lines = printed(path, *[b"x" * 1000] * 10)
    assert [len(line) for line in lines] == [LINE_BYTES, LINE_BYTES, 10_000 - 2 * LINE_BYTES]


def test_a_long_line_is_cut_though_it_ends(path: str) -> None:
    lines = printed(path, b"x" * 10_000 + b"\n")
    assert [len(line) for line in lines] == [LINE_BYTES, LINE_BYTES, 10_000 - 2 * LINE_BYTES]


def test_the_console_is_private(path: str) -> None:
    printed(path, b"text\n")
    assert stat.S_IMODE(Path(path).stat().st_mode) & 0o077 == 0


# Redacted.


def redacted(path: str, words: list[str], *chunks: bytes) -> list[str]:
    """Print chunks on a console that is not to show some words; return its lines."""
    log = ConsoleLog(path, LARGE, words)
    for chunk in chunks:
        log.write(chunk)
    log.flush()
    return [text_of(line) for line in tail(path, 1_000_000)]


def test_every_occurrence_of_a_secret_is_redacted(path: str) -> None:
    lines = redacted(path, ["hunter22"], b"a hunter22 hunter22hunter22\nhunter2 2\n")
    assert lines == ["a [redacted] [redacted][redacted]", "hunter2 2"]


def test_the_longest_secret_is_redacted_as_a_whole(path: str) -> None:
    lines = redacted(path, ["--key=abcdef", "abcdef", "abcd"], b"--key=abc", b"def abcd", b"ef\n")
    assert lines == ["[redacted] [redacted]"]


@pytest.mark.parametrize("before", [LINE_BYTES - 4, LINE_BYTES, 3 * LINE_BYTES - 1])
@pytest.mark.parametrize("size", [1, 7, LINE_BYTES, 100_000])
@pytest.mark.parametrize("end", [b"\n", b""], ids=["ended", "not ended"])
def test_a_secret_at_the_cut_of_a_long_line_is_redacted(
    path: str, before: int, size: int, end: bytes
) -> None:
    data = b"x" * before + b"hunter22" + b"y" * 9 + end
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    stored = "".join(redacted(path, ["hunter22"], *chunks))
    assert stored == "x" * before + "[redacted]" + "y" * 9


def test_a_secret_beyond_ascii_is_redacted(path: str) -> None:
    assert redacted(path, ["größe"], "die größe\n".encode()) == ["die [redacted]"]


def test_a_secret_that_the_guest_did_not_print_to_its_end_is_no_secret(path: str) -> None:
    assert redacted(path, ["hunter22"], b"hunter", b"2") == ["hunter2"]


def test_a_line_is_stored_at_its_end_though_it_ends_as_a_secret_begins(path: str) -> None:
    ConsoleLog(path, LARGE, ["hunter22"]).write(b"hunter\n")
    assert [text_of(line) for line in tail(path, 9)] == ["hunter"]


def test_a_note_comes_after_what_was_held_back(path: str) -> None:
    log = ConsoleLog(path, LARGE, ["hunter22"])
    log.write(b"hunter")
    log.note("end")
    assert [text_of(line) for line in tail(path, 9)] == ["hunter", "[mirage-hooks: end]"]


@given(
    st.text("ab=\n", max_size=60).map(str.encode),
    st.sets(st.text("ab=", min_size=1, max_size=6), max_size=3),
    st.integers(1, 9),
)
def test_how_a_stream_is_cut_makes_no_difference_to_what_is_redacted(
    data: bytes, secrets: set[str], size: int
) -> None:
    words = sorted(secrets, key=len, reverse=True)
    whole, cut = Redactor(words), Redactor(words)
    expected = whole.feed(data) + whole.flush()
    chunks = [cut.feed(data[at : at + size]) for at in range(0, len(data), size)]
    assert b"".join([*chunks, cut.flush()]) == expected
    assert not any(word.encode() in expected.replace(b"[redacted]", b"\n") for word in words)


# Bounded.


def stored_bytes(path: str) -> int:
    return sum(Path(part).stat().st_size for part in (path, path + ".1") if Path(part).exists())


ORDINARY = (b"x" * 99 + b"\n") * 600


@pytest.mark.parametrize(
    "chunk",
    [ORDINARY, b"\n" * 65536, b"\x1b" * 65536],
    ids=["lines of a hundred", "empty lines", "escapes"],
)
def test_a_console_stays_within_its_limit_whatever_a_guest_prints(path: str, chunk: bytes) -> None:
    log = ConsoleLog(path, LARGE)
    largest = 0
    for _ in range(4):
        for part in (*[ORDINARY] * 15, chunk):
            log.write(part)
            largest = max(largest, stored_bytes(path))
    assert largest <= LARGE


def test_a_full_console_keeps_the_newest_lines(path: str) -> None:
    lines = printed(path, *[b"%06d\n" % number for number in range(2000)], limit=10_000)
    assert lines[-1] == "001999"


def test_a_full_console_loses_only_its_oldest_lines(path: str) -> None:
    numbers = [
        int(line)
        for line in printed(path, *[b"%06d\n" % number for number in range(2000)], limit=10_000)
    ]
    assert numbers == list(range(numbers[0], 2000))


def test_a_full_console_keeps_a_good_part_of_its_limit(path: str) -> None:
    printed(path, *[b"%06d\n" % number for number in range(2000)], limit=10_000)
    assert stored_bytes(path) >= 4_500


# What the disk cannot take.


@pytest.fixture
def unwritable(tmp_path: Path) -> Path:
    """A console in a folder that is not there."""
    return tmp_path / "missing" / "console.log"


def test_what_cannot_be_stored_is_dropped_and_counted(unwritable: Path) -> None:
    log = ConsoleLog(str(unwritable), LARGE)
    log.write(b"hello\n")
    assert log.dropped == 6


def test_only_what_the_guest_printed_counts_as_dropped(unwritable: Path) -> None:
    log = ConsoleLog(str(unwritable), LARGE)
    for _ in range(3):
        log.write(b"hello\n")
    assert log.dropped == 18


def test_a_full_disk_is_survived() -> None:
    log = ConsoleLog("/dev/full", LARGE)
    log.write(b"hello\n")
    assert log.dropped == 6


def test_a_gap_is_reported_once_the_console_can_be_written_again(unwritable: Path) -> None:
    log = ConsoleLog(str(unwritable), LARGE)
    log.write(b"lost\n")
    unwritable.parent.mkdir()
    log.write(b"stored\n")
    assert [text_of(line) for line in tail(str(unwritable), 9)] == [
        "[mirage-hooks: 5 bytes were dropped here]",
        "stored",
    ]


def test_a_gap_is_reported_once(unwritable: Path) -> None:
    log = ConsoleLog(str(unwritable), LARGE)
    log.write(b"lost\n")
    unwritable.parent.mkdir()
    log.write(b"one\n")
    log.write(b"two\n")
    assert "\n".join(tail(str(unwritable), 9)).count("dropped") == 1


def test_what_was_dropped_stays_counted_after_the_report(unwritable: Path) -> None:
    log = ConsoleLog(str(unwritable), LARGE)
    log.write(b"lost\n")
    unwritable.parent.mkdir()
    log.write(b"stored\n")
    assert log.dropped == 5


def test_what_a_nearly_full_disk_takes_only_in_part_counts_as_dropped(path: str) -> None:
    command = [sys.executable, "-I", "-c", PART, path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert int(done.stdout) > 0


# Reading.


def test_the_tail_is_the_last_lines(path: str) -> None:
    printed(path, b"one\ntwo\nthree\n")
    assert [text_of(line) for line in tail(path, 2)] == ["two", "three"]


def test_the_tail_goes_back_over_a_rotation(tmp_path: Path, path: str) -> None:
    Path(path + ".1").write_text("DATE one\nDATE two\n")
    Path(path).write_text("DATE three\n")
    assert tail(path, 2) == ["DATE two", "DATE three"]


def test_the_tail_of_no_console_is_empty(path: str) -> None:
    assert tail(path, 10) == []


def test_a_line_without_its_date_keeps_its_spaces() -> None:
    assert text_of("2024-01-01T00:00:00.000Z   three  words ") == "  three  words "


# What is the guest's, and what is ours.


def test_what_a_guest_said_is_without_dates_and_notes(path: str) -> None:
    log = ConsoleLog(path, LARGE)
    log.note("it boots")
    log.write(b"hello\n")
    log.note("it ended")
    assert said(path, 10) == ["hello"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1.0625, "1970-01-01T00:00:01.062Z"),
        (1767225599.5, "2025-12-31T23:59:59.500Z"),
    ],
)
def test_a_date_has_milliseconds(seconds: float, text: str) -> None:
    assert date(seconds) == text


@given(st.floats(0, 4e9), st.floats(0, 4e9))
def test_dates_sort_as_the_times_do(one: float, other: float) -> None:
    assert (date(min(one, other)) <= date(max(one, other))) is True
