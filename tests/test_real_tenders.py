"""The way of a guest in Solo5's own tenders, where they and images for them are there.

test_networks.py has the same, and more, with stand-ins.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

import real_tenders
from guests_built import Built
from mirage_hooks.boot.elf import inspect
from namespace import Namespace
from networked import NetSite, networked
from real_tenders import Real

CHECK = 'ping = true\nwithin = "10s"'
NONE = f"no solo5-spt or solo5-hvt on PATH, or no image for it in ${real_tenders.VARIABLE}"


@pytest.fixture(
    params=[pytest.param(one, id=str(one)) for one in real_tenders.found()]
    or [pytest.param(None, marks=pytest.mark.skip(reason=NONE))]
)
def net(
    request: pytest.FixtureRequest, tmp_path: Path, namespace: Namespace, built: Built
) -> Iterator[NetSite]:
    """A clone on a host of its own, with an image for a real tender published."""
    real: Real = request.param
    with networked(tmp_path, namespace, built, real.target) as made:
        made.tell_host(tenders={real.target: real.tender})
        [made.name] = inspect(real.image).devices
        made.device, made.check = real.device, CHECK
        made.publish(image=real.image.read_bytes())
        yield made


@pytest.fixture
def running(net: NetSite) -> NetSite:
    """A guest that runs."""
    deploy = net.pull()
    if "this host's KVM lacks SSE: build the image for spt" in deploy.stderr:
        pytest.skip("this host's KVM lacks SSE, as the deploy has told")
    assert net.outcomes() == ["healthy"], deploy.stderr
    assert net.host.pings("10.0.0.2")
    return net


def test_a_pull_replaces_a_guest_whose_mac_stays(running: NetSite) -> None:
    before = running.mac()
    running.memory = 64
    running.publish()
    running.pull()
    assert running.outcomes() == ["ended", "healthy"]
    assert running.mac() == before
    assert len(running.taps()) == 1


def test_a_failed_deploy_leaves_the_old_guest_answering(running: NetSite) -> None:
    running.memory, running.check = 64, 'console = "never said"\nwithin = "500ms"'
    running.publish()
    pull = running.pull()
    assert "generation 2 is not healthy: no line on the console" in pull.stderr
    assert running.outcomes() == ["ended", "failed", "healthy"]
    assert running.host.pings("10.0.0.2")


def test_nothing_of_a_guest_is_left_once_it_is_taken_away(running: NetSite) -> None:
    running.command("uninstall", "--yes", "--stop")
    assert (running.host.links(), running.host.pids) == ([], [])
