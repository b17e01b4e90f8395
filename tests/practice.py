"""A deployment repository as MirageOS's own sites have it, in a dom0; and when it answered."""

import bz2
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from in_dom0 import GUESTS
from mirage_hooks.boot.record import State
from mirage_hooks.boot.xl import Xl
from support import COMMAND, get, run, wait_for

PAGE = Path(__file__).parents[1] / "docs/xen.md"
# What a site has deployed by before it moves over.
SHELL_PRACTICE = Path(__file__).parent / "xen/shell_practice.sh"

# Where all is emulated a domain takes seconds to make, and a command of ours as long to start; many
# times that where the machine has other work.
SECONDS = 180.0

# What is told what took how long, in seconds.
Took = Callable[[str, float], None]

# The template of a domain as those repositories have it: the address is compiled in.
BAKED_XL_CONF_IN = """\
# -*- mode: conf -*-
name='@NAME@'
memory='256'
kernel='@KERNEL@'
vif=['bridge=xenbr0']
on_crash='restart'
@DISK@
"""

# One for images that take an address, and a page.
XL_CONF_IN = """\
name='@NAME@'
memory='32'
kernel='@KERNEL@'
vif=['bridge=xenbr0']
extra='ipv4={address}/24 hello={page}'
on_crash='restart'
@DISK@
"""


@dataclass(frozen=True)
class Practice:
    """A site: the repository that CI commits to, and its clone on this host, both in a folder."""

    folder: Path
    name: str = "mort.io"
    address: str = "10.0.0.55"

    @property
    def upstream(self) -> Path:
        """What is pulled from."""
        return self.folder / "upstream"

    @property
    def clone(self) -> Path:
        """What deploys."""
        return self.folder / "clone"

    @property
    def state(self) -> State:
        """The clone's state folder."""
        return State(self.clone / ".git")

    @property
    def image(self) -> str:
        """The path of the image: its file has the site's name without dots."""
        return f"xen/{{latest}}/{self.name.replace('.', '')}.xen.bz2"

    def set_up(self) -> None:
        """Make both, with a first image published that answers `one`."""
        self.folder.mkdir(exist_ok=True)
        run("git", "init", "-q", str(self.upstream), cwd=self.folder)
        self.publish("one")
        run("git", "clone", "-q", str(self.upstream), str(self.clone), cwd=self.folder)

    def publish(self, page: str) -> None:
        """Be CI: commit an image, and a template that has it answer with a page."""
        self.commit(XL_CONF_IN.format(address=self.address, page=page))

    def commit(self, template: str) -> None:
        """Commit an image, packed and in a folder of its own, and a template."""
        # What follows an ELF file makes it another image.
        latest = f"{time.monotonic_ns():040x}"
        image = (GUESTS / "web.xen").read_bytes() + latest.encode()
        path = self.upstream / self.image.format(latest=latest)
        path.parent.mkdir(parents=True)
        path.write_bytes(bz2.compress(image))
        (path.parents[1] / "latest").write_text(f"{latest}\n")
        (self.upstream / "xl.conf.in").write_text(template)
        run("git", "add", "-A", cwd=self.upstream)
        run("git", "commit", "-q", "-m", f"adding {latest} for xen", cwd=self.upstream)

    def command(self, *arguments: str, check: bool = True) -> str:
        """Run our command line in the clone; return all that it said."""
        done = run(COMMAND, *arguments, cwd=self.clone, check=check, seconds=SECONDS)
        return done.stdout + done.stderr

    def deploy(self) -> None:
        """Install mirage-hooks, and have the first image answer."""
        named = ("--guest", self.name, "--target", "xen", "--image", self.image)
        self.command("install", *named)
        self.command("deploy")
        self.answers("one")

    def pull(self) -> str:
        """Pull; return what the hook said."""
        return run("git", "pull", "-q", cwd=self.clone, seconds=SECONDS).stderr

    def page(self) -> str | None:
        """Return what the site answers, None where it does not."""
        return get(80, address=self.address, seconds=0.5)

    def answers(self, page: str) -> None:
        """Wait until the site answers so, and has one domain, by its name."""
        wait_for(lambda: self.page() == page, SECONDS)
        wait_for(lambda: self.domains() == [self.name], SECONDS)

    def domains(self) -> list[str]:
        """Return the names of the site's domains."""
        return [one.name for one in Xl(["xl"]).domains() if one.name.startswith(self.name)]

    @contextmanager
    def watched(self) -> Iterator[list[float]]:
        """Ask the site over and over; yield when it has answered so far (monotonic, seconds)."""
        answered: list[float] = []
        over = threading.Event()

        def ask() -> None:
            # The host has a single processor: what asks is not to keep it.
            while not over.wait(0.02):
                if self.page() is not None:
                    answered.append(time.monotonic())

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            yield answered
        finally:
            over.set()
            asking.join()


def longest_silence(answered: list[float]) -> float:
    """Return the longest time between two answers, seconds."""
    return max(later - earlier for earlier, later in pairwise(answered))


# Those that a reboot of the host is tried with.
REBOOTED = Practice(Path("/srv/rebooted"))
HELD = Practice(Path("/srv/held"), "held.org", "10.0.0.56")
