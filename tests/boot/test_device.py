"""What a network device, a forward and an older Makefile's addresses may say."""

import re
from ipaddress import IPv4Address, ip_network

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mirage_hooks.boot.device import HOST_NETWORK, BlockConfig, Forward, NetworkConfig, normalise

OPEN = settings(max_examples=200, deadline=None)


def on_bridge(
    address: str | tuple[str, ...], gateway: str | tuple[str, ...] | None = None
) -> NetworkConfig:
    return NetworkConfig(network="public", address=address, gateway=gateway)


# Where addresses come from.


@pytest.mark.parametrize(
    "config",
    [
        {"address": "10.0.0.2/24", "dhcp": True},
        {"address": "10.0.0.2/24", "baked": True},
        {"dhcp": True, "baked": True},
    ],
)
def test_a_network_has_one_source_of_addresses(config: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError, match="only one of address, dhcp and baked"):
        msgspec.convert({"network": "public", **config}, NetworkConfig)


@pytest.mark.parametrize(
    ("config", "mode"),
    [
        (NetworkConfig(address="10.0.0.2/24"), "10.0.0.2/24"),
        (on_bridge("10.0.0.2/24", "10.0.0.1"), "10.0.0.2/24 via 10.0.0.1"),
        (
            on_bridge(("10.0.0.2/24", "fd00::2/64"), ("10.0.0.1", "fd00::1")),
            "10.0.0.2/24, fd00::2/64 via 10.0.0.1, fd00::1",
        ),
        (NetworkConfig(network="public", dhcp=True), "dhcp"),
        (NetworkConfig(baked=True), "baked"),
        (NetworkConfig(), "no address"),
    ],
)
def test_a_network_says_in_a_word_how_it_is_addressed(config: NetworkConfig, mode: str) -> None:
    assert config.mode == mode


@pytest.mark.parametrize(
    "config", [{"dhcp": True}, {"address": "10.0.0.2/24", "gateway": "10.0.0.1"}]
)
def test_the_hosts_own_sockets_take_neither_dhcp_nor_a_gateway(config: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError, match="neither dhcp nor a gateway"):
        msgspec.convert({"network": HOST_NETWORK, **config}, NetworkConfig)


@pytest.mark.parametrize(
    "config", [{"mac": "02:00:00:00:00:01"}, {"address": ("10.0.0.2/24", "fd00::2/64")}]
)
def test_the_hosts_own_sockets_take_one_address_and_no_mac(config: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError, match="take one address, and no mac"):
        msgspec.convert(config, NetworkConfig)


def test_the_hosts_own_sockets_take_loopback() -> None:
    assert NetworkConfig(address="127.0.0.1/8").mode == "127.0.0.1/8"


# Addresses.


@pytest.mark.parametrize("address", ["10.0.0.2", "fe80::1"])
def test_an_address_needs_a_prefix(address: str) -> None:
    with pytest.raises(ValueError, match="has no prefix: write it like"):
        NetworkConfig(address=address)


@pytest.mark.parametrize("address", ["", "www", "10.0.0.256/24", "10.0.0.2/33", "10.0.0/24", "/8"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(address))):
        NetworkConfig(address=address)


def test_an_empty_list_of_addresses_is_refused() -> None:
    with pytest.raises(ValueError, match="an empty list names no address"):
        on_bridge(())


def test_a_static_address_is_known_with_its_netmask() -> None:
    assert str(NetworkConfig(address="46.43.42.137/25").interfaces[0].netmask) == "255.255.255.128"


def test_an_ipv6_address_is_taken() -> None:
    assert NetworkConfig(address="2001:db8::2/64").interfaces[0].version == 6


@pytest.mark.parametrize(
    "addresses", [("10.0.0.2/24", "10.0.0.3/24"), ("fd00::2/64", "10.0.0.2/24", "fd00::3/64")]
)
def test_there_is_one_address_of_a_family_at_most(addresses: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="one of IPv4 and one of IPv6 at most"):
        on_bridge(addresses)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("10.0.0.0/24", "is that of the network 10.0.0.0/24 itself"),
        ("10.0.0.255/24", "is the broadcast address of 10.0.0.0/24"),
        ("fd00::/64", "is that of the network fd00::/64 itself"),
        ("224.0.0.1/24", "cannot be a host's"),
        ("ff02::1/64", "cannot be a host's"),
        ("0.0.0.0/24", "cannot be a host's"),
        ("::/64", "cannot be a host's"),
        ("127.0.0.1/8", "cannot be a host's"),
        ("::1/128", "cannot be a host's"),
        ("255.255.255.255/32", "cannot be a host's"),
        ("240.0.0.1/8", "cannot be a host's"),
    ],
)
def test_an_address_that_no_guest_can_have_on_a_network_is_refused(
    address: str, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        on_bridge(address)


@pytest.mark.parametrize("address", ["10.0.0.0/31", "10.0.0.1/31", "10.0.0.9/32", "fd00::/127"])
def test_networks_of_one_or_two_addresses_have_none_to_spare(address: str) -> None:
    assert on_bridge(address).mode == address


def test_an_ipv6_network_has_no_broadcast_address() -> None:
    assert on_bridge("fd00::ffff:ffff:ffff:ffff/64").interfaces


def test_an_address_that_cannot_be_logged_in_one_line_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape(r"a\nb")):
        NetworkConfig(address="fe80::1%a\nb/64")


ADDRESSES = st.ip_addresses().map(str) | st.text(max_size=12).map("fe80::1%{}".format)
PREFIXES = st.integers(-1, 130).map("/{}".format) | st.text(max_size=4)


@OPEN
@given(st.builds("{}{}".format, ADDRESSES, PREFIXES) | st.text(), st.sampled_from(["host", "net"]))
@example("fe80::1%a\0b/64", "host")
def test_any_address_that_is_taken_can_be_an_argument_of_a_program(
    address: str, network: str
) -> None:
    try:
        config = NetworkConfig(network=network, address=address)
    except ValueError:
        return
    assert re.fullmatch("[0-9a-f.:/]+", config.interfaces[0].with_prefixlen)


# Gateways.


@pytest.mark.parametrize("mode", ["dhcp", "baked"])
def test_a_gateway_needs_an_address(mode: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="a gateway needs an address"):
        msgspec.convert({"network": "public", "gateway": "10.0.0.1", mode: True}, NetworkConfig)


@pytest.mark.parametrize(
    ("gateway", "reason"),
    [
        ("10.0.1.1", r"gateway 10\.0\.1\.1 is not on 10\.0\.0\.0/24"),
        ("10.0.0.2", "is the guest itself"),
        ("10.0.0.0", "is that of the network"),
        ("10.0.0.255", "is the broadcast address"),
        ("fe80::1", "needs an address"),
        ("router", "'router'"),
        ("10.0.0.1/24", "'10.0.0.1/24'"),
        ("", "''"),
        (("10.0.0.1", "10.0.0.3"), "one of IPv4 and one of IPv6 at most"),
        ((), "an empty list names no address"),
    ],
)
def test_a_gateway_that_cannot_be_reached_is_refused(
    gateway: str | tuple[str, ...], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        on_bridge("10.0.0.2/24", gateway)


def test_an_ipv6_router_is_on_every_link_by_its_link_local_address() -> None:
    assert on_bridge("2001:db8::2/64", "fe80::1").mode == "2001:db8::2/64 via fe80::1"


def test_a_gateway_has_no_zone() -> None:
    with pytest.raises(ValueError, match="has a zone"):
        on_bridge("2001:db8::2/64", "fe80::1%eth0")


@OPEN
@given(st.ip_addresses(network="10.64.0.0/11"), st.integers(8, 9))
def test_a_gateway_on_the_network_of_the_address_is_taken(
    address: IPv4Address, prefix: int
) -> None:
    network = ip_network(f"{address}/{prefix}", strict=False)
    if address in {network[0], network[1], network[-1]}:
        return
    gateway = str(network[1])
    assert on_bridge(f"{address}/{prefix}", gateway).gateway == gateway


# MACs and groups: what a commit says of them reaches the command line of a program.


@pytest.mark.parametrize("mac", ["02:00:00:00:00:01", "AA:BB:CC:DD:EE:FF", "00:16:3e:00:00:01"])
def test_a_unicast_mac_is_taken(mac: str) -> None:
    assert NetworkConfig(network="public", dhcp=True, mac=mac).mac == mac


# All zero says to QEMU that it is to choose one: the same for each of its guests.
@pytest.mark.parametrize(
    "mac",
    [
        *("", "02:00:00:00:00", "02-00-00-00-00-01", "02:00:00:00:00:01\n", "0200.0000.0001"),
        *("01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"),
        *("02:00:00:00:00:01,script=/tmp/x", "02:00:00:00:00:0g"),
    ],
)
def test_what_is_no_guests_mac_is_refused(mac: str) -> None:
    with pytest.raises(ValueError, match="is no guest's: write it like '02:00:00:00:00:01'"):
        NetworkConfig(network="public", dhcp=True, mac=mac)


@pytest.mark.parametrize("group", ["", "A", "-a", "a b", "a=b", "a" * 32, "a\n"])
def test_what_cannot_start_an_argument_is_no_group(group: str) -> None:
    with pytest.raises(ValueError, match="cannot be the start of an argument"):
        NetworkConfig(network="public", dhcp=True, group=group)


def test_a_block_device_is_of_a_volume_and_of_nothing_else() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `path`"):
        msgspec.convert({"volume": "data", "path": "/etc/shadow"}, BlockConfig)


# Forwards.


@pytest.mark.parametrize(
    ("text", "forward"),
    [
        ("127.0.0.1:8080:80", Forward("tcp", "127.0.0.1", 8080, 80)),
        ("tcp:0.0.0.0:1:65535", Forward("tcp", "0.0.0.0", 1, 65535)),
        ("udp:127.0.0.1:5353:53", Forward("udp", "127.0.0.1", 5353, 53)),
    ],
)
def test_a_forward_leads_from_the_hosts_port_to_the_guests(text: str, forward: Forward) -> None:
    assert Forward.of(text) == forward


@pytest.mark.parametrize(
    "text",
    [
        *("", "8080:80", "127.0.0.1:80", "127.0.0.1:0:80", "127.0.0.1:80:65536", "::1:80:80"),
        *("127.0.0.1:80:80\n", "256.0.0.1:80:80", "127.0.0.01:80:80", "1.2.3:80:80", "icmp:1:1:1"),
        *("127.0.0.1:80:80,restrict=no", ".......:80:80", "TCP:127.0.0.1:80:80"),
    ],
)
def test_what_is_no_forward_is_refused_with_one_that_is(text: str) -> None:
    with pytest.raises(ValueError, match=f"{re.escape(repr(text))}: write it like '127.0.0.1:8080"):
        Forward.of(text)


@OPEN
@given(
    st.from_regex(r"((tcp|udp):)?[0-9.]{7,15}:[0-9]{1,5}:[0-9]{1,5}", fullmatch=True) | st.text()
)
def test_any_text_is_a_forward_or_refused(text: str) -> None:
    try:
        forward = Forward.of(text)
    except ValueError:
        return
    assert re.fullmatch(r"(tcp|udp) [0-9.]+:[0-9]+", forward.host_end)


# The triple of older Makefiles.


@pytest.mark.parametrize(
    ("triple", "shown"),
    [
        (("10.0.0.2", "255.255.255.0", "10.0.0.1"), ("10.0.0.2/24", "10.0.0.1")),
        (("46.43.42.137", "255.255.255.128", "46.43.42.129"), ("46.43.42.137/25", "46.43.42.129")),
        (("10.0.0.2", "24", "10.0.0.1,"), ("10.0.0.2/24", "10.0.0.1")),
        (("10.0.0.2", "255.255.255.0", ""), ("10.0.0.2/24", None)),
    ],
)
def test_the_triple_is_shown_back_as_an_address_and_a_gateway(
    triple: tuple[str, ...], shown: tuple[str, str | None]
) -> None:
    table = dict(zip(("ADDR", "MASK", "GWS"), triple, strict=True))
    normal = normalise({"network": "public", **table})
    assert (normal["address"], normal.get("gateway")) == shown


def test_a_triple_leaves_the_rest_of_its_table_as_it_is() -> None:
    table: dict[str, object] = {"ADDR": "10.0.0.2", "MASK": "255.255.255.0", "network": "public"}
    assert normalise(table) == {"address": "10.0.0.2/24", "network": "public"}


def test_a_table_without_a_triple_is_left_as_it_is() -> None:
    table: dict[str, object] = {"network": "public", "dhcp": True}
    assert normalise(table) == table


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({"ADDR": "10.0.0.2"}, "go together"),
        ({"GWS": "10.0.0.1"}, "go together"),
        ({"ADDR": "10.0.0.2", "MASK": "24", "gateway": "10.0.0.1"}, "go together"),
        ({"ADDR": "10.0.0.2", "MASK": "24", "GWS": "10.0.0.1 10.0.0.3"}, "names 2 gateways"),
        ({"ADDR": "10.0.0.2", "MASK": "255.0.255.0"}, "ADDR and MASK: '10.0.0.2/255.0.255.0'"),
        ({"ADDR": "10.0.0.2/24", "MASK": "255.255.255.0"}, "ADDR and MASK: "),
        ({"ADDR": "", "MASK": ""}, "ADDR and MASK: "),
        ({"ADDR": "10.0.0.2", "MASK": 24}, "are written in quotes"),
        ({"ADDR": "10.0.0.2", "MASK": "24", "GWS": ["10.0.0.1"]}, "are written in quotes"),
    ],
)
def test_a_triple_that_is_none_is_refused(table: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        normalise(table)


VALUES = st.text(max_size=8) | st.integers() | st.lists(st.text(max_size=3), max_size=2)


@OPEN
@given(st.dictionaries(st.sampled_from(["ADDR", "MASK", "GWS", "address", "other"]), VALUES))
def test_any_table_is_normal_or_refused(table: dict[str, object]) -> None:
    try:
        assert not {"ADDR", "MASK", "GWS"} & normalise(table).keys()
    except ValueError:
        return
