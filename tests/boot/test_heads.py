"""What the branches of a remote have right now, and whether it is this very repository."""

from pathlib import Path

import pytest

from mirage_hooks.boot import heads
from mirage_hooks.boot.errors import RepositoryError
from mirage_hooks.boot.repository import Repository
from support import run


@pytest.fixture
def clone(folder: Path) -> Repository:
    """A clone of a repository with two branches; the one that is ahead was not fetched."""
    run("git", "commit", "-q", "--allow-empty", "-m", "one", cwd=folder)
    made = folder.with_name("clone")
    run("git", "clone", "-q", folder, made, cwd=folder.parent)
    run("git", "branch", "old", cwd=folder)
    run("git", "commit", "-q", "--allow-empty", "-m", "two", cwd=folder)
    return Repository(made)


def commits(folder: Path) -> frozenset[str]:
    """Return the commits that the branches of a repository are at."""
    found = run("git", "for-each-ref", "--format=%(objectname)", "refs/heads", cwd=folder)
    return frozenset(found.stdout.split())


def test_a_remote_has_what_its_branches_are_at(clone: Repository, folder: Path) -> None:
    assert heads.ask(clone, "origin") == commits(folder)
    assert len(commits(folder)) == 2


def test_a_branch_that_is_gone_there_counts_no_more(clone: Repository, folder: Path) -> None:
    clone.git.git.fetch("--quiet", "origin")
    run("git", "branch", "-q", "-D", "old", cwd=folder)
    assert heads.ask(clone, "origin") == commits(folder)


def test_tags_are_no_branches(clone: Repository, folder: Path) -> None:
    run("git", "tag", "-a", "-m", "first", "v1", cwd=folder)
    assert heads.ask(clone, "origin") == commits(folder)


@pytest.mark.parametrize("url", [".", "../clone", "{0}", "{0}/.git", "file://{0}"])
def test_a_remote_that_leads_back_here_is_seen(clone: Repository, url: str) -> None:
    clone.git.git.remote("set-url", "origin", url.format(clone.name))
    assert heads.ask(clone, "origin") is None


def test_another_clone_of_the_same_is_another(clone: Repository, folder: Path) -> None:
    run("git", "clone", "-q", clone.name, "twin", cwd=folder.parent)
    clone.git.git.remote("set-url", "origin", str(folder.parent / "twin"))
    assert heads.ask(clone, "origin") == commits(Path(clone.name))


def test_pins_are_hidden_and_what_asks_is_not(clone: Repository) -> None:
    clone.add_config("transfer.hideRefs", "refs/mirage-hooks")
    clone.git.git.remote("set-url", "origin", clone.name)
    assert heads.ask(clone, "origin") is None


def test_where_what_asks_is_hidden_too_nothing_can_be_told(clone: Repository) -> None:
    clone.add_config("transfer.hideRefs", "refs")
    clone.add_config("transfer.hideRefs", "!refs/heads")
    with pytest.raises(RepositoryError, match="hides refs/mirage-hooks-asking") as error:
        heads.ask(clone, "origin")
    assert error.value.hint == "git config --add transfer.hideRefs '!refs/mirage-hooks-asking'"
    clone.add_config("transfer.hideRefs", "!refs/mirage-hooks-asking")
    assert heads.ask(clone, "origin") is not None


def test_nothing_is_left_of_it_nor_of_one_that_was_killed(clone: Repository) -> None:
    clone.update_refs(["create refs/mirage-hooks-asking/killed HEAD"])
    heads.ask(clone, "origin")
    assert clone.refs("refs/mirage-hooks-asking") == []


def test_a_remote_that_is_away_is_said_and_nothing_is_left(clone: Repository, folder: Path) -> None:
    folder.rename(folder.with_name("moved"))
    with pytest.raises(RepositoryError, match="nothing could be fetched from origin"):
        heads.ask(clone, "origin")
    assert clone.refs("refs/mirage-hooks-asking") == []
