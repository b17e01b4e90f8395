"""Where the benchmarks play: an upstream, clones of it, and one clone that really deploys.

All of it in a temporary folder with a home of its own. The guest that was deployed is ended when
the stage is left, whatever happened on it.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mirage_hooks.boot.control import MonitorState
from mirage_hooks.boot.record import State

COMMAND = Path(sys.executable).with_name("mirage-hooks")
# The guest.
SOURCE = Path(__file__).resolve().parent.parent / "guests" / "unix_web.c"
_CONFIG = "[user]\nname = Bench\nemail = bench@example.org\n[init]\ndefaultBranch = main\n"
# Booting 500 guests takes its time.
_SECONDS = 600

# Successive images say one page or the other, so that a client can tell them apart.
PAGES = ("one", "two")

# How long the guest takes from its first instruction to its open port: a MirageOS web server, on
# unix as on spt, replies 6 to 7 ms after its start. The stand-in alone would take a tenth of that.
START_MS = 6


def free_port() -> int:
    """Return a TCP port that was free a moment ago, on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def arguments(port: int) -> list[str]:
    """Return what the guest is started with, by us and barely."""
    return ["--ipv4=127.0.0.1/8", f"--port={port}", f"--delay={START_MS}"]


@dataclass
class Stage:
    """An upstream, and `ours`: the clone in which mirage-hooks is installed and a guest runs."""

    folder: Path
    environment: dict[str, str]
    port: int = field(default_factory=free_port)
    count: int = 0

    @property
    def upstream(self) -> Path:
        """The repository that is pulled from."""
        return self.folder / "upstream"

    @property
    def ours(self) -> Path:
        """The clone that deploys."""
        return self.folder / "ours"

    @property
    def state(self) -> State:
        """The state folder of the clone that deploys."""
        return State(self.ours / ".git")

    def run(self, *command: str | Path, cwd: Path) -> str:
        """Run a command and return what it printed; raise with its words where it fails."""
        done = subprocess.run(
            command,
            cwd=cwd,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{command} ended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def mirage_hooks(self, *arguments: str) -> str:
        """Run our command line in the clone that deploys."""
        return self.run(COMMAND, *arguments, cwd=self.ours)

    def clone(self, name: str) -> Path:
        """Clone the upstream."""
        self.run("git", "clone", "-q", self.upstream, self.folder / name, cwd=self.folder)
        return self.folder / name

    def image(self, page: str) -> Path:
        """Return the guest compiled with a page."""
        image = self.folder / f"{page}.unix"
        if not image.exists():
            define = f'-DPAGE="{page}"'
            self.run("cc", "-O2", "-static", define, "-o", image, SOURCE, cwd=self.folder)
        return image

    def publish(self) -> tuple[str, str]:
        """Commit an image that never ran; return the pages of the last one and of this one.

        Bytes after the end of the ELF file make it a new image.
        """
        self.count += 1
        old, new = PAGES[self.count % 2], PAGES[(self.count + 1) % 2]
        folder = self.upstream / "unix" / f"{self.count:040x}"
        folder.mkdir(parents=True)
        data = self.image(new).read_bytes() + f"{self.count:08d}".encode()
        (folder / "www.unix").write_bytes(data)
        (self.upstream / "unix" / "latest").write_text(f"{folder.name}\n")
        self.commit(f"adding {folder.name} for unix")
        return old, new

    def commit(self, message: str) -> str:
        """Commit all that the upstream's work tree holds; return the commit."""
        self.run("git", "add", "-A", cwd=self.upstream)
        self.run("git", "commit", "-q", "-m", message, cwd=self.upstream)
        return self.run("git", "rev-parse", "HEAD", cwd=self.upstream).strip()

    def pull(self, clone: Path) -> tuple[float, float]:
        """Pull in a clone; return when it began and when it ended (monotonic, seconds)."""
        log = self.folder / "pull.log"
        with log.open("wb") as output:
            began = time.monotonic()
            code = subprocess.call(
                ["git", "pull", "-q", "--ff-only"],
                cwd=clone,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )  # no timeout: with one, subprocess polls, in steps of up to 50 ms
            ended = time.monotonic()
        if code != 0:
            raise RuntimeError(f"the pull in {clone.name} ended with {code}:\n{log.read_text()}")
        return began, ended

    def monitor(self) -> MonitorState:
        """Return what the monitor of the newest generation says; raise where none runs."""
        found = self.state.monitor_state(self.state.generations("www")[-1])
        if found is None or not found.alive:
            raise RuntimeError("the guest does not run")
        return found

    def settled(self) -> tuple[str, frozenset[str]]:
        """Return the stamp that the hook's fast path trusts, and the converges there were."""
        text = self.state.settled.read_text()
        return text, frozenset(path.name for path in self.state.runs.iterdir())

    def set_up(self) -> None:
        """Make the upstream and the clone, and deploy the guest's first image."""
        (self.folder / "home").mkdir()
        (self.folder / "home" / ".gitconfig").write_text(_CONFIG)
        (self.folder / "run").mkdir(mode=0o700)
        self.run("git", "init", "-q", self.upstream, cwd=self.folder)
        (self.upstream / "mirage-hooks.toml").write_text(
            '[guest.www]\ntarget = "unix"\nimage = "unix/{latest}/www.unix"\n'
            f"args = {arguments(self.port)!r}\n"
            f'[guest.www.check]\nhttp = "http://127.0.0.1:{self.port}/"\nwithin = "5s"\n'
        )
        self.publish()
        self.clone("ours")
        self.install()
        self.mirage_hooks("deploy")

    def install(self) -> None:
        """Install mirage-hooks into the clone that deploys."""
        user = ["--user", "nobody"] if os.geteuid() == 0 else []
        self.mirage_hooks("install", *user)

    def clear_away(self) -> None:
        """End the guest, and take mirage-hooks out of the clone."""
        if self.state.folder.exists():
            self.mirage_hooks("uninstall", "--stop", "--yes")


@contextmanager
def stage() -> Iterator[Stage]:
    """Set a stage, with a guest deployed; clear it away at the end."""
    with tempfile.TemporaryDirectory(prefix="mirage-hooks-bench-") as name:
        folder = Path(name)
        kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        made = Stage(
            folder,
            {
                **kept,
                "HOME": str(folder / "home"),
                "XDG_CONFIG_HOME": str(folder / "home" / ".config"),
                "XDG_RUNTIME_DIR": str(folder / "run"),
                "GIT_CONFIG_NOSYSTEM": "1",
            },
        )
        try:
            made.set_up()
            yield made
        finally:
            made.clear_away()
