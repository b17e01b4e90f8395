"""A console's line, looked for by a process that can be killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import psutil
import pytest

from mirage_hooks.boot.console import ConsoleLog
from mirage_hooks.boot.expect import Expectation

Expect = Callable[..., Expectation]


@pytest.fixture
def console(tmp_path: Path) -> ConsoleLog:
    """A console without a line."""
    return ConsoleLog(str(tmp_path / "console.log"), 1 << 20, [])


@pytest.fixture
def expect(console: ConsoleLog, tmp_path: Path) -> Iterator[Expect]:
    """Return a function that expects a pattern on the console."""
    with ExitStack() as ending:

        def start(pattern: str, within: float = 10.0) -> Expectation:
            path = str(tmp_path / "console.log")
            return ending.enter_context(closing(Expectation(path, pattern, within)))

        yield start


def matching() -> list[psutil.Process]:
    """Return the processes that match, of this process; it may have others, such as git's."""
    found = []
    for process in psutil.Process().children():
        with suppress(psutil.ZombieProcess):
            found += [process] if "mirage_hooks.boot.expect" in process.cmdline() else []
    return found


def test_a_line_is_missing_until_it_is_there(expect: Expect, console: ConsoleLog) -> None:
    expected = expect("ready")
    assert expected.missing(5) == "no line on the console like 'ready'"
    console.write(b"ready\n")
    assert expected.missing(5) is None


@pytest.mark.parametrize("pattern", ["größer", "\0", "line\none", "\u2028", "x" * 100_000, r"\""])
def test_any_pattern_is_taken_as_it_is(expect: Expect, console: ConsoleLog, pattern: str) -> None:
    expected = expect(pattern)
    console.write(b"a line\n")
    assert expected.missing(5) == f"no line on the console like {pattern!r}"


def test_a_pattern_that_goes_astray_is_waited_for_no_longer_than_is_said(
    expect: Expect, console: ConsoleLog
) -> None:
    expected = expect("(a+)+$")
    console.write(b"a" * 60 + b"!\n")
    began = time.monotonic()
    for _ in range(3):
        assert expected.missing(0.1) == "no line on the console could be matched with '(a+)+$'"
    assert time.monotonic() - began < 2


def test_an_answer_that_came_late_is_heard(expect: Expect, console: ConsoleLog) -> None:
    expected = expect("ready")
    console.write(b"ready\n")
    [process] = matching()
    process.suspend()
    assert expected.missing(0.1) == "no line on the console could be matched with 'ready'"
    process.resume()
    assert expected.missing(5) is None


def test_nothing_is_left_that_matches(expect: Expect, console: ConsoleLog) -> None:
    expected = expect("(a+)+$")
    console.write(b"a" * 60 + b"!\n")
    expected.missing(0.1)
    assert len(matching()) == 1
    expected.close()
    assert matching() == []


def test_where_what_matches_was_killed_that_is_missing(expect: Expect) -> None:
    expected = expect("ready")
    [process] = matching()
    process.kill()
    process.wait(5)
    assert expected.missing(5) == "no line on the console could be matched with 'ready'"
    assert expected.missing(5) == "no line on the console could be matched with 'ready'"


ORPHAN = """
import sys, time
from mirage_hooks.boot.expect import Expectation
expected = Expectation(sys.argv[1], "(a+)+$", 0.5)
expected.missing(0.1)
print(expected._process.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("line", [b"", b"a" * 60 + b"!\n"], ids=["idle", "astray"])
def test_what_matches_ends_also_where_nobody_is_left_to_end_it(
    console: ConsoleLog, tmp_path: Path, line: bytes
) -> None:
    console.write(line)
    command = [sys.executable, "-I", "-c", ORPHAN, str(tmp_path / "console.log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        orphan = psutil.Process(int(parent.stdout.readline()))
        os.kill(parent.pid, signal.SIGKILL)
    orphan.wait(60)
    assert not orphan.is_running()
