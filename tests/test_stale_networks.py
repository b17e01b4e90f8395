"""What a host is left with by whatever was killed, and what of it is never ours to touch."""

import os
import signal

import pytest

from networked import NetSite, on
from support import monitors_of, wait_for


@on("spt")
def test_a_tap_left_by_a_killed_monitor_is_removed_by_the_next_deploy(net: NetSite) -> None:
    net.command("deploy")
    [stale] = net.taps()
    monitor = net.monitor()
    os.kill(monitor.monitor.pid, signal.SIGKILL)
    wait_for(lambda: not monitor.alive)
    assert net.taps() == [stale]
    net.command("deploy")
    assert net.page() == "one"
    assert len(net.taps()) == 1
    assert net.taps() != [stale]


@on("unix", "spt", "virtio")
def test_a_guest_whose_tender_is_killed_is_booted_again_on_its_tap(net: NetSite) -> None:
    net.command("deploy")
    taps, tender = net.taps(), net.monitor().tender
    assert tender is not None
    os.kill(tender.pid, signal.SIGKILL)
    # A unix guest has another MAC now. Where its announcement is lost, the host goes on asking the
    # old one until its ARP entry is in doubt: half a minute (base_reachable_time_ms of arp(7)).
    wait_for(lambda: net.monitor().restarts == 1 and net.page() == "one", 60)
    assert net.taps() == taps
    assert net.outcomes() == ["healthy"]


@on("spt")
@pytest.mark.parametrize("phase", ["preparing", "armed", "fired"])
def test_a_converge_that_is_killed_leaves_the_next_one_guest_and_one_tap(
    net: NetSite, phase: str
) -> None:
    net.command("deploy")
    net.args = ["--delay=500"]
    net.publish("two")
    net.git("fetch", "-q")
    console = net.clone.parent / "merge"
    net.host.popen("git", "merge", "-q", "origin/main", console=console, cwd=net.clone)
    reached = {phase, "fired"}  # it may have gone on when it is looked at
    wait_for(lambda: len(net.outcomes()) == 2 and net.outcomes()[1] in reached)
    net.kill_converger()
    net.command("deploy")
    assert (net.page(), len(net.taps()), len(monitors_of(net.state))) == ("two", 1, 1)


@on("spt")
def test_the_tap_of_a_generation_that_was_killed_in_its_boot_is_removed(net: NetSite) -> None:
    net.command("deploy")
    net.args, net.check = ["--delay=20000"], 'ping = true\nwithin = "20s"'
    net.publish("two")
    net.git("fetch", "-q")
    console = net.clone.parent / "merge"
    net.host.popen("git", "merge", "-q", "origin/main", console=console, cwd=net.clone)
    wait_for(net.booting)
    net.kill_converger()
    monitor = net.monitor()
    os.kill(monitor.monitor.pid, signal.SIGKILL)
    wait_for(lambda: not monitor.alive)
    assert len(net.taps()) == 2
    net.args, net.check = [], None
    net.publish()
    net.pull()
    assert (net.page(), len(net.taps())) == ("two", 1)


@on("spt")
def test_the_links_of_others_are_never_touched(net: NetSite) -> None:
    aliases = {
        "mh0123456789ab": "",
        "mhtheirs": "mirage-hooks:0123456789ab:www:1",
        "mhold": f"mirage-hooks:{net.state.installation}0:www:1",
    }
    for name, alias in aliases.items():
        net.host.tap(name)
        net.host.run("ip", "link", "set", name, "alias", alias)
    net.host.bridge("br-theirs")
    net.host.run("ip", "link", "set", "br-theirs", "alias", "mirage-hooks:0123456789ab")
    net.command("deploy")
    net.publish("two")
    net.pull()
    net.command("uninstall", "--yes", "--stop")
    assert net.host.links() == sorted([*aliases, "br-theirs"])


@on("unix", "spt")
def test_a_host_that_has_lost_its_links_has_them_again_with_the_next_deploy(net: NetSite) -> None:
    net.command("deploy")
    monitor, mac = net.monitor(), net.link("br0", "address")
    os.kill(monitor.monitor.pid, signal.SIGKILL)
    wait_for(lambda: not monitor.alive)
    for link in net.host.links():
        net.host.run("ip", "link", "delete", link)
    net.command("deploy")
    assert (net.page(), len(net.taps()), net.link("br0", "address")) == ("one", 1, mac)
