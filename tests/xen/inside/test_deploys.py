"""Deploys of Xen guests on a real Xen, by a repository as MirageOS's own sites have it.

How one moves over to them is followed in test_page.py. What else the target does, tests/test_xen.py
has, with the stand-in that test_recorder.py compares.
"""

import os
import signal
import time

import pytest

from in_dom0 import in_dom0
from mirage_hooks.boot import survey
from mirage_hooks.boot.control import MonitorState
from mirage_hooks.boot.generation import Generation
from practice import SECONDS, XL_CONF_IN, Practice, Took, longest_silence
from support import wait_for

pytestmark = in_dom0


@pytest.fixture
def deployed(mort_io: Practice) -> Practice:
    """A site that runs."""
    mort_io.deploy()
    return mort_io


def live(site: Practice) -> Generation:
    found = survey.look(site.state, site.name).live
    assert found is not None
    return found


def monitor(site: Practice, generation: Generation) -> MonitorState:
    found = site.state.monitor_state(generation)
    assert found is not None
    return found


def test_a_pull_replaces_the_domain(deployed: Practice, took: Took) -> None:
    deployed.publish("two")
    with deployed.watched() as answered:
        began = time.monotonic()
        said = deployed.pull()
        wait_for(lambda: deployed.page() == "two", SECONDS)
        took("pull to first reply", time.monotonic() - began)
        deployed.answers("two")
    assert "mort.io: replace: " in said
    took("replace, longest time without an answer", longest_silence(answered))


def test_a_guest_that_crashes_is_booted_again(deployed: Practice, took: Took) -> None:
    template = XL_CONF_IN.format(address=deployed.address, page="two crash-after=15000")
    deployed.commit(template)
    with deployed.watched() as answered:  # the replace is shorter
        deployed.pull()
        crashing = live(deployed)
        wait_for(lambda: monitor(deployed, crashing).restarts > 0, SECONDS)
        back = len(answered)
        wait_for(lambda: len(answered) > back, SECONDS)
    assert "the domain crashed" in deployed.state.console(crashing).read_text()
    took("crash and restart, longest time without an answer", longest_silence(answered))


def test_a_domain_that_a_killed_monitor_left_is_replaced(deployed: Practice) -> None:
    left = monitor(deployed, live(deployed))
    assert left.tender is not None
    os.kill(left.monitor.pid, signal.SIGKILL)
    left.tender.wait_gone(SECONDS)
    assert deployed.domains() == ["mort.io"]
    deployed.command("up")
    deployed.answers("one")
