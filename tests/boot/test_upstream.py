"""How a branch stands to its upstream."""

from pathlib import Path

import pytest

from mirage_hooks.boot import upstream
from mirage_hooks.boot.repository import Repository
from mirage_hooks.boot.upstream import Standing
from support import run


@pytest.fixture
def commits(folder: Path) -> dict[str, str]:
    """Three commits: a base, and two that each lack the other."""
    made: dict[str, str] = {}
    for name in ("base", "ours", "theirs"):
        run("git", "checkout", "-q", "--orphan" if not made else "-B", name, cwd=folder)
        if made:
            run("git", "reset", "-q", "--hard", made["base"], cwd=folder)
        run("git", "commit", "-q", "--allow-empty", "-m", name, cwd=folder)
        made[name] = run("git", "rev-parse", "HEAD", cwd=folder).stdout.strip()
    return made


@pytest.mark.parametrize(
    ("tip", "theirs", "rewound", "expected"),
    [
        ("base", "base", False, Standing.LEVEL),
        ("base", "theirs", False, Standing.BEHIND),
        (None, "theirs", False, Standing.BEHIND),
        ("ours", "base", False, Standing.AHEAD),
        ("ours", "base", True, Standing.DIVERGED),
        ("ours", "theirs", False, Standing.DIVERGED),
        ("base", "base", True, Standing.LEVEL),
    ],
)
def test_a_branch_stands_as_its_history_says(
    folder: Path,
    commits: dict[str, str],
    tip: str | None,
    theirs: str,
    rewound: bool,
    expected: Standing,
) -> None:
    ours = commits[tip] if tip is not None else None
    assert upstream.standing(Repository(folder), ours, commits[theirs], rewound) is expected
