"""The rank of a line: in systemd's journal each has one, and nowhere else."""

import os
from pathlib import Path

import pytest

from mirage_hooks.boot import severity
from mirage_hooks.boot.severity import ERROR, INFO, NOTICE, ranked


def lead(path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Open a file, and have $JOURNAL_STREAM say that it is the journal; return its descriptor."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    status = os.fstat(descriptor)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    return descriptor


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """A descriptor that leads to the journal, by what $JOURNAL_STREAM says."""
    return lead(tmp_path / "journal", monkeypatch)


def test_a_line_for_the_journal_has_its_rank(journal: int) -> None:
    assert ranked("text", NOTICE, journal) == "<5>text"


def test_each_line_for_the_journal_has_its_rank(journal: int) -> None:
    assert ranked("text\n  a hint", ERROR, journal) == "<3>text\n<3>  a hint"


def test_a_line_that_goes_elsewhere_is_as_it_is(journal: int, tmp_path: Path) -> None:
    with (tmp_path / "elsewhere").open("w") as file:
        assert ranked("text", NOTICE, file.fileno()) == "text"


def test_without_a_journal_a_line_is_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    assert ranked("text", NOTICE, 2) == "text"


@pytest.mark.parametrize("stream", ["", "nonsense", "1:2"])
def test_a_stream_that_is_not_ours_is_no_journal(
    monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", stream)
    assert ranked("text", NOTICE, 2) == "text"


def test_a_descriptor_that_is_closed_is_no_journal(journal: int) -> None:
    os.close(journal)
    assert ranked("text", NOTICE, journal) == "text"


def test_a_step_is_informational() -> None:
    assert severity.priority({"event": "guest.fired"}) == INFO


def test_what_is_no_event_of_ours_is_informational() -> None:
    assert severity.priority({"message": "text"}) == INFO
