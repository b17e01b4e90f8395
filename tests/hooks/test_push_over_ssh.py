"""A push over ssh, with a real sshd on loopback: what the client does never stops the deploy."""

import getpass
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import Site, make_bare, wait_for


@dataclass
class Remote:
    """A repository on this host, to which one pushes over ssh."""

    site: Site
    url: str

    def start_push(self) -> "subprocess.Popen[str]":
        """Start a push in a process group of its own."""
        return subprocess.Popen(
            ["git", "push", self.url, "main"],
            cwd=self.site.upstream,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )


@pytest.fixture
def remote(site: Site, sshd: int, tmp_path: Path) -> Remote:
    """A bare repository behind ssh, whose first image runs."""
    make_bare(site, tmp_path)
    site.install("--deploy")
    return Remote(site, f"ssh://{getpass.getuser()}@127.0.0.1:{sshd}{site.clone}")


@pytest.fixture
def slow(remote: Remote) -> Remote:
    """The same, with an image to push whose guest opens its port after a second."""
    remote.site.args.append("--delay=1000")
    remote.site.publish("two")
    return remote


def test_a_push_over_ssh_deploys_and_shows_it(remote: Remote) -> None:
    remote.site.publish("two")
    push = remote.site.push(remote.url, "main")
    assert "remote: mirage-hooks: done: www runs as it should" in push.stderr
    assert remote.site.page() == "two"


def test_a_client_that_is_killed_ends_the_following_and_not_the_deploy(slow: Remote) -> None:
    push = slow.start_push()
    wait_for(lambda: len(slow.site.outcomes()) == 2)
    os.killpg(push.pid, signal.SIGKILL)
    push.communicate(timeout=10)
    wait_for(lambda: slow.site.outcomes() == ["ended", "healthy"])
    assert slow.site.page() == "two"


def test_a_client_that_reads_nothing_for_a_while_delays_no_deploy(slow: Remote) -> None:
    push = slow.start_push()
    wait_for(lambda: len(slow.site.outcomes()) == 2)
    os.killpg(push.pid, signal.SIGSTOP)
    try:
        wait_for(lambda: slow.site.outcomes() == ["ended", "healthy"])
        assert slow.site.page() == "two"
    finally:
        os.killpg(push.pid, signal.SIGCONT)
    _, stderr = push.communicate(timeout=30)
    assert (push.returncode, "done: www runs as it should" in stderr) == (0, True)
