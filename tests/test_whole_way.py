"""The whole way: a page is changed, built, published, polled, booted and served, on one machine.

MirageOS alone has a stand-in, since it cannot be installed here.
"""

import getpass
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirage_hooks.boot import journal
from practice import Took
from publisher import Publisher
from site_copy import STAND_IN, SiteCopy
from support import COMMAND, Site, free_port, leave, run, wait_for


@dataclass(frozen=True)
class Way:
    """A site's repository, CI's clone of the deployment repository, and that of a host."""

    source: Path
    job: Publisher
    site: Site
    took: Took

    def write(self, title: str) -> None:
        """Commit another title of the front page."""
        page = self.source / "pages" / "index.md"
        page.write_text(re.sub("(?m)^title: .*", f"title: {title}", page.read_text()))
        run("git", "commit", "-q", "-a", "-m", title, cwd=self.source)

    def make(self, *goals: str) -> None:
        """Run make as CI does."""
        run("make", *goals, f"DEPLOYMENT={self.job.clone}", cwd=self.source)

    def serves(self, title: str) -> bool:
        """Whether the host serves a front page of this title."""
        return f"<h1>{title}</h1>" in (self.site.page() or "")

    def poll(self, title: str) -> None:
        """Have the host poll once; say how long it was until each step, and the page, was there."""
        began = time.time()
        polling = subprocess.Popen(
            [COMMAND, "poll"], cwd=self.site.clone, stderr=subprocess.PIPE, text=True
        )
        wait_for(lambda: self.serves(title), 60)
        served = time.time()
        said = polling.communicate(timeout=60)[1]
        assert (polling.returncode, "done: www runs as it should" in said) == (0, True)
        times = {
            str(one["event"]): one["time"] for one in journal.read(str(self.site.state.events))
        }
        advanced, fired, healthy = (
            float(str(times[event]))
            for event in ("repository.advanced", "guest.fired", "guest.healthy")
        )
        self.took("4, polled", advanced - began)
        self.took("5, unpacked, verified and armed", fired - advanced)
        self.took("6, booted, until it is healthy", healthy - fired)
        self.took("6, booted, until the new page is served", served - fired)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Say how long it took."""
        began = time.monotonic()
        yield
        self.took(what, time.monotonic() - began)


@pytest.fixture(params=["by path", "over ssh"])
def way(
    request: pytest.FixtureRequest,
    job: Publisher,
    copied: SiteCopy,
    tmp_path: Path,
    compiled: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    took: Took,
) -> Iterator[Way]:
    """What serves the site as it was copied; publisher and host reach the repository one way."""
    (copied.programs / "jekyll").unlink()
    if shutil.which("jekyll") is None:
        pytest.skip("there is no jekyll here (Debian: jekyll)")
    monkeypatch.setenv("PATH", f"{STAND_IN}:{COMMAND.parent}:{os.environ['PATH']}")
    url = str(job.upstream)
    if request.param == "over ssh":
        url = f"ssh://{getpass.getuser()}@127.0.0.1:{request.getfixturevalue('sshd')}{url}"
    job.git("remote", "set-url", "origin", url)
    site = Site(job.upstream, tmp_path / "host", free_port(), compiled)
    job.bring({"mirage-hooks.toml": site.manifest()})
    made = Way(
        copied.folder,
        job,
        site,
        lambda what, seconds: took(f"the whole way, {request.param}: {what}", seconds),
    )
    made.make("configure.socket", "build", "publish")
    run("git", "clone", "-q", url, site.clone, cwd=tmp_path)
    site.install("--deploy")
    assert made.serves("Welcome")
    yield made
    leave(site)


def test_a_page_that_was_changed_is_served_after_the_next_poll(way: Way) -> None:
    way.write("Welcome back")
    with way.timed("1 to 6, from the change to the new page"):
        with way.timed("1, pages built"):
            way.make("site")
        with way.timed("2, image built, and the pages once more"):
            way.make("build")
        with way.timed("3, published"):
            way.make("publish")
        way.poll("Welcome back")
    assert way.serves("Welcome back")
    assert way.site.outcomes() == ["ended", "healthy"]
