"""What a guest really uses of the network, beside what it was told: on a host of the test's own."""

import json
import shutil
from pathlib import Path

import pytest

from networked import NetSite, on
from support import wait_for

needs_dnsmasq = pytest.mark.skipif(
    shutil.which("dnsmasq") is None, reason="dnsmasq is missing: apt-get install dnsmasq-base"
)


def warnings(net: NetSite) -> tuple[list[str], list[str]]:
    """Return what `status` and `history` have to warn of."""
    status = json.loads(net.command("status", "--json").stdout)["guests"][0]
    history = json.loads(net.command("history", "--json").stdout)
    newest = max(history, key=lambda one: one["generation"])
    return status["warnings"], newest["warnings"]


def warned(net: NetSite, deploy: str, warning: str) -> bool:
    """Whether a warning stands in what a deploy said, in the log, in status and in history."""
    line = f"www: warning: network: service: {warning}"
    texts = [deploy, net.command("logs").stdout]
    assert [line in text for text in texts] == [True, True], texts
    shown = [net.command(command).stdout for command in ("status", "history")]
    assert [f"service: {warning}" in text for text in shown] == [True, True], shown
    return warnings(net) == ([f"service: {warning}"],) * 2


@needs_dnsmasq
@on("unix", "spt", "virtio")
def test_a_lease_is_told_and_pinged(net: NetSite, tmp_path: Path) -> None:
    net.host.bridge("br-host", "10.0.0.1/24")
    net.bind({"bridge": "br-host"})
    net.host.popen(
        "dnsmasq",
        *("--keep-in-foreground", "--port=0", "--interface=br-host", "--bind-interfaces"),
        *("--dhcp-range=10.0.0.50,10.0.0.50,2m", "--no-ping", "--log-facility=-", "--user=root"),
        *("--conf-file=/dev/null", f"--dhcp-leasefile={tmp_path / 'leases'}", "--pid-file="),
        console=tmp_path / "dnsmasq",
    )
    net.device, net.check = "dhcp = true", 'ping = true\nwithin = "8s"'
    net.publish(image=net.built.image(net.target, "leased", dhcp=True).read_bytes())
    pull = net.pull()
    assert net.page("10.0.0.50") == "leased"
    assert "www: network: service dhcp, tap mh" in pull.stderr
    assert "configured DHCP; observed 10.0.0.50/24 via 10.0.0.1 at" in pull.stderr
    assert "by DHCP after" in pull.stderr
    assert warnings(net) == ([], [])
    assert net.mac("10.0.0.50") in pull.stderr


@on("spt")
def test_a_guest_that_gets_no_lease_is_rolled_back_where_it_is_to_answer(net: NetSite) -> None:
    net.command("deploy")
    net.device, net.check = "dhcp = true", 'ping = true\nwithin = "500ms"'
    net.publish(image=net.built.image("spt", "leased", dhcp=True).read_bytes())
    pull = net.pull()
    assert "no address of its own was seen that could be pinged within 500ms" in pull.stderr
    assert (net.page(), net.outcomes()) == ("one", ["ended", "failed", "healthy"])


@on("spt", "virtio")
def test_a_guest_that_gets_no_lease_and_only_has_to_live_is_warned_of(net: NetSite) -> None:
    net.device, net.check = "dhcp = true", 'alive = "500ms"'
    net.publish(image=net.built.image(net.target, dhcp=True).read_bytes())
    pull = net.pull()
    assert net.outcomes() == ["healthy"]
    assert warned(net, pull.stderr, "DHCP was configured, and no address observed")


@on("unix", "spt", "virtio")
def test_what_is_baked_in_is_told_as_observed(net: NetSite) -> None:
    net.device, net.check = "baked = true", 'ping = true\nwithin = "8s"'
    net.publish(image=net.built.image(net.target, "baked", address="10.0.0.9/24").read_bytes())
    pull = net.pull()
    assert net.page("10.0.0.9") == "baked"
    assert "nothing passed" in pull.stderr
    assert "configured what is baked in; observed 10.0.0.9" in pull.stderr
    assert warnings(net) == ([], [])


@on("unix", "spt")
def test_an_address_that_was_not_configured_is_warned_of(net: NetSite) -> None:
    net.args = ["--also=10.0.0.9"]
    net.publish()
    pull = net.pull()
    assert net.page() == "one"
    assert warned(net, pull.stderr, "10.0.0.9 was observed, and not configured")


@on("spt")
def test_an_address_that_is_not_used_is_warned_of(net: NetSite) -> None:
    net.args, net.check = ["--delay=60000"], 'alive = "200ms"'
    net.publish()
    pull = net.pull()
    assert warned(net, pull.stderr, "10.0.0.2 was configured, and not observed")


@on("spt")
def test_what_a_killed_converge_has_seen_is_not_missed_by_the_next(net: NetSite) -> None:
    net.command("deploy")
    net.args, net.check = ["--delay=60000"], 'alive = "1500ms"'
    net.publish()
    net.git("fetch", "-q")
    console = net.clone.parent / "merge"
    net.host.popen("git", "merge", "-q", "origin/main", console=console, cwd=net.clone)
    wait_for(net.booting)
    net.kill_converger()
    deploy = net.command("deploy")
    assert "configured 10.0.0.2/24 via 10.0.0.1; observed nothing" in deploy.stdout
    assert (net.outcomes(), warnings(net)) == (["ended", "healthy"], ([], []))


@on("spt")
def test_an_image_that_takes_no_lease_where_it_should_is_warned_of(net: NetSite) -> None:
    net.device, net.check = "dhcp = true", 'ping = true\nwithin = "5s"'
    net.publish()
    pull = net.pull()
    assert net.page() == "one"
    assert warned(net, pull.stderr, "DHCP was configured, and 10.0.0.2 is from no lease")
