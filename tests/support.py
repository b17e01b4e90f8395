"""What tests share: real repositories, real guests, and what a person would run."""

import bz2
import gzip
import lzma
import os
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tomlkit

from mirage_hooks.boot import control, follow, lock, survey
from mirage_hooks.boot.artifact import Provenance
from mirage_hooks.boot.control import MonitorState
from mirage_hooks.boot.generation import Generation, Phase
from mirage_hooks.boot.guest import Boot, Check, Restart
from mirage_hooks.boot.record import State

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# What packs an image, by the name we have for it.
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd.compress,
}

GUESTS = Path(__file__).parent / "guests"
COMMAND = Path(sys.executable).with_name("mirage-hooks")

# Guests are native code: where the tests run as root, guests run as this user.
USER = "nobody" if os.geteuid() == 0 else None


# Has a program kill itself right before the Nth step of its collecting that changes a file.
KILLED_COLLECTING = """
import os, sys
from mirage_hooks.boot import collect
steps, inside = int(os.environ.pop("KILL_AT")), False
CHANGES = {"os.remove", "os.rename", "os.rmdir", "subprocess.Popen"}
def count(event, args):
    global steps
    writes = event == "open" and isinstance(args[2], int) and args[2] & os.O_WRONLY
    if inside and (event in CHANGES or writes):
        steps -= 1
        if steps == 0:
            os.kill(os.getpid(), 9)
def counted(*args, collect=collect.collect):
    global inside
    inside = True
    try:
        return collect(*args)
    finally:
        inside = False
collect.collect = counted
sys.addaudithook(count)
"""


def free_port() -> int:
    """Return a TCP port that was free a moment ago, on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def run(
    *command: str | Path, cwd: Path, check: bool = True, seconds: float = 90.0
) -> subprocess.CompletedProcess[str]:
    """Run a command; what it printed is in the result, and in the failure."""
    done = subprocess.run(
        command,
        cwd=cwd,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=seconds,
        check=False,
    )
    if check and done.returncode != 0:
        pytest.fail(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def collect_killed_at(step: int, program: str, *arguments: str | Path) -> int:
    """Run a program that is killed at its Nth step of collecting; return how it ended."""
    return subprocess.run(
        [sys.executable, "-I", "-c", KILLED_COLLECTING + program, *arguments],
        env={**os.environ, "KILL_AT": str(step)},
        stdout=subprocess.DEVNULL,
        timeout=60,
        check=False,
    ).returncode


def get(port: int, path: str = "/", address: str = "127.0.0.1", seconds: float = 2.0) -> str | None:
    """Return what a guest answers, None where nothing does; it is on loopback if not said."""
    try:
        with socket.create_connection((address, port), seconds) as connection:
            connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            data = b""
            while chunk := connection.recv(4096):
                data += chunk
    except OSError:
        return None
    return data.decode().partition("\r\n\r\n")[2].strip()


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until a condition holds; fail where it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s: {condition}")
        time.sleep(0.01)


@dataclass
class Site:
    """A deployment repository with one guest, `www`, and a clone of it on this host.

    The clone may be bare. What a person does there is done in `worktree`, where that is given: a
    worktree that is linked to it.
    """

    upstream: Path
    clone: Path
    port: int
    compiled: Callable[[str], Path]
    worktree: Path | None = None
    args: list[str] = field(default_factory=list)
    check: str | None = None
    tables: str = ""
    count: int = 0

    @property
    def state(self) -> State:
        """The clone's state folder."""
        git_dir = self.clone / ".git"
        return State(git_dir if git_dir.exists() else self.clone)

    @property
    def here(self) -> Path:
        """Where a person works with the clone."""
        return self.worktree or self.clone

    def manifest(self) -> str:
        """Return the manifest that the fields describe."""
        args = ["--ipv4=127.0.0.1/8", f"--port={self.port}", *self.args]
        check = self.check or f'http = "http://127.0.0.1:{self.port}/"\nwithin = "5s"'
        return (
            f'[guest.www]\ntarget = "unix"\nimage = "unix/{{latest}}/www.unix"\nargs = {args!r}\n'
            f"{self.tables}\n[guest.www.check]\n{check}\n"
        )

    def publish(self, page: str | None = None, image: bytes | None = None) -> str:
        """Commit the manifest, and an image where one is given; return the commit."""
        self.count += 1
        (self.upstream / "mirage-hooks.toml").write_text(self.manifest())
        if page is not None:
            image = self.compiled(page).read_bytes()
        if image is not None:
            self.put(image)
        return self.commit(f"publish {self.count}")

    def put(self, image: bytes) -> None:
        """Put an image into the upstream's work tree, as CI does."""
        folder = self.upstream / "unix" / f"{self.count:040x}"
        folder.mkdir(parents=True)
        (folder / "www.unix").write_bytes(image)
        (self.upstream / "unix" / "latest").write_text(f"{folder.name}\n")

    def commit(self, message: str) -> str:
        """Commit whatever the upstream's work tree holds; return the commit."""
        run("git", "add", "-A", cwd=self.upstream)
        run("git", "commit", "-q", "--allow-empty", "-m", message, cwd=self.upstream)
        return run("git", "rev-parse", "HEAD", cwd=self.upstream).stdout.strip()

    def install(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Install mirage-hooks into the clone."""
        user = ["--user", USER] if USER else []
        return self.command("install", *user, *options)

    def tell_host(self, **tables: object) -> None:
        """Put keys and tables into the host file of the clone."""
        path = self.state.host_file
        path.write_text(tomlkit.dumps({**tomllib.loads(path.read_text()), **tables}))

    def hide(self, *arguments: str, guest: str = "www") -> Path:
        """Give a guest secret arguments, in a file of the host's; return it."""
        path = self.clone.parent / f"{guest}.args"
        path.write_text("".join(f"{argument}\n" for argument in arguments))
        path.chmod(0o600)
        self.tell_host(secrets={guest: {"args_file": str(path)}})
        return path

    def command(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the command line in the clone."""
        return run(COMMAND, *arguments, cwd=self.here, check=check)

    def deploy(self) -> None:
        """Deploy as the command line does, without the time that it takes to start."""
        asked: dict[str, object] = {"origin": "deploy", "verb": "deploy", "retry": True}
        started = follow.start(str(self.state.folder.parent), asked)
        said: list[object] = []
        code = follow.follow(started, said.append)
        os.waitpid(started.pid, 0)
        assert code == 0, said

    def git(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run git in the clone."""
        return run("git", *arguments, cwd=self.here, check=check)

    def pull(self, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Pull in the clone."""
        return self.git("pull", *options, check=check)

    def pull_unhooked(self) -> None:
        """Pull in the clone, where nothing is to deploy what it brings."""
        self.git("-c", "core.hooksPath=/nonexistent", "pull", "-q")

    def push(self, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Push the upstream's branch, or what is named, to the clone."""
        command = options or (str(self.clone), "main")
        return run("git", "push", *command, cwd=self.upstream, check=check)

    def runs(self) -> int:
        """Return how many converges were started so far."""
        return len(list(self.state.runs.glob("*.jsonl")))

    def page(self) -> str | None:
        """Return what the guest answers."""
        return get(self.port)

    def live(self, guest: str = "www") -> Generation | None:
        """Return the generation that runs."""
        return survey.look(self.state, guest).live

    def monitor(self, guest: str = "www") -> MonitorState:
        """Return what the monitor of the live generation says."""
        live = self.live(guest)
        assert live is not None
        monitor = self.state.monitor_state(live)
        assert monitor is not None
        return monitor

    def booting(self, guest: str = "www") -> bool:
        """Whether the newest generation runs, and was not judged yet."""
        newest = self.state.generations(guest)[-1]
        monitor = self.state.monitor_state(newest)
        return newest.phase is Phase.FIRED and monitor is not None and monitor.started is not None

    def outcomes(self, guest: str = "www") -> list[str]:
        """Return the phase of every generation, oldest first."""
        return [str(generation.phase) for generation in self.state.generations(guest)]


def past_generation(
    number: int, image: str, commit: str, phase: Phase = Phase.ENDED, guest: str = "www"
) -> Generation:
    """Return a generation as an earlier deploy may have left it: healthy once if it has ended."""
    return Generation(
        guest=guest,
        number=number,
        boot=Boot(target="unix", image=image, user=USER),
        provenance=Provenance(commit, f"unix/{number}/www.unix", "2" * 40, {}, "none", 1, 1),
        check=Check(alive="1s"),
        restart=Restart(),
        origin="pull",
        converge=f"c{number}",
        created=float(number),
        phase=phase,
        healthy_at=float(number) if phase in {Phase.HEALTHY, Phase.ENDED} else None,
        ended_at=float(number) if phase is Phase.ENDED else None,
        reason=f"as it was, {number}",
    )


def record(state: State, *generations: Generation) -> None:
    """Record generations, each with a console."""
    for generation in generations:
        folder = state.generation_folder(generation.guest, generation.number)
        folder.mkdir(parents=True, mode=0o700)
        state.save(generation)
        state.console(generation).write_text(f"I am {generation.number}\n")


def monitors_of(state: State) -> list[MonitorState]:
    """Return every monitor of a state folder that is alive, or whose guest is."""
    found = []
    for guest in state.guest_names():
        for generation in state.generations(guest):
            monitor = state.monitor_state(generation)
            if monitor is not None and (monitor.monitor.alive or monitor.alive):
                found.append(monitor)
    return found


def make_bare(site: Site, folder: Path) -> None:
    """Have a bare clone of the upstream in a folder, instead of the clone there was."""
    site.clone = folder / "host.git"
    run("git", "clone", "-q", "--bare", str(site.upstream), str(site.clone), cwd=folder)


def link_worktree(site: Site, folder: Path, branch: str = "main") -> None:
    """Have a worktree with a branch, which tracks the upstream's, linked to the clone."""
    fetch = "+refs/heads/*:refs/remotes/origin/*"
    run("git", "config", "remote.origin.fetch", fetch, cwd=site.clone)
    run("git", "fetch", "-q", cwd=site.clone)
    if site.state.folder.parent.name == ".git":
        site.git("checkout", "-q", "--detach")
    site.worktree = folder / "linked"
    run("git", "worktree", "add", "-q", str(site.worktree), branch, cwd=site.clone)
    site.git("branch", "-q", "--set-upstream-to", "origin/main")


def make_site(folder: Path, compiled: Callable[[str], Path]) -> Site:
    """Make an upstream and a clone, with a first image published."""
    site = Site(folder / "upstream", folder / "clone", free_port(), compiled)
    run("git", "init", "-q", str(site.upstream), cwd=folder)
    site.publish("one")
    run("git", "clone", "-q", str(site.upstream), str(site.clone), cwd=folder)
    return site


def leave(site: Site) -> None:
    """End whatever a site has running, and remove its clone."""
    if not site.clone.exists():
        return
    leave_state(site.state)
    shutil.rmtree(site.clone)


def leave_state(state: State) -> None:
    """End whatever runs of a state folder's."""
    # A converge may go on that nobody follows any more.
    wait_for(lambda: lock.holder(state.lock) is None)
    for monitor in monitors_of(state):
        control.stop(monitor)
        monitor.monitor.wait_gone(5)
    assert monitors_of(state) == []
