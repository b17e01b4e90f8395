"""xl, which drives Xen: its command lines, what it prints, and the one place that runs it.

Shared with the tender of domains, which stays in memory. What xl prints is as xl(1) has it, and as
tools/xl/*.c of Xen 4.17 prints it.
"""

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterable, Sequence
from ctypes import CDLL
from dataclasses import dataclass

from mirage_hooks.boot.errors import HostError

# How long xl may take, seconds: to say something, and to make or unmake a domain. On an idle host
# these are 0.1 and 1; hotplug scripts wait for each other where many domains change at once.
ANSWER_SECONDS = 20.0
CHANGE_SECONDS = 60.0
# How long Xen may take to have the memory of a domain back that has ended: it is wiped first.
ROOM_SECONDS = 10.0

# How long one that is killed may take to be gone, seconds.
_KILLED_SECONDS = 2.0

# Why a domain ended, by Xen's public/sched.h.
POWEROFF, REBOOT, SUSPEND, CRASH, WATCHDOG = range(5)

_LISTED = re.compile(
    r"^(?P<name>\S+)\s+(?P<id>[0-9]+)\s+(?P<memory>[0-9]+)\s+[0-9]+\s+(?P<state>[-rbpscd]{6})"
    r"\s+[0-9.]+\s+(?P<uuid>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b",
    re.MULTILINE,
)
# The sixth letter: it is being destroyed, and waits for who shares memory with it.
_DYING = "d"
_FREE = re.compile(r"^free_memory\s*:\s*([0-9]+)$", re.MULTILINE)
_WAITING = re.compile(r"Waiting for domain (?:\S+) \(domid ([0-9]+)\) to die")
_SHUT_DOWN = re.compile(r"Domain [0-9]+ has shut down, reason code ([0-9]+)")

# What a guest says in xenstore that ends when it is asked to (xenstore-paths(7)).
_HEEDS = "/local/domain/{}/control/feature-poweroff"
_READER = "xenstore-read"
_NOT_SAID = "couldn't read path"

_LIBC = CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1  # prctl(2)

# Where in its own sources something went wrong, as libxl and libxc begin their lines.
_PLACE = re.compile(r"^(?:libxl: error: |xc: error: (?:panic: )?)(?:\w+\.c:[0-9]+:(?:\w+:)? ?)?")

# What a host is lacking, by what xl says then.
_HINTS = {
    "Permission denied": "run as root, or have root let you: xen = ['sudo', '-n', 'xl'] in "
    "[tenders] of host.toml, and a line in /etc/sudoers.d",
    "a password is required": "a line in /etc/sudoers.d has to let this user run xl",
    "xencall": "is this host booted as Xen's first domain? See: xl info",
    "privcmd": "is this host booted as Xen's first domain? See: xl info",
    "xenstore": "see whether xenstored runs: systemctl status xenstored",
    "xs_open": "see whether xenstored runs: systemctl status xenstored",
}


class XlError(HostError):
    """xl did not do what it was asked for."""


@dataclass(frozen=True)
class Listed:
    """A domain as xl lists it. `memory` is in MiB, `state` six letters or dashes of xl(1)."""

    id: int
    name: str
    uuid: str
    memory: int
    state: str

    @property
    def paused(self) -> bool:
        """Whether it is kept from running."""
        return "p" in self.state


# Command lines.


def create(file: str) -> tuple[str, ...]:
    """Make a domain, paused, and stay until it is gone (`-F`)."""
    return ("create", "-F", "-p", "-q", file)


def destroy(domain: int) -> tuple[str, ...]:
    """End a domain at once."""
    return ("destroy", str(domain))


def shut_down(domain: int) -> tuple[str, ...]:
    """Ask a domain through xenstore to end."""
    return ("shutdown", str(domain))


def unpause(domain: int) -> tuple[str, ...]:
    """Let a domain run."""
    return ("unpause", str(domain))


def pause(domain: int) -> tuple[str, ...]:
    """Keep a domain from running."""
    return ("pause", str(domain))


def rename(domain: int, name: str) -> tuple[str, ...]:
    """Give a domain another name."""
    return ("rename", str(domain), name)


def console(domain: int) -> tuple[str, ...]:
    """Print what a domain prints, until it is gone."""
    return ("console", str(domain))


# What it prints.


def parse_list(text: str) -> list[Listed]:
    """Return the domains in the answer to `xl list -v`: not the host's own, nor what is dying."""
    found = [
        Listed(int(one["id"]), one["name"], one["uuid"], int(one["memory"]), one["state"])
        for one in _LISTED.finditer(text)
    ]
    return [one for one in found if one.id != 0 and not one.state.endswith(_DYING)]


def parse_free(text: str) -> int | None:
    """Return how much memory Xen has left, in MiB, from the answer to `xl info`."""
    match = _FREE.search(text)
    return int(match[1]) if match is not None else None


def parse_created(text: str) -> int | None:
    """Return the id of the domain for whose end an `xl create -F` says that it waits."""
    match = _WAITING.search(text)
    return int(match[1]) if match is not None else None


def parse_end(text: str) -> int | None:
    """Return why a domain ended, as an `xl create -F` says it; None where it does not."""
    match = _SHUT_DOWN.search(text)
    return int(match[1]) if match is not None else None


def last_words(text: str) -> str:
    """Return, in a line, what xl says is wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    wrong = [_PLACE.sub("", line) for line in lines if "error" in line.lower()] or lines
    return "; ".join(dict.fromkeys(wrong[:2]))


# Running it.


class Xl:
    """xl as this host has it: `command` is its path, or what may run it and then its path."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = tuple(command)

    def domains(self) -> list[Listed]:
        """Return every domain but the host's own, and those that are dying. Raises XlError."""
        return parse_list(self.run(("list", "-v")))

    def having(self, uuid: str) -> list[Listed]:
        """Return the domains with that uuid: Xen lets several have one. Raises XlError."""
        return [one for one in self.domains() if one.uuid == uuid]

    def free_memory(self) -> int | None:
        """Return how much memory Xen has left, in MiB. Raises XlError."""
        return parse_free(self.run(("info",)))

    def heeds(self, domain: int) -> bool:
        """Whether a guest ends when it is asked to, by its own word in xenstore.

        True where that cannot be known: this user may be let run xl alone.
        """
        *prefix, program = self.command
        folder, slash, _ = program.rpartition("/")
        beside = f"{folder}{slash}{_READER}"
        read = Xl([*prefix, beside if os.access(beside, os.X_OK) else _READER])
        try:
            return read.run((_HEEDS.format(domain),)).strip() == "1"
        except XlError as error:
            return _NOT_SAID not in error.message

    def end(self, uuid: str, tries: int = 3) -> None:
        """Destroy every domain with that uuid.

        More than once: a domain that crashes meanwhile can win the race. Raises XlError where one
        is still there then.
        """
        wrong = None
        for _ in range(tries):
            if not (left := self.having(uuid)):
                return
            for domain in left:
                try:
                    self.run(destroy(domain.id), CHANGE_SECONDS)
                except XlError as error:
                    wrong = error
        if left := self.having(uuid):
            still = f"domain {left[0].name} (id {left[0].id}) is still there after xl destroy"
            raise wrong or XlError(still)

    def run(self, arguments: Iterable[str], seconds: float = ANSWER_SECONDS) -> str:
        """Run one command of xl's; return what it printed. Raises XlError."""
        arguments = tuple(arguments)
        said = " ".join((self.command[-1].rpartition("/")[2], *arguments))
        try:
            process = self.start(arguments, subprocess.PIPE, subprocess.PIPE)
        except OSError as error:
            raise XlError(f"{self.command[0]} cannot be executed: {error.strerror}") from None
        try:
            output, wrong = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            kill(process)
            for stream in filter(None, (process.stdout, process.stderr)):
                stream.close()
            raise XlError(
                f"{said}: no answer within {seconds:g} s",
                "see whether xenstored runs, and what else uses xl",
            ) from None
        if process.returncode != 0:
            how = f"ended with {process.returncode}"
            raise failure(said, how, last_words(wrong.decode(errors="replace")))
        return output.decode(errors="replace")

    def start(
        self,
        arguments: Iterable[str],
        output: int | None,
        errors: int | None,
        bound: bool = False,
    ) -> "subprocess.Popen[bytes]":
        """Start one command of xl's, in a session of its own. Raises OSError.

        A signal that is meant for the tender would leave half a domain. One that is `bound` is
        killed once this process is gone.
        """
        return subprocess.Popen(
            [*self.command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
            preexec_fn=_die_with_parent if bound else None,  # noqa: PLW1509 - before any thread
        )


def kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill one command of xl's, and what it has started.

    What sudo runs as root is not ours to kill, and not waited for: it ends with its domain.
    """
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except PermissionError:
        return
    except ProcessLookupError:
        pass
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_KILLED_SECONDS)


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def failure(said: str, how: str, wrong: str) -> XlError:
    """Return that a command failed, in what way, by its own words; with a hint for known causes."""
    hint = next((hint for sign, hint in _HINTS.items() if sign in wrong), "")
    return XlError(f"{said} {how}: {wrong or 'it does not say why'}", hint)
