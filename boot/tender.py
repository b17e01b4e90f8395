"""The process that runs a guest: forked up to the instant before its exec, let go by one byte.

A tender that has more to prepare than a process is executed at once, and waits for the byte itself.

Shared with nobody but the monitor, which stays in memory: few imports, all at the top.
"""

import contextlib
import errno
import os
import pwd
import select
import signal
import socket
import time
from ctypes import CDLL

from mirage_hooks.boot.console import ConsoleLog
from mirage_hooks.boot.control import FIRST_FILE, PREPARED, TRIGGER, Orders
from mirage_hooks.boot.process import identify

_LIBC = CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1  # prctl(2)

# An exec takes a millisecond; one from a disk that has gone to sleep is not waited for.
_EXEC_MS = 200

# A pipe holds 64 KiB by default: what a dead guest can have left in it, should a child still write.
_READ_BYTES = 65536
_READS_AT_THE_END = 16


def explain_exit(status: int) -> tuple[str, int | None]:
    """Return how a process ended, in words, and its exit code, None for a signal.

    `status` is as os.waitstatus_to_exitcode gives it. The meanings are MirageOS's.
    """
    if status < 0:
        try:
            return f"was killed by {signal.Signals(-status).name}", None
        except ValueError:  # a real-time signal
            return f"was killed by signal {-status}", None
    meaning = {
        2: "an uncaught exception, such as a port in use",
        63: "it was asked for its --help",
        64: "an argument it does not take",
        83: "the guest ended, and QEMU does not say how",
        84: "xl failed",
        85: "the domain crashed",
        86: "the domain asked to be booted again",
        87: "the domain was ended from outside",
        88: "the guest ended, and Xen does not say how",
        126: "the image cannot be executed",
        127: "the image cannot be found",
        255: "an abort or a trap",
    }.get(status)
    return f"exited with {status}" + (f" ({meaning})" if meaning else ""), status


class Tender:
    """A tender, from the fork to the last word on its console.

    `process` is its identity, the same before and after the exec; `pidfd` is readable once it has
    ended, `output` while there is something on its console and once that is closed, `trigger` once
    it is armed, and where it prepares, once its guest runs. `over` says that it was reaped.
    """

    def __init__(self, orders: Orders, console: ConsoleLog) -> None:
        """Fork it: own session, user, streams and parent-death signal in place. Raises OSError."""
        self._console = console
        account = pwd.getpwnam(orders.user) if orders.user else None
        # Another user may not reach the state folder: such a tender is executed by descriptor. A
        # script's interpreter opens that descriptor again, so it has to outlive the exec.
        image = os.open(orders.executable, os.O_RDONLY | os.O_CLOEXEC) if account else -1
        if image >= 0 and os.pread(image, 2, 0) == b"#!":
            os.set_inheritable(image, True)
        files = [os.open(path, os.O_PATH | os.O_CLOEXEC) for path in orders.files]
        trigger, self.trigger = socket.socketpair()
        self.output, output = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                self.trigger.close()
                _prepare(parent, output, account)
                for number, file in enumerate(files):
                    os.dup2(file, FIRST_FILE + number)
                if orders.prepares:
                    os.dup2(trigger.fileno(), TRIGGER)
                else:
                    _wait(trigger)
                program: int | str = image if image >= 0 else orders.executable
                os.execve(program, orders.argv, orders.environment)  # noqa: S606
            except BaseException as error:
                code = 127 if getattr(error, "errno", 0) == errno.ENOENT else 126
                os.write(2, f"cannot execute {orders.executable}: {error}\n".encode())
                os._exit(code)
        opened = [image] if image >= 0 else []
        for descriptor in (output, *opened, *files):
            os.close(descriptor)
        trigger.close()
        os.set_blocking(self.output, False)
        self.open = True
        self.over = False
        self._prepares = orders.prepares
        self.pidfd = os.pidfd_open(pid)
        self.process = identify(pid)

    def go(self) -> None:
        """Let it exec, and return once it has. One that was killed is found dead by its pidfd.

        Else it would often wait for the processor that it was woken on until we leave that. For one
        that prepares nobody waits: it may take long, and its `trigger` tells.
        """
        with contextlib.suppress(OSError):
            self.trigger.sendall(b"!")
            if self._prepares:
                return
            # Its end closes by the exec: then ours has been hung up on (poll(2)).
            executed = select.poll()
            executed.register(self.trigger, 0)
            executed.poll(_EXEC_MS)
        self.trigger.close()

    def disarm(self) -> None:
        """Let it end without an exec, or leave off what it prepares."""
        self.trigger.close()
        if self._prepares:
            self._signal(signal.SIGTERM)

    def drain(self) -> bool:
        """Take what its console holds now; return whether more may come."""
        try:
            data = os.read(self.output, _READ_BYTES)
        except BlockingIOError:
            return True
        self._console.write(data)
        self.open = bool(data)
        return self.open

    def end(self, grace: float, signum: int = signal.SIGTERM) -> bool:
        """Signal its process group: SIGTERM, or another, and after `grace` seconds SIGKILL.

        Its console is drained meanwhile: a full pipe must not keep it from ending. Returns whether
        the first was enough.
        """
        self._signal(signum)
        deadline = time.monotonic() + grace
        while (left := deadline - time.monotonic()) > 0:
            watched = [self.pidfd, self.output] if self.open else [self.pidfd]
            ready, _, _ = select.select(watched, [], [], left)
            if self.pidfd in ready:
                return True
            if ready:
                self.drain()
        self._signal(signal.SIGKILL)
        return False

    def _signal(self, signum: int) -> None:
        try:
            os.killpg(self.process.pid, signum)
        except ProcessLookupError:  # it was forked only now, and has no group of its own yet
            os.kill(self.process.pid, signum)

    def reap(self) -> tuple[str, int | None]:
        """Collect it, the rest of its process group, its last words; return how it ended."""
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        self.over = True
        # While it is a zombie nobody else can have its number.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        _, status = os.waitpid(self.process.pid, 0)
        self.trigger.close()
        for _ in range(_READS_AT_THE_END):
            if not self.open or not self.drain():
                break
        self._console.flush()
        os.close(self.pidfd)
        os.close(self.output)
        return explain_exit(os.waitstatus_to_exitcode(status))


def _prepare(parent: int, output: int, account: pwd.struct_passwd | None) -> None:
    """Make the forked process what the guest is to find."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    signal.set_wakeup_fd(-1)
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(signum, signal.SIG_DFL)
    os.umask(0o022)
    os.chdir("/")
    if account is not None:
        os.initgroups(account.pw_name, account.pw_gid)
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    # After setuid, which clears it (prctl(2)); the parent may have gone before it was set.
    if _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0 or os.getppid() != parent:
        os._exit(126)


def _wait(trigger: socket.socket) -> None:
    """Say that this is armed, and wait for the byte; end without it."""
    with contextlib.suppress(ConnectionError):
        trigger.sendall(PREPARED)
        if trigger.recv(1):
            return
    os._exit(0)
