"""The stamp of the hooks' fast path: what is stamped is what the dropped hook computes in sh."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mirage_hooks.boot import settled
from mirage_hooks.boot.process import ProcessId, identify
from mirage_hooks.boot.record import State
from mirage_hooks.boot.repository import Repository
from mirage_hooks.installer import hookfile
from support import run

WATCHED = ("mirage-hooks.toml", "unix/latest", "unix/1/www.unix", "größer/two words.unix")


class Clone:
    """A repository with the real hook; in place of its interpreter, a script that leaves a mark."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "clone"
        run("git", "init", "-q", str(self.folder), cwd=folder)
        self.state = State(self.folder / ".git")
        self.state.folder.mkdir(mode=0o700)
        self.state.host_file.write_text('branch = "main"\n')
        self.commit(**dict.fromkeys(WATCHED, "one"))
        self._called = folder / "called"
        python = folder / "python"
        python.write_text(f"#!/bin/sh\n: >'{self._called}'\n")
        python.chmod(0o755)
        self.hook = self.folder / ".git" / "hooks" / "post-merge"
        self.hook.write_bytes(hookfile.render("post-merge", str(python)))
        self.hook.chmod(0o755)

    def commit(self, **files: str) -> None:
        """Commit files."""
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        run("git", "add", "-A", cwd=self.folder)
        run("git", "commit", "-qm", "change", cwd=self.folder)

    def stamp(
        self,
        paths: tuple[str, ...] = WATCHED,
        seen: str | None = None,
        monitors: tuple[ProcessId, ...] = (),
    ) -> None:
        """Stamp the tip of the branch, as a converge that saw `seen` would."""
        repository = Repository(self.folder)
        host_text = self.state.host_file.read_bytes()
        settled.write(
            self.state,
            repository,
            "main",
            paths,
            repository.revision(seen or "main"),
            host_text,
            monitors,
        )

    def starts_a_converge(self, folder: Path | None = None, **environment: str) -> bool:
        """Run the hook as git does; return whether it found something to do."""
        self._called.unlink(missing_ok=True)
        settings = [f"{name}={value}" for name, value in environment.items()]
        run("env", *settings, self.hook, "0", cwd=folder or self.folder)
        return self._called.exists()


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    """A repository with the real hook, not stamped yet."""
    return Clone(tmp_path)


@pytest.fixture
def stamped(clone: Clone) -> Clone:
    """A repository that is stamped as settled."""
    clone.stamp()
    return clone


def test_without_a_stamp_a_converge_is_started(clone: Clone) -> None:
    assert clone.starts_a_converge()


def test_what_is_stamped_is_what_the_hook_computes(stamped: Clone) -> None:
    assert not stamped.starts_a_converge()


def test_a_repository_without_a_guest_is_stamped_too(clone: Clone) -> None:
    clone.stamp(("mirage-hooks.toml",))
    assert not clone.starts_a_converge()


@pytest.mark.parametrize(
    "text",
    [
        'branch = "main"',
        "\n\n  # a comment \n\nbranch = 'main'\n\n\n",
        'branch = "main"\r\n',
        'user = "\\t$(id) `id` \\\\" # $HOME\n',
        "# größer\n",
    ],
    ids=["no newline at its end", "blank lines", "CR LF", "shell characters", "UTF-8"],
)
def test_a_host_file_is_stamped_however_it_is_written(clone: Clone, text: str) -> None:
    clone.state.host_file.write_bytes(text.encode())
    clone.stamp()
    assert not clone.starts_a_converge()


@pytest.mark.parametrize("name", WATCHED)
def test_a_change_of_a_watched_file_starts_a_converge(stamped: Clone, name: str) -> None:
    stamped.commit(**{name: "two"})
    assert stamped.starts_a_converge()


def test_a_change_of_the_host_file_starts_a_converge(stamped: Clone) -> None:
    stamped.state.host_file.write_text('branch = "main"\nuser = "mirage"\n')
    assert stamped.starts_a_converge()


def test_a_host_file_that_is_gone_starts_a_converge(stamped: Clone) -> None:
    stamped.state.host_file.unlink()
    assert stamped.starts_a_converge()


def test_a_watched_file_that_is_deleted_starts_a_converge(stamped: Clone) -> None:
    run("git", "rm", "-q", "unix/latest", cwd=stamped.folder)
    stamped.commit()
    assert stamped.starts_a_converge()


def test_a_commit_of_other_files_starts_no_converge(stamped: Clone) -> None:
    stamped.commit(README="two")
    assert not stamped.starts_a_converge()


def test_a_change_of_the_work_tree_alone_starts_no_converge(stamped: Clone) -> None:
    (stamped.folder / "unix" / "latest").write_text("two")
    assert not stamped.starts_a_converge()


def test_a_file_that_has_not_come_yet_is_stamped_as_missing(clone: Clone) -> None:
    clone.stamp((*WATCHED, "unix/2/www.unix"))
    assert not clone.starts_a_converge()


def test_the_coming_of_a_missing_file_starts_a_converge(clone: Clone) -> None:
    clone.stamp((*WATCHED, "unix/2/www.unix"))
    clone.commit(**{"unix/2/www.unix": "two"})
    assert clone.starts_a_converge()


def test_another_branch_checked_out_starts_a_converge(stamped: Clone) -> None:
    run("git", "checkout", "-qb", "other", cwd=stamped.folder)
    assert stamped.starts_a_converge()


def test_a_detached_head_starts_a_converge(stamped: Clone) -> None:
    run("git", "checkout", "-q", "--detach", cwd=stamped.folder)
    assert stamped.starts_a_converge()


def test_a_stamp_of_another_boot_of_the_host_starts_a_converge(stamped: Clone) -> None:
    text = stamped.state.settled.read_text()
    boot = text.split()[1]
    stamped.state.settled.write_text(text.replace(boot, boot[::-1]))
    assert stamped.starts_a_converge()


def test_a_stamp_without_the_names_it_is_made_of_starts_a_converge(stamped: Clone) -> None:
    stamped.state.watched.unlink()
    assert stamped.starts_a_converge()


def test_a_cleared_stamp_starts_a_converge(stamped: Clone) -> None:
    settled.clear(stamped.state)
    assert stamped.starts_a_converge()


def test_a_stamp_can_be_cleared_twice(stamped: Clone) -> None:
    settled.clear(stamped.state)
    settled.clear(stamped.state)
    assert not stamped.state.settled.exists()


def test_nothing_is_stamped_if_the_branch_moved_on_meanwhile(clone: Clone) -> None:
    before = Repository(clone.folder).tip("main").id
    clone.commit(README="two")
    clone.stamp(seen=before)
    assert not clone.state.settled.exists()


def test_a_stamp_of_before_stays_as_it_is_if_the_branch_moved_on(stamped: Clone) -> None:
    before = Repository(stamped.folder).tip("main").id
    text = stamped.state.settled.read_bytes()
    stamped.commit(**{"unix/latest": "two"})
    stamped.stamp(seen=before)
    assert stamped.state.settled.read_bytes() == text


def test_a_linked_worktree_is_settled_by_its_own_head(stamped: Clone, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    run("git", "worktree", "add", "-qb", "other", str(linked), cwd=stamped.folder)
    private = run("git", "rev-parse", "--absolute-git-dir", cwd=linked).stdout.strip()
    assert stamped.starts_a_converge(linked, GIT_DIR=private)


def test_stamping_again_after_a_change_settles_it(stamped: Clone) -> None:
    stamped.commit(**{"unix/latest": "two"})
    stamped.stamp()
    assert not stamped.starts_a_converge()


def test_a_monitor_that_lives_starts_no_converge(stamped: Clone) -> None:
    stamped.stamp(monitors=(identify(os.getpid()),))
    assert not stamped.starts_a_converge()


def test_a_monitor_that_was_killed_starts_a_converge(stamped: Clone) -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeping:
        stamped.stamp(monitors=(identify(os.getpid()), identify(sleeping.pid)))
        sleeping.kill()
    assert stamped.starts_a_converge()


def test_another_process_with_the_number_of_a_monitor_starts_a_converge(stamped: Clone) -> None:
    me = identify(os.getpid())
    stamped.stamp(monitors=(ProcessId(me.boot, me.pid, me.start + 1),))
    assert stamped.starts_a_converge()


# The same, asked in Python.


def change_a_watched_file(clone: Clone) -> None:
    clone.commit(**{"unix/latest": "two"})


def change_another_file(clone: Clone) -> None:
    clone.commit(README="two")


def change_the_host_file(clone: Clone) -> None:
    clone.state.host_file.write_text('branch = "main"\nkeep = 4\n')


def clear(clone: Clone) -> None:
    settled.clear(clone.state)


def name_a_monitor_that_is_gone(clone: Clone) -> None:
    me = identify(os.getpid())
    clone.stamp(monitors=(ProcessId(me.boot, me.pid, me.start + 1),))


def name_a_monitor_that_lives(clone: Clone) -> None:
    clone.stamp((*WATCHED, "unix/2/missing"), monitors=(identify(os.getpid()),))


def damage_what_names_the_monitors(clone: Clone) -> None:
    clone.state.monitors.write_bytes(b"\xff and garbage\n")


@pytest.mark.parametrize(
    "change",
    [
        damage_what_names_the_monitors,
        change_a_watched_file,
        change_another_file,
        change_the_host_file,
        clear,
        name_a_monitor_that_is_gone,
        name_a_monitor_that_lives,
    ],
)
def test_python_and_the_hook_find_the_same(stamped: Clone, change: Callable[[Clone], None]) -> None:
    change(stamped)
    host_text = stamped.state.host_file.read_bytes()
    holds = settled.holds(stamped.state, Repository(stamped.folder), "main", host_text)
    assert holds is not stamped.starts_a_converge()
