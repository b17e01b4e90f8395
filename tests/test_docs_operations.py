"""docs/operations.md says what happens when: each of its lines names tests that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "operations.md").read_text()
PROVED = [row for row in re.findall(r"^\| .* \|$", TEXT, re.MULTILINE) if row.count(" | ") == 3]
TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^def (test_\w+)\(", path.read_text(), re.MULTILINE)
}


def proof(row: str) -> list[str]:
    return re.findall(r"`(test_\w+)`", row.rpartition(" | ")[2])


def test_there_are_lines_to_be_looked_at() -> None:
    assert len(PROVED) > 40


@pytest.mark.parametrize(
    "row",
    [row for row in PROVED if not row.startswith("| what happens |")],
    ids=lambda row: row[2:40],
)
def test_each_line_names_tests_that_are_there(row: str) -> None:
    assert proof(row), row
    assert set(proof(row)) <= TESTS
