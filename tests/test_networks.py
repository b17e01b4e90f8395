"""Guests on networks, end to end: git, the command line and guests, on a host of the test's own.

For spt and hvt a stand-in plays the tender: test_real_tenders.py has the same with the real ones.
"""

import os
import re
from pathlib import Path

import pytest

from networked import BRIDGE, NetSite, each_target, on
from support import monitors_of


def ended(net: NetSite) -> bool:
    """Whether no guest, and nothing of one, is left on the host."""
    return net.taps() == [] and monitors_of(net.state) == []


# The way of a guest.


@each_target
def test_a_first_deploy_makes_what_the_guest_needs_and_tells_its_network(net: NetSite) -> None:
    deploy = net.command("deploy")
    assert (net.page(), net.host.pings("10.0.0.2")) == ("one", True)
    [tap] = net.taps()
    assert net.host.links() == ["br0", tap]
    assert net.link(tap, "ifalias") == f"mirage-hooks:{net.state.installation}:www:1"
    assert net.link("br0", "ifalias") == f"mirage-hooks:{net.state.installation}"
    assert net.link(tap, "carrier") == "1"
    assert net.link(tap, "master/address") == net.link("br0", "address")
    line = (
        r"www: network: service static, 10\.0\.0\.2/24 \(netmask 255\.255\.255\.0\), "
        rf"gateway 10\.0\.0\.1, tap {tap} on br0, (mac [0-9a-f:]{{17}}, )?"
        r"passed as --ipv4=10\.0\.0\.2/24 --ipv4-gateway=10\.0\.0\.1 --ipv4-only=true; "
        r"commit [0-9a-f]{7}, image [0-9a-f]{7}"
    )
    assert re.search(line, deploy.stdout), deploy.stdout
    line = (
        rf"configured 10\.0\.0\.2/24 via 10\.0\.0\.1; "
        rf"observed 10\.0\.0\.2 at {net.mac()} by ARP after [0-9.]+ m?s\n"
    )
    assert re.search(line, deploy.stdout), deploy.stdout
    assert "warning" not in deploy.stdout


@each_target
def test_a_pull_replaces_a_guest_and_its_tap_and_neither_mac_changes(net: NetSite) -> None:
    net.command("deploy")
    before, bridge, old = net.taps(), net.link("br0", "address"), net.mac()
    net.publish("two")
    net.pull()
    assert (net.page(), net.outcomes()) == ("two", ["ended", "healthy"])
    assert len(net.taps()) == 1
    assert net.taps() != before
    assert net.link("br0", "address") == bridge
    assert net.mac() == old or net.target == "unix"  # which chooses its own each time


@each_target
def test_a_pull_that_changes_only_the_address_boots_the_guest_there(net: NetSite) -> None:
    net.command("deploy")
    net.device, net.check = 'address = "10.0.0.3/24"', "ping = true"
    net.publish()
    pull = net.pull()
    assert "configured 10.0.0.3/24; observed 10.0.0.3" in pull.stderr
    assert (net.page("10.0.0.3"), net.page()) == ("one", None)


@each_target
def test_an_image_that_does_not_start_leaves_the_old_guest_answering(net: NetSite) -> None:
    net.command("deploy")
    net.publish(image=net.built.image(net.target, broken=True).read_bytes())
    pull = net.pull()
    assert "generation 2 is not healthy" in pull.stderr
    assert net.outcomes() == ["ended", "failed", "healthy"]
    assert net.page() == "one"
    [tap] = net.taps()
    assert net.link(tap, "ifalias").endswith(":www:3")


@each_target
def test_a_guest_is_rebooted_stopped_started_and_taken_away(net: NetSite) -> None:
    net.command("deploy")
    net.command("reboot")
    assert (net.page(), len(net.taps())) == ("one", 1)
    net.command("stop", "www")
    assert ended(net)
    net.publish("two")
    net.pull()
    assert ended(net)
    net.command("start", "www")
    assert (net.page(), len(net.taps())) == ("two", 1)
    net.command("uninstall", "--yes", "--stop")
    assert net.host.links() == []
    assert net.host.pids == []
    assert not net.state.folder.exists()
    assert list(Path(os.environ["XDG_RUNTIME_DIR"]).iterdir()) == []


@on("spt")
@pytest.mark.parametrize(
    ("arguments", "check"),
    [
        (["--hang-after=0"], "ping = true"),
        ([], 'http = "http://10.0.0.2:81/"'),
        ([], 'console = "never said"'),
        (["--nonsense"], "ping = true"),
    ],
)
def test_what_does_not_come_up_healthy_is_rolled_back(
    net: NetSite, arguments: list[str], check: str
) -> None:
    net.command("deploy")
    net.args, net.check = arguments, f'{check}\nwithin = "500ms"'
    net.publish("two")
    pull = net.pull()
    assert "generation 2 is not healthy" in pull.stderr
    assert net.page() == "one"
    [tap] = net.taps()
    assert net.link(tap, "ifalias").endswith(":www:3")


@on("spt")
def test_two_guests_talk_over_one_bridge(net: NetSite) -> None:
    answered = 'console = "10.0.0.2 answers"\nwithin = "5s"'
    device, args = 'address = "10.0.0.3/24"', ["--peer=10.0.0.2", "--hello=other"]
    net.more = net.table("other", device, args, answered)
    net.publish()
    net.pull()
    assert (net.page(), net.page("10.0.0.3")) == ("one", "other")
    assert len(net.taps()) == 2


@on("virtio")
def test_two_guests_in_qemu_talk_over_one_bridge(net: NetSite) -> None:
    answered = 'console = "10.0.0.2 answers"\nwithin = "5s"'
    device, args = 'address = "10.0.0.3/24"', ["--peer=10.0.0.2", "--hello=other"]
    net.more = net.table("other", device, args, answered)
    net.publish()
    net.pull()
    assert (net.page(), net.page("10.0.0.3")) == ("one", "other")


@on("virtio")
def test_a_guest_has_both_families_of_addresses(net: NetSite) -> None:
    net.bind({**BRIDGE, "address": ["10.0.0.1/24", "fd00::1/64"]})
    net.device = 'address = ["10.0.0.2/24", "fd00::2/64"]'
    net.publish()
    deploy = net.command("deploy", check=False)
    pull = net.pull()
    assert net.host.pings("fd00::2"), deploy.stdout
    assert "warning" not in deploy.stdout + pull.stderr


@on("spt")
def test_two_guests_exchange_their_addresses_in_one_pull(net: NetSite) -> None:
    here, there = 'address = "10.0.0.2/24"', 'address = "10.0.0.3/24"'
    hello, check = ["--hello=other"], 'ping = true\nwithin = "5s"'
    net.device, net.check, net.more = here, check, net.table("other", there, hello, check)
    net.publish()
    net.pull()
    assert (net.page(), net.page("10.0.0.3")) == ("one", "other")
    net.device, net.more = there, net.table("other", here, hello, check)
    net.publish()
    pull = net.pull()
    assert (net.page(), net.page("10.0.0.3")) == ("other", "one"), pull.stderr
    assert net.outcomes() == net.outcomes("other") == ["ended", "healthy"]


@on("spt")
def test_a_guest_that_is_renamed_takes_its_address_over(net: NetSite) -> None:
    net.command("deploy")
    manifest = net.upstream / "mirage-hooks.toml"
    manifest.write_text(manifest.read_text().replace("guest.www", "guest.web"))
    net.commit("renamed")
    net.pull()
    assert (net.page(), net.live()) == ("one", None)
    [tap] = net.taps()
    assert net.link(tap, "ifalias").endswith(":web:1")


# MACs.


@on("spt")
def test_a_mac_of_the_manifests_is_the_guests(net: NetSite) -> None:
    net.device += '\nmac = "02:00:00:00:00:07"'
    net.publish()
    net.pull()
    assert net.mac() == "02:00:00:00:00:07"


@on("spt")
def test_a_bridge_that_was_there_keeps_its_mac_and_stays(net: NetSite) -> None:
    net.host.bridge("br-host", "10.0.0.1/24")
    # Without a set address a bridge takes the lowest MAC of its ports.
    net.host.tap("theirs", "br-host")
    before = net.link("br-host", "address")
    net.bind({"bridge": "br-host"})
    net.command("deploy")
    net.publish("two")
    net.pull()
    assert net.page() == "two"
    assert net.link("br-host", "address") == before
    net.command("uninstall", "--yes", "--stop")
    assert net.host.links() == ["br-host", "theirs"]
    assert net.link("br-host", "ifalias") == ""
