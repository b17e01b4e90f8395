"""One converger at a time, and whoever waits is told for whom."""

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirage_hooks.boot import lock
from support import wait_for

# Holds the lock, says so, and lets go once its input ends.
HOLDER = """
import sys
from pathlib import Path
from mirage_hooks.boot import lock
with lock.hold(Path(sys.argv[1]), "pull", print):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the lock is."""
    return tmp_path / "lock"


@contextmanager
def other_holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    command = [sys.executable, "-I", "-c", HOLDER, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


class Waiter:
    """A thread that takes the lock, once it gets it."""

    def __init__(self, path: Path) -> None:
        self.told: list[str] = []
        self.got = threading.Event()
        self._path = path
        self.thread = threading.Thread(target=self._take)
        self.thread.start()

    def _take(self) -> None:
        with lock.hold(self._path, "deploy", self.told.append):
            self.got.set()


@pytest.fixture
def wait_for_lock(path: Path) -> Iterator[Callable[[], Waiter]]:
    """Return a function that starts to wait for the lock."""
    waiters = []

    def start() -> Waiter:
        waiters.append(Waiter(path))
        return waiters[-1]

    yield start
    for waiter in waiters:
        waiter.thread.join(5)
        assert not waiter.thread.is_alive()


def is_free(path: Path) -> bool:
    """Whether the lock can be had at once."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_a_second_holder_waits_for_the_first(
    path: Path, wait_for_lock: Callable[[], Waiter]
) -> None:
    with other_holder(path):
        waiter = wait_for_lock()
        assert not waiter.got.wait(0.2)


def test_a_second_holder_gets_the_lock_once_the_first_lets_go(
    path: Path, wait_for_lock: Callable[[], Waiter]
) -> None:
    with other_holder(path) as first:
        waiter = wait_for_lock()
        wait_for(lambda: waiter.told)
        assert first.stdin is not None
        first.stdin.close()
        assert waiter.got.wait(5)


def test_the_waiter_is_told_who_holds_the_lock(
    path: Path, wait_for_lock: Callable[[], Waiter]
) -> None:
    with other_holder(path) as first:
        waiter = wait_for_lock()
        wait_for(lambda: waiter.told)
        assert waiter.told == [f"pull (pid {first.pid}, for 0 s)"]


def test_a_holder_that_is_killed_leaves_the_lock_free(
    path: Path, wait_for_lock: Callable[[], Waiter]
) -> None:
    with other_holder(path) as first:
        waiter = wait_for_lock()
        wait_for(lambda: waiter.told)
        first.kill()
        assert waiter.got.wait(5)


def test_a_free_lock_is_had_without_waiting(path: Path) -> None:
    told: list[str] = []
    with lock.hold(path, "deploy", told.append):
        assert told == []


def test_others_can_read_who_holds_the_lock(path: Path) -> None:
    with other_holder(path) as first:
        assert lock.holder(path) == f"pull (pid {first.pid}, for 0 s)"


def test_a_lock_that_was_let_go_has_no_holder(path: Path) -> None:
    with lock.hold(path, "deploy", print):
        assert lock.holder(path) is not None
    assert lock.holder(path) is None


def test_a_hold_that_an_error_ended_has_no_holder(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock.hold(path, "deploy", print):
        raise ZeroDivisionError
    assert lock.holder(path) is None


def test_a_hold_that_an_error_ended_leaves_the_lock_free(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock.hold(path, "deploy", print):
        raise ZeroDivisionError
    assert is_free(path)


def test_what_a_dead_holder_wrote_names_no_holder(path: Path) -> None:
    with other_holder(path) as first:
        first.kill()
        first.wait(5)
    assert path.read_bytes() != b""
    assert lock.holder(path) is None


def test_the_next_holder_takes_the_place_of_a_dead_one(path: Path) -> None:
    with other_holder(path) as first:
        first.kill()
        first.wait(5)
    with lock.hold(path, "up", print):
        assert lock.holder(path) == f"up (pid {os.getpid()}, for 0 s)"


@pytest.mark.parametrize("text", [b"", b"nonsense", b"[]", b"{}", b'{"pid": 1}'])
def test_a_text_that_names_nobody_is_no_holder(path: Path, text: bytes) -> None:
    path.write_bytes(text)
    assert lock.holder(path) is None


def test_no_file_is_no_holder(path: Path) -> None:
    assert lock.holder(path) is None


def test_the_lock_is_not_inherited_by_a_child(path: Path) -> None:
    with lock.hold(path, "deploy", print):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    with child:
        try:
            assert is_free(path)
        finally:
            child.kill()
