"""A network of a test's own: bridges, taps, guests and commands that nothing outside can see.

`ip netns` names the namespace, so that whatever runs in it can be found and ended by what it is
in, not by what it is called.
"""

import ctypes
import itertools
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import get, run, wait_for

_NAMES = itertools.count(1)

# Linux's sched.h. Python has os.setns from 3.12 on.
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network namespace with its loopback up; ending it ends everything that is in it."""

    def __init__(self) -> None:
        self.name = f"mh-test-{os.getpid()}-{next(_NAMES)}"
        self._started: list[subprocess.Popen[bytes]] = []
        run("ip", "netns", "add", self.name, cwd=Path("/"))
        self.run("ip", "link", "set", "lo", "up")

    @property
    def path(self) -> Path:
        """The file that stands for the namespace."""
        return Path("/run/netns", self.name)

    @property
    def pids(self) -> list[int]:
        """Every process that is in the namespace, whoever started it."""
        inode = self.path.stat().st_ino
        return [int(each.name) for each in Path("/proc").glob("[0-9]*") if _network(each) == inode]

    def inside(self, *command: str | Path) -> list[str]:
        """Return the command that runs `command` in here, with the /sys that belongs to it."""
        return ["ip", "netns", "exec", self.name, *_with_taps_for_all(), *map(str, command)]

    def run(
        self, *command: str | Path, cwd: Path = Path("/"), check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in here to its end; what it printed is in the result or failure."""
        return run(*self.inside(*command), cwd=cwd, check=check)

    def popen(
        self, *command: str | Path, console: Path, cwd: Path = Path("/")
    ) -> subprocess.Popen[bytes]:
        """Start a command in here; what it prints is added to `console`.

        The process is the command itself: its pid can be given a signal.
        """
        with console.open("ab") as output:
            started = subprocess.Popen(
                self.inside(*command),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._started.append(started)
        return started

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be in here with this thread: sockets opened meanwhile belong to the namespace."""
        outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        inside = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(inside)
            try:
                yield
            finally:
                _enter(outside)
        finally:
            os.close(inside)
            os.close(outside)

    def get(self, address: str, port: int = 80) -> str | None:
        """Return the page that a guest in here answers with, None where none does."""
        with self.entered():
            return get(port, address=address)

    def pings(self, address: str, seconds: float = 1.0) -> bool:
        """Whether one echo request is answered in time; IPv4 or IPv6."""
        with self.entered():
            return _pings(address, seconds)

    def bridge(self, name: str, *addresses: str) -> None:
        """Make a bridge that is up; addresses are of this host, as in `10.0.0.1/24`."""
        self.run("ip", "link", "add", name, "type", "bridge")
        for address in addresses:
            # The kernel would try an IPv6 address for seconds before it could be used.
            tried = ["nodad"] if ":" in address else []
            self.run("ip", "address", "add", address, "dev", name, *tried)
        self.run("ip", "link", "set", name, "up")

    def tap(self, name: str, bridge: str | None = None, user: str = "root") -> None:
        """Make a persistent tap of `user` that is up, as a port of a bridge where one is named."""
        self.run("ip", "tuntap", "add", name, "mode", "tap", "user", user)
        if bridge is not None:
            self.run("ip", "link", "set", name, "master", bridge)
        self.run("ip", "link", "set", name, "up")

    def links(self) -> list[str]:
        """Return the names of all network devices in here, loopback left out."""
        listed = self.run("ls", "/sys/class/net").stdout.split()
        return sorted(set(listed) - {"lo", "bonding_masters"})

    def end(self) -> None:
        """Kill what is in here, and remove the namespace with every device that it has."""
        wait_for(self._emptied)
        run("ip", "netns", "delete", self.name, cwd=Path("/"))

    def _emptied(self) -> bool:
        pids = self.pids
        for pid in pids:
            # Gone between the look and the kill is as good.
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for process in self._started:
            process.poll()
        return not pids


@contextmanager
def network_namespace() -> Iterator[Namespace]:
    """Have a namespace; skip the test, saying why, where this machine can't make one."""
    missing = missing_for_namespaces()
    if missing is not None:
        pytest.skip(missing)
    namespace = Namespace()
    try:
        yield namespace
    finally:
        namespace.end()


def missing_for_namespaces() -> str | None:
    """Return what this machine lacks for a network namespace with taps, None where it has all."""
    if os.geteuid() != 0:
        return "a network namespace takes root"
    if shutil.which("ip") is None:
        return "a network namespace takes `ip`: apt-get install iproute2"
    if not Path("/dev/net/tun").exists():
        return "taps take /dev/net/tun: modprobe tun"
    tried = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    if tried.returncode != 0:
        return f"no network namespace can be made here: {tried.stderr.decode().strip()}"
    return None


def _with_taps_for_all() -> tuple[str, ...]:
    # Hosts with udev have /dev/net/tun for everybody (50-udev-default.rules), containers may not.
    # `ip netns exec` gives each command mounts of its own: this one is seen by nobody else.
    if Path("/dev/net/tun").stat().st_mode & 0o006 == 0o006:
        return ()
    steps = (
        "mount -t tmpfs -o mode=755 tmpfs /dev/net",
        "mknod -m 666 /dev/net/tun c 10 200",
        'exec "$@"',
    )
    return ("sh", "-c", " && ".join(steps), "sh")


def _pings(address: str, seconds: float) -> bool:
    # RFC 792 and RFC 4443: type, code, checksum, identifier, sequence. Only for IPv6 Linux fills
    # the checksum in; this one is of IPv4's message. A raw socket for IPv4 gets the IP header too.
    if ":" in address:
        family, protocol, request, reply, header = socket.AF_INET6, 58, 128, 129, 0
    else:
        family, protocol, request, reply, header = socket.AF_INET, 1, 8, 0, 20
    deadline = time.monotonic() + seconds
    with socket.socket(family, socket.SOCK_RAW, protocol) as raw:
        try:
            raw.sendto(struct.pack("!BBHHH", request, 0, 0xF7FF, 0, 0), (address, 0))
            while (left := deadline - time.monotonic()) > 0:
                raw.settimeout(left)
                data, (sender, *_) = raw.recvfrom(2048)
                if sender == address and data[header] == reply:
                    return True
        except OSError:
            return False
    return False


def _network(process: Path) -> int | None:
    # A process may end while it is looked at; one that has ended and waits to be reaped is in none.
    try:
        return (process / "ns/net").stat().st_ino
    except OSError:
        return None


def _enter(namespace: int) -> None:
    if _LIBC.setns(namespace, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
