"""What polls say once, while a problem lasts."""

from pathlib import Path

import pytest

from mirage_hooks.hooks.said import Said


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "poll.json"


def poll(path: Path, **problems: str) -> list[str]:
    """Return the problems that a poll says."""
    said = Said(path)
    news = [subject for subject, problem in problems.items() if said.is_new(subject, problem)]
    said.save()
    return news


def test_a_problem_is_said_once(path: Path) -> None:
    assert [poll(path, deploy="down") for _ in range(3)] == [["deploy"], [], []]


def test_another_problem_of_the_same_is_said(path: Path) -> None:
    poll(path, deploy="down")
    assert poll(path, deploy="no answer") == ["deploy"]


def test_how_long_it_took_is_no_news(path: Path) -> None:
    poll(path, upstream="no connection after 12 ms")
    assert poll(path, upstream="no connection after 7 ms") == []


def test_problems_are_told_apart_by_their_subject(path: Path) -> None:
    poll(path, deploy="down")
    assert poll(path, deploy="down", upstream="away") == ["upstream"]


def test_the_end_of_a_problem_is_known(path: Path) -> None:
    poll(path, deploy="down", upstream="away")
    said = Said(path)
    said.is_new("upstream", "away")
    assert [said.ended(one) for one in ("deploy", "upstream", "poll")] == [True, False, False]


def test_a_problem_that_is_back_is_said_again(path: Path) -> None:
    assert [poll(path, deploy="down"), poll(path), poll(path, deploy="down")] == [
        ["deploy"],
        [],
        ["deploy"],
    ]


def test_the_file_is_there_while_something_is_wrong(path: Path) -> None:
    poll(path, deploy="down")
    assert path.exists()
    poll(path)
    assert not path.exists()


@pytest.mark.parametrize("text", ["", "garbage", "[]", '{"said": 1}', '{"said": {"a": 1}}'])
def test_a_damaged_file_is_as_none(path: Path, text: str) -> None:
    path.write_text(text)
    assert poll(path, deploy="down") == ["deploy"]


def test_what_was_taken_back_is_remembered_while_something_is_wrong(path: Path) -> None:
    said = Said(path)
    said.rewound = "a" * 40
    said.is_new("upstream", "diverged")
    said.save()
    assert Said(path).rewound == "a" * 40
