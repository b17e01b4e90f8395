"""A site whose Python has faults where a plan says so, and what has to be true of it afterwards."""

import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mirage_hooks.boot import control, history, survey
from mirage_hooks.boot.control import MonitorState
from mirage_hooks.boot.generation import Generation, Phase
from mirage_hooks.boot.record import State
from networked import NetSite
from support import Site, run

_PROGRAM = Path(__file__).with_name("faulty_python.py")

# A check that is over soon.
QUICK = 'alive = "50ms"\nwithin = "5s"'

# How long what was killed may take to be gone, and a guest to answer; seconds. One for unix has
# another MAC after a restart: where it is not heard of, the host asks again after half a minute.
_PATIENCE = 60.0

# All of what is asked, or what fits into the time of every day: `make test-faults` sets it.
FULL = os.environ.get("FAULTS") == "full"


@dataclass
class Faulty:
    """A site, the plan of what is to go wrong in it, and a forker of convergers.

    `inside` is what a command is put behind to be run on the site's host.
    """

    site: Site
    folder: Path
    inside: Callable[..., list[str]] = field(default=lambda *command: list(command))
    count: int = 0

    @property
    def python(self) -> Path:
        """The script that stands for the interpreter."""
        return self.folder / "python"

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Have the forker."""
        self.folder.mkdir()
        command = shlex.join([sys.executable, "-I", str(_PROGRAM), str(self.folder)])
        self.python.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        self.python.chmod(0o755)
        self.plan()
        with (self.folder / "forker.log").open("wb") as log:
            self._forker = subprocess.Popen(
                self.inside(str(self.python), "serve"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd="/",
            )
        try:
            yield
        finally:
            self._forker.communicate(timeout=30)

    @property
    def forker(self) -> int:
        """The pid of the forker."""
        return self._forker.pid

    def plan(self, **what: object) -> None:
        """Say what is to go wrong from here on."""
        path = self.folder / "plan.json"
        whole = {"state": str(self.site.state.folder), "base": self._newest(), **what}
        path.with_suffix(".new").write_text(json.dumps(whole))
        path.with_suffix(".new").rename(path)

    def _newest(self) -> int:
        return self.site.state.newest("www")

    def take(self, file: str) -> list[str]:
        """Return the lines of a file that the faulty Python wrote, and remove it."""
        path = self.folder / file
        if not path.exists():
            return []
        lines = path.read_text().splitlines()
        path.unlink()
        return lines

    def converge(self, verb: str = "deploy", **request: object) -> int:
        """Have a converge; return its exit code, -9 where it was killed."""
        self.count += 1
        asked = {
            "common_dir": str(self.site.state.folder.parent),
            "converge": f"faulty-{self.count}",
            "request": json.dumps({"origin": verb, "verb": verb, **request}),
        }
        assert self._forker.stdin is not None
        assert self._forker.stdout is not None
        self._forker.stdin.write(json.dumps(asked) + "\n")
        self._forker.stdin.flush()
        return int(self._forker.stdout.readline())

    def said(self) -> str:
        """Return what the last converge said, whatever it was."""
        return (self.folder / "said").read_text()

    def point(self, commit: str) -> None:
        """Have a commit on the branch that deploys, as a fetch does without a hook."""
        run("git", "update-ref", "refs/heads/main", commit, cwd=self.site.clone)

    def taps(self) -> list[str]:
        """Return the taps of the host."""
        assert isinstance(self.site, NetSite)
        with self.site.host.entered():
            return sorted(name for _, name in socket.if_nameindex() if name.startswith("mh"))

    def page(self) -> str | None:
        """Return what the guest answers."""
        return self.site.page()


def wrong_with(faulty: Faulty, page: str | None) -> list[str]:
    """Return what is not as a converge has to leave it, where `page` is to be answered.

    What was killed may need a moment to be gone, and so may a guest that boots.
    """
    deadline = time.monotonic() + _PATIENCE
    while (found := list(_wrong(faulty, page))) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def _wrong(faulty: Faulty, page: str | None) -> Iterator[str]:
    site = faulty.site
    monitors = [one for one in _monitors(site.state) if one.monitor.alive or one.alive]
    if len(monitors) != 1:
        yield f"{len(monitors)} generations live"
    if isinstance(site, NetSite):
        known = {faulty.forker, *(pid for one in monitors for pid in _pids(one))}
        if extra := sorted({*site.host.pids} - known):
            yield f"processes are left: {[_command(pid) for pid in extra]}"
        if len(taps := faulty.taps()) != 1:
            yield f"taps: {taps}"
    if (answered := faulty.page()) != page:
        yield f"{answered!r} is answered instead of {page!r}"
    yield from untrue(site.state)
    if left := [str(path) for path in _copies(site)]:
        yield f"copies are left: {left}"


def untrue(state: State) -> Iterator[str]:
    """Yield what of the history is not what happened."""
    live = survey.look(state, "www").live
    generations = [past.generation for past in history.ever(state, "www")]
    for one in generations:
        name = f"generation {one.number} ({one.phase}: {one.reason})"
        if live is not None and one.number == live.number:
            if one.phase is not Phase.HEALTHY or one.ended_at is not None:
                yield f"{name} lives"
        elif one.phase not in {Phase.ENDED, Phase.FAILED, Phase.ABANDONED}:
            yield f"{name} does not live"
        elif one.ended_at is None or not one.reason:
            yield f"{name} has no end, or no reason for it"
        elif one.reason.startswith("replaced by"):
            yield from _untrue_replacement(state, one, generations)


def _untrue_replacement(
    state: State, one: Generation, generations: list[Generation]
) -> Iterator[str]:
    number = int(one.reason.rpartition(" ")[2])
    monitor = state.monitor_state(one)
    if monitor is not None and monitor.phase in {"running", "backing-off"}:
        yield f"generation {one.number} was not replaced: its monitor was killed"
    successor = next((other for other in generations if other.number == number), None)
    # What was abandoned may have been booted: nobody was left to judge it.
    if successor is None or not _was_booted(state, successor):
        yield f"generation {one.number} was not replaced by {number}: that was not booted"


def _was_booted(state: State, generation: Generation) -> bool:
    monitor = state.monitor_state(generation)
    return monitor is None or monitor.started is not None


def _monitors(state: State) -> Iterator[MonitorState]:
    for number in state.numbers("www"):
        path = state.generation_folder("www", number) / control.STATE
        if path.exists():
            yield control.state_from(json.loads(path.read_bytes()))


def _pids(monitor: MonitorState) -> list[int]:
    return [monitor.monitor.pid, *([monitor.tender.pid] if monitor.tender else [])]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return "gone"


def _copies(site: Site) -> Iterator[Path]:
    live = site.live()
    for path in site.state.folder.glob("guests/*/*/*.img"):
        if live is None or path.parent.name != str(live.number):
            yield path


@dataclass
class Report:
    """What was injected, at which steps, and what was found: for the end of the run."""

    name: str
    steps: int = 0
    struck: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        text = f"{self.name}: {len(self.struck)} faults, there are {self.steps} steps"
        if self.missed:
            text += f", {len(self.missed)} steps without one to strike"
        return f"{text}, {len(self.found)} found wrong"
