"""The identity of a process: neither a reused pid nor a zombie is taken for a living one."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mirage_hooks.boot.process import ProcessId, boot_id, identify

# Renames itself to what the second field of /proc/PID/stat must not be confused by.
RENAMED = """
import time
open("/proc/self/comm", "w").write(") Z 1 (x) R")
print("renamed", flush=True)
time.sleep(60)
"""


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until the test's end."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a child and leave it a zombie."""
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def test_the_boot_is_the_kernels_own_boot_id() -> None:
    assert boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_a_running_process_is_alive(child: subprocess.Popen[bytes]) -> None:
    assert identify(child.pid).alive


def test_an_identity_is_the_same_each_time(child: subprocess.Popen[bytes]) -> None:
    assert identify(child.pid) == identify(child.pid)


def test_a_process_that_was_reaped_is_not_alive(child: subprocess.Popen[bytes]) -> None:
    identity = identify(child.pid)
    child.kill()
    child.wait()
    assert not identity.alive


def test_a_zombie_is_not_alive(child: subprocess.Popen[bytes]) -> None:
    identity = identify(child.pid)
    end(child)
    assert not identity.alive


def test_a_pid_with_another_start_time_is_not_alive(child: subprocess.Popen[bytes]) -> None:
    identity = identify(child.pid)
    assert not replace(identity, start=identity.start - 1).alive


def test_a_pid_of_another_boot_is_not_alive(child: subprocess.Popen[bytes]) -> None:
    assert not replace(identify(child.pid), boot="another").alive


def test_a_process_whose_name_looks_like_a_state_is_read_rightly() -> None:
    command = [sys.executable, "-c", RENAMED]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            before = identify(process.pid)
            assert process.stdout is not None
            assert process.stdout.readline() == b"renamed\n"
            assert before.alive
        finally:
            process.kill()


def test_no_process_has_no_identity() -> None:
    largest = int(Path("/proc/sys/kernel/pid_max").read_text())
    with pytest.raises(ProcessLookupError):
        identify(largest + 1)


def test_kill_ends_the_process(child: subprocess.Popen[bytes]) -> None:
    identify(child.pid).kill()
    assert child.wait(5) == -signal.SIGKILL


def test_kill_sends_the_signal_it_is_given(child: subprocess.Popen[bytes]) -> None:
    identify(child.pid).kill(signal.SIGTERM)
    assert child.wait(5) == -signal.SIGTERM


def test_kill_never_hits_a_process_of_another_start_time(child: subprocess.Popen[bytes]) -> None:
    identity = identify(child.pid)
    replace(identity, start=identity.start - 1).kill()
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.1)


def test_kill_never_hits_a_process_of_another_boot(child: subprocess.Popen[bytes]) -> None:
    replace(identify(child.pid), boot="another").kill()
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.1)


def test_killing_a_process_that_is_gone_does_nothing(child: subprocess.Popen[bytes]) -> None:
    identity = identify(child.pid)
    child.kill()
    child.wait()
    identity.kill()
    assert not identity.alive


def test_waiting_sees_the_end_of_a_process_that_nobody_reaps(
    child: subprocess.Popen[bytes],
) -> None:
    identity = identify(child.pid)
    child.kill()
    assert identity.wait_gone(5)


def test_waiting_for_a_process_that_goes_on_is_bounded(child: subprocess.Popen[bytes]) -> None:
    assert not identify(child.pid).wait_gone(0.1)


def test_what_is_gone_is_not_waited_for(child: subprocess.Popen[bytes]) -> None:
    identity = identify(child.pid)
    child.kill()
    child.wait()
    assert identity.wait_gone(0)


def test_another_process_with_the_pid_is_not_waited_for(child: subprocess.Popen[bytes]) -> None:
    identity = identify(child.pid)
    assert ProcessId(identity.boot, identity.pid, identity.start - 1).wait_gone(60)


def test_waiting_works_in_a_process_with_many_open_files(child: subprocess.Popen[bytes]) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < 1200:
        pytest.skip("this host allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(1200, limits[0]), limits[1]))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1050)]
    try:
        assert not identify(child.pid).wait_gone(0.01)
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
