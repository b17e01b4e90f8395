"""What a process is: an identity that neither pid reuse nor a clock that is set can confuse.

Shared with the monitor, which stays in memory: it imports no psutil.
"""

import os
import select
import signal
from dataclasses import dataclass
from functools import cache


@cache
def boot_id() -> str:
    """Return the identity of this boot of the kernel (random(4): it changes with every boot)."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process: kernel boot id, pid, and start time in clock ticks since that boot."""

    boot: str
    pid: int
    start: int

    @property
    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        return self.boot == boot_id() and _stat(self.pid) == ("running", self.start)

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Send it a signal, through a pidfd: no other process can be hit."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self.alive:
                signal.pidfd_send_signal(descriptor, signum)
        except ProcessLookupError:
            pass
        finally:
            os.close(descriptor)

    def wait_gone(self, seconds: float) -> bool:
        """Wait until it runs no more, `seconds` at the longest; return whether it is gone."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            if self.alive:
                # Not select: it takes no descriptor from 1024 on.
                poll = select.poll()
                poll.register(descriptor, select.POLLIN)
                poll.poll(seconds * 1000)
            return not self.alive
        finally:
            os.close(descriptor)


def identify(pid: int) -> ProcessId:
    """Return the identity of a running process. Raises ProcessLookupError."""
    _, start = _stat(pid)
    if start < 0:
        raise ProcessLookupError(f"no process {pid}")
    return ProcessId(boot_id(), pid, start)


def _stat(pid: int) -> tuple[str, int]:
    """Return ("running" or "dead", start time) from proc_pid_stat(5); the time is -1 for none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The second field, the command, is in parentheses and may hold spaces and parentheses.
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "dead", -1
    return "dead" if fields[0] in b"ZX" else "running", int(fields[19])
