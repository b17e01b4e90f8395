"""Bridges: those that exist are taken as they are, ours are made, kept right, and removed."""

from collections.abc import Iterator
from ipaddress import ip_interface
from pathlib import Path

import pytest

from mirage_hooks.boot import links, netlink
from mirage_hooks.boot.errors import HostError
from namespace import Namespace
from rights import without_right

INSTALLATION = "0123456789ab"
ALIAS = links.bridge_alias(INSTALLATION)
MAC = links.bridge_mac(INSTALLATION, "br-ours")
NET_ADDR_SET = "3"  # linux/netdevice.h


@pytest.fixture
def host(namespace: Namespace) -> Iterator[Namespace]:
    """A host of the test's own, that the test is on."""
    with namespace.entered():
        yield namespace


def create(*addresses: str) -> None:
    links.create_bridge("br-ours", [ip_interface(one) for one in addresses], MAC, ALIAS)


def addresses_of(name: str) -> list[str]:
    return [str(address) for address in links.require_bridge(name).addresses]


def read(host: Namespace, name: str, file: str) -> str:
    return host.run("cat", f"/sys/class/net/{name}/{file}").stdout.strip()


# Bridges of the host's.


@pytest.mark.parametrize("name", ["br-none", "a-name-that-no-link-can-have"])
def test_a_bridge_that_is_missing_is_named(host: Namespace, name: str) -> None:
    with pytest.raises(HostError, match=f"network: bridge {name} does not exist") as caught:
        links.require_bridge(name)
    assert "`create = true`" in caught.value.hint


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["tuntap", "add", "other", "mode", "tap"], "a tap"),
        (["tuntap", "add", "other", "mode", "tun"], "a tun"),
        (["link", "add", "other", "type", "veth"], "a link of kind veth"),
        (["link", "set", "lo", "name", "other"], "a plain network device"),
    ],
)
def test_what_is_no_bridge_is_told_for_what_it_is(
    host: Namespace, arguments: list[str], what: str
) -> None:
    host.run("ip", "link", "set", "lo", "down")
    host.run("ip", *arguments)
    with pytest.raises(HostError, match=f"network: other is no bridge, but {what}"):
        links.require_bridge("other")


def test_a_bridge_is_known_as_it_is(host: Namespace) -> None:
    host.bridge("br-host", "10.0.0.1/24", "fd00::1/64", "10.0.1.1/25")
    bridge = links.require_bridge("br-host")
    assert addresses_of("br-host") == ["10.0.0.1/24", "10.0.1.1/25", "fd00::1/64"]
    assert (bridge.mac, bridge.up, bridge.stp) == (read(host, "br-host", "address"), True, False)


def test_a_bridge_that_is_down_is_known_to_be(host: Namespace) -> None:
    host.run("ip", "link", "add", "br-host", "type", "bridge")
    assert not links.require_bridge("br-host").up


def test_a_bridge_that_keeps_ports_waiting_is_known_to(host: Namespace) -> None:
    host.run("ip", "link", "add", "br-host", "type", "bridge", "stp_state", "1")
    assert links.require_bridge("br-host").stp


# Bridges of ours.


def test_a_bridge_is_made_with_what_is_asked_for(host: Namespace) -> None:
    create("10.0.0.1/24", "fd00::1/64")
    bridge = links.require_bridge("br-ours")
    assert (bridge.mac, bridge.up, bridge.stp) == (MAC, True, False)
    assert addresses_of("br-ours") == ["10.0.0.1/24", "fd00::1/64"]
    assert read(host, "br-ours", "ifalias") == ALIAS


def test_a_made_bridge_keeps_its_mac_whatever_its_ports_are(host: Namespace) -> None:
    create()
    host.run("ip", "link", "add", "low", "address", "02:00:00:00:00:01", "type", "veth")
    host.run("ip", "link", "set", "low", "master", "br-ours")
    assert read(host, "br-ours", "addr_assign_type") == NET_ADDR_SET
    assert links.require_bridge("br-ours").mac == MAC


def test_an_ipv6_address_can_be_used_at_once(host: Namespace) -> None:
    create("fd00::1/64")
    assert (
        "tentative"
        not in host.run("ip", "address", "show", "dev", "br-ours", "scope", "global").stdout
    )


def test_a_bridge_that_is_there_is_not_made_again(host: Namespace) -> None:
    create("10.0.0.1/24", "fd00::1/64")
    before = links.require_bridge("br-ours")
    create("fd00::1/64", "10.0.0.1/24")
    assert links.require_bridge("br-ours") == before


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["10.0.0.1/24"], ["10.0.0.2/24"]),
        (["10.0.0.1/24"], ["10.0.0.1/25"]),
        ([f"10.0.0.{number}/24" for number in range(1, 9)], ["10.0.0.8/24"]),
        (["10.0.0.1/24", "fd00::1/64"], []),
        ([], ["10.0.0.1/24", "fd00::1/64"]),
    ],
)
def test_our_bridge_gets_the_addresses_that_are_asked_for(
    host: Namespace, before: list[str], after: list[str]
) -> None:
    create(*before)
    create(*after)
    assert addresses_of("br-ours") == after


def test_our_bridge_is_set_up_again(host: Namespace) -> None:
    create()
    host.run("ip", "link", "set", "br-ours", "down")
    create()
    assert links.require_bridge("br-ours").up


def test_a_bridge_that_was_left_half_made_is_finished(host: Namespace) -> None:
    netlink.add_bridge("br-ours", MAC)
    create("10.0.0.1/24")
    assert read(host, "br-ours", "ifalias") == ALIAS
    assert links.require_bridge("br-ours").up


def test_our_bridge_gets_its_mac_again(host: Namespace) -> None:
    create()
    host.run("ip", "link", "set", "br-ours", "address", "02:00:00:00:00:01")
    create()
    assert links.require_bridge("br-ours").mac == MAC


@pytest.mark.parametrize(("mac", "state"), [(MAC, "up"), ("02:00:00:00:00:01", "down")])
def test_a_bridge_without_an_alias_that_we_cannot_have_left_is_refused(
    host: Namespace, mac: str, state: str
) -> None:
    host.run("ip", "link", "add", "br-ours", "address", mac, "type", "bridge")
    host.run("ip", "link", "set", "br-ours", state)
    with pytest.raises(HostError, match="br-ours exists already"):
        create()


@pytest.mark.parametrize("alias", ["", "mirage-hooks:ba9876543210", "theirs"])
def test_somebody_elses_bridge_is_refused_and_left_as_it_is(host: Namespace, alias: str) -> None:
    host.bridge("br-ours", "10.0.0.1/24")
    host.run("ip", "link", "set", "br-ours", "alias", alias)
    before = netlink.find("br-ours")
    with pytest.raises(HostError, match="br-ours exists already"):
        create("10.0.0.2/24")
    assert netlink.find("br-ours") == before
    assert addresses_of("br-ours") == ["10.0.0.1/24"]


def test_a_name_that_another_link_has_is_refused(host: Namespace) -> None:
    host.tap("br-ours")
    with pytest.raises(HostError, match="br-ours exists already"):
        create()


def test_without_the_right_it_is_said_what_root_would_run(host: Namespace) -> None:
    done = without_right(host, f"links.create_bridge('br-ours', [], '{MAC}', '{ALIAS}')")
    assert done == (
        "network: no right to make bridge br-ours\n"
        f"  run as root: ip link add dev br-ours address {MAC} type bridge"
        f" && ip link set dev br-ours alias {ALIAS} up"
    )
    assert host.links() == []


def test_a_bridge_that_root_has_made_as_told_takes_no_right(host: Namespace) -> None:
    address = "ip_interface('10.0.0.1/24')"
    statement = (
        "from ipaddress import ip_interface; "
        f"links.create_bridge('br-ours', [{address}], '{MAC}', '{ALIAS}')"
    )
    told = without_right(host, statement)
    host.run("sh", "-c", told.partition("run as root: ")[2])
    assert without_right(host, statement) == ""
    assert addresses_of("br-ours") == ["10.0.0.1/24"]


# Bridges that go.


def test_our_bridges_are_removed_and_no_others(host: Namespace) -> None:
    create("10.0.0.1/24")
    host.bridge("br-host")
    links.create_bridge("br-other", [], "02:00:00:00:00:01", links.bridge_alias("ba9876543210"))
    assert links.remove_bridges(INSTALLATION) == (["br-ours"], [])
    assert host.links() == ["br-host", "br-other"]


def test_a_bridge_with_a_port_is_left_and_told(host: Namespace) -> None:
    create()
    host.tap("tap-theirs", "br-ours")
    assert links.remove_bridges(INSTALLATION) == ([], ["bridge br-ours is left: tap-theirs in it"])
    assert host.links() == ["br-ours", "tap-theirs"]


def test_without_the_right_it_is_said_how_root_removes_a_bridge(host: Namespace) -> None:
    create()
    told = without_right(host, f"links.remove_bridges('{INSTALLATION}')")
    assert told.startswith("network: no right to remove bridge br-ours\n")
    host.run("sh", "-c", told.partition("run as root: ")[2])
    assert without_right(host, f"links.remove_bridges('{INSTALLATION}')") == ""


def test_no_bridges_are_removed_where_there_are_none(host: Namespace) -> None:
    assert links.remove_bridges(INSTALLATION) == ([], [])


def test_what_we_do_to_links_leaves_no_file_open(host: Namespace) -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    create("10.0.0.1/24")
    before = count()
    for _ in range(3):
        create("10.0.0.1/24")
        links.require_bridge("br-ours")
        with pytest.raises(HostError):
            links.require_bridge("br-none")
    assert count() == before
