"""Deploys of Xen guests on a real Xen: a deployment repository as it is, from install to reboot."""

import bz2
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from in_dom0 import GUESTS, in_dom0
from mirage_hooks.boot import survey
from mirage_hooks.boot.record import State
from mirage_hooks.boot.xl import Xl
from support import COMMAND, get, leave_state, run, wait_for

pytestmark = in_dom0

ADDRESS = "10.0.0.55"
# A domain takes seconds to make here.
_SECONDS = 60

XL_CONF_IN = """\
name='@NAME@'
memory='{memory}'
kernel='@KERNEL@'
vif=['bridge=xenbr0']
extra='ipv4=10.0.0.55/24 hello={page}'
on_crash='restart'
@DISK@
"""


class Practice:
    """A deployment repository with the site mort.io, and a clone of it."""

    def __init__(self, folder: Path) -> None:
        self.upstream, self.clone = folder / "upstream", folder / "clone"
        run("git", "init", "-q", str(self.upstream), cwd=folder)
        self.publish("one")
        run("git", "clone", "-q", str(self.upstream), str(self.clone), cwd=folder)

    def publish(self, page: str, kernel: str = "web.xen", memory: int = 32) -> None:
        """Commit an image as CI does, and a template that has it answer with a page."""
        folder = self.upstream / "xen" / f"{time.monotonic_ns():040x}"
        folder.mkdir(parents=True)
        packed = bz2.compress((GUESTS / kernel).read_bytes())
        (folder / "mortio.xen.bz2").write_bytes(packed)
        (folder.parent / "latest").write_text(f"{folder.name}\n")
        template = XL_CONF_IN.format(memory=memory, page=page)
        (self.upstream / "xl.conf.in").write_text(template)
        run("git", "add", "-A", cwd=self.upstream)
        run("git", "commit", "-q", "-m", f"adding {folder.name} for xen", cwd=self.upstream)

    def command(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        return run(COMMAND, *arguments, cwd=self.clone, check=check)

    def install(self) -> str:
        image = "xen/{latest}/mortio.xen.bz2"
        named = ("--guest", "mort.io", "--target", "xen", "--image", image)
        return self.command("install", *named).stdout

    def pull(self) -> str:
        return run("git", "pull", "-q", cwd=self.clone).stderr

    @property
    def state(self) -> State:
        return State(self.clone / ".git")

    def domains(self) -> dict[str, str]:
        """Return the state of each domain of the site, by its name."""
        found = Xl(["xl"]).domains()
        return {one.name: one.state for one in found if one.name.startswith("mort.io")}

    def is_alone(self) -> bool:
        return list(self.domains()) == ["mort.io"]


def page() -> str | None:
    return get(80, address=ADDRESS)


@pytest.fixture
def practice(tmp_path: Path) -> Iterator[Practice]:
    made = Practice(tmp_path)
    yield made
    leave_state(made.state)
    assert made.domains() == {}
    shutil.rmtree(made.clone)


@pytest.fixture
def deployed(practice: Practice) -> Practice:
    """A site that runs."""
    practice.install()
    practice.command("deploy")
    wait_for(lambda: page() == "one", _SECONDS)
    wait_for(practice.is_alone, _SECONDS)
    return practice


def test_a_repository_as_it_is_is_installed_and_deployed(practice: Practice) -> None:
    said = practice.install()
    assert "mort.io has the template xl.conf.in" in said
    assert "network xenbr0: guests may be on that bridge" in said
    deploy = practice.command("deploy").stdout
    wait_for(lambda: page() == "one", _SECONDS)
    wait_for(practice.is_alone, _SECONDS)
    assert re.search(r"vif mh[0-9a-f]{12} on xenbr0, mac [0-9a-f:]{17}, passed as ipv4=", deploy)


def test_a_pull_replaces_the_domain(deployed: Practice) -> None:
    deployed.publish("two")
    assert "mort.io: replace: " in deployed.pull()
    assert page() == "two"
    wait_for(deployed.is_alone, _SECONDS)


def test_a_guest_is_rolled_back(deployed: Practice) -> None:
    deployed.publish("two")
    deployed.pull()
    deployed.command("rollback", "mort.io")
    assert page() == "one"
    wait_for(deployed.is_alone, _SECONDS)


def test_an_image_that_xen_does_not_boot_leaves_the_old_one_answering(deployed: Practice) -> None:
    deployed.publish("two", memory=100_000)
    deployed.command("deploy", check=False)
    assert page() == "one"


def test_a_domain_that_is_destroyed_is_made_again(deployed: Practice) -> None:
    run("xl", "destroy", "mort.io", cwd=Path("/"))
    wait_for(lambda: page() is None, _SECONDS)
    wait_for(lambda: page() == "one", _SECONDS)
    wait_for(deployed.is_alone, _SECONDS)


def test_a_stopped_guest_leaves_no_domain(deployed: Practice) -> None:
    deployed.command("stop", "mort.io")
    assert deployed.domains() == {}


def test_what_a_killed_monitor_left_is_replaced_at_the_start_of_the_host(
    deployed: Practice,
) -> None:
    live = survey.look(deployed.state, "mort.io").live
    assert live is not None
    monitor = deployed.state.monitor_state(live)
    assert monitor is not None
    assert monitor.tender is not None
    os.kill(monitor.monitor.pid, signal.SIGKILL)
    monitor.tender.wait_gone(5)
    deployed.command("up")
    wait_for(lambda: page() == "one", _SECONDS)
    wait_for(deployed.is_alone, _SECONDS)


def test_a_domain_of_the_shell_practice_is_adopted_once_that_was_asked_for(
    practice: Practice, tmp_path: Path
) -> None:
    practice.install()
    config = tmp_path / "mort.io.xl"
    kernel = f"kernel = '{GUESTS / 'web.xen'}'\nextra = 'ipv4={ADDRESS}/24 hello=old'\n"
    config.write_text(f"name = 'mort.io'\nmemory = 16\n{kernel}vif = ['bridge=xenbr0']\n")
    run("xl", "create", "-q", str(config), cwd=tmp_path)
    wait_for(lambda: page() == "old", _SECONDS)
    refused = practice.command("deploy", check=False)
    assert "runs already, and is none of ours" in refused.stderr
    assert page() == "old"
    practice.command("deploy", "--adopt", "mort.io", "--yes")
    wait_for(lambda: page() == "one", _SECONDS)
    wait_for(practice.is_alone, _SECONDS)
