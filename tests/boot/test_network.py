"""Network configurations: what is logged of them, and what two guests cannot share."""

import pytest

from mirage_hooks.boot import network
from mirage_hooks.boot.device import NetworkConfig, Nic
from mirage_hooks.boot.guest import Boot, Target
from mirage_hooks.boot.network import Endpoint


def boot(*arguments: str, **networks: NetworkConfig) -> Boot:
    return Boot(target="unix", image="a" * 64, arguments=arguments, network=dict(networks))


# As configured.


def test_a_static_address_is_recorded_with_prefix_netmask_and_ports() -> None:
    (record,) = network.configured(
        boot(
            "--ipv4=10.0.0.2/25",
            "--port=80",
            "--hello=x",
            service=NetworkConfig(address="10.0.0.2/25"),
        )
    )
    assert (record.mode, record.address, record.prefix, record.netmask, record.ports) == (
        "host sockets",
        "10.0.0.2",
        25,
        "255.255.255.128",
        (80,),
    )


def test_only_what_concerns_the_network_is_recorded_as_passed() -> None:
    (record,) = network.configured(boot("--ipv4=10.0.0.2/25", "--secret=x", "--port=80"))
    assert record.passed == ("--ipv4=10.0.0.2/25", "--port=80")


def test_an_ipv6_address_is_recorded_with_its_prefix() -> None:
    (record,) = network.configured(boot("--ipv6=fd00::2/64"))
    assert (record.address, record.prefix) == ("fd00::2", 64)


def test_a_gateway_is_recorded() -> None:
    config = NetworkConfig(network="public", address="10.0.0.2/24", gateway="10.0.0.1")
    assert network.configured(boot(service=config))[0].gateway == "10.0.0.1"


def test_a_baked_in_address_is_recorded_as_such() -> None:
    (record,) = network.configured(boot(service=NetworkConfig(baked=True)))
    assert (record.mode, record.address) == ("baked", None)


@pytest.mark.parametrize("arguments", [(), ("--ipv4=nonsense",), ("--ipv4=10.0.0.999/8",)])
def test_no_sound_address_is_recorded_as_none(arguments: tuple[str, ...]) -> None:
    (record,) = network.configured(boot(*arguments))
    assert (record.address, record.prefix, record.netmask) == (None, None, None)


def test_a_record_reads_as_one_line() -> None:
    (record,) = network.configured(boot("--ipv4=10.0.0.2/24", "--port=80", "--https-port=443"))
    assert record.describe() == (
        "host sockets, 10.0.0.2/24 (netmask 255.255.255.0), port 80, 443, "
        "passed as --ipv4=10.0.0.2/24 --port=80 --https-port=443"
    )


def test_a_record_of_nothing_says_that_nothing_was_passed() -> None:
    assert network.configured(boot())[0].describe() == "host sockets, nothing passed"


@pytest.mark.parametrize(
    ("argument", "ports"),
    [
        ("--port=80", (80,)),
        ("--http-port=80", (80,)),
        ("--my-own-https-port=443", (443,)),
        ("--support=80", ()),
        ("--port=eighty", ()),
        ("--port", ()),
        ("--port-range=80", ()),
        ("port=80", ()),
    ],
)
def test_ports_are_told_by_the_custom_of_unikernels(argument: str, ports: tuple[int, ...]) -> None:
    assert network.ports((argument,)) == ports


# As configured: a device each.


def on_link(config: NetworkConfig, nic: Nic | None = None, arguments: tuple[str, ...] = ()) -> Boot:
    return Boot(
        target="hvt",
        image="a" * 64,
        arguments=arguments,
        network={"service": config},
        nics={"service": nic or Nic("bridge", "br0", "02:00:00:00:00:01")},
    )


STATIC = NetworkConfig(network="public", address="10.0.0.2/25", gateway="10.0.0.1")


def test_a_device_is_recorded_with_all_that_is_known_of_it() -> None:
    arguments = ("--ipv4=10.0.0.2/25", "--ipv4-gateway=10.0.0.1", "--ipv4-only=true", "--hello=x")
    (record,) = network.configured(on_link(STATIC, arguments=arguments), {"service": "mh0"})
    assert record.describe() == (
        "service static, 10.0.0.2/25 (netmask 255.255.255.128), gateway 10.0.0.1, "
        "tap mh0 on br0, mac 02:00:00:00:00:01, passed as --ipv4=10.0.0.2/25 "
        "--ipv4-gateway=10.0.0.1 --ipv4-only=true"
    )


def test_an_address_of_each_kind_is_recorded_with_its_own_gateway() -> None:
    config = NetworkConfig(
        network="public", address=("fd00::2/64", "10.0.0.2/24"), gateway=("10.0.0.1", "fe80::1")
    )
    records = network.configured(on_link(config))
    assert [(one.address, one.prefix, one.gateway) for one in records] == [
        ("fd00::2", 64, "fe80::1"),
        ("10.0.0.2", 24, "10.0.0.1"),
    ]


@pytest.mark.parametrize(
    ("config", "mode"),
    [
        (NetworkConfig(network="public", dhcp=True), "dhcp"),
        (NetworkConfig(network="public", baked=True), "baked"),
        (NetworkConfig(network="public"), "no address"),
    ],
)
def test_a_device_without_a_static_address_is_recorded_by_how_it_gets_one(
    config: NetworkConfig, mode: str
) -> None:
    (record,) = network.configured(on_link(config))
    assert (record.mode, record.address, record.gateway) == (mode, None, None)


def test_a_tap_that_was_made_beforehand_is_named_once() -> None:
    boot = on_link(NetworkConfig(network="public", dhcp=True), Nic("tap", "tap0"))
    (record,) = network.configured(boot, {"service": "tap0"})
    assert record.describe() == "service dhcp, tap tap0, nothing passed"


def test_qemus_own_network_is_recorded_with_the_hosts_ports() -> None:
    nic = Nic("user", None, None, ("127.0.0.1:8080:80", "udp:127.0.0.1:53:53"))
    (record,) = network.configured(on_link(STATIC, nic))
    assert record.describe() == (
        "service static in QEMU's own network, 10.0.0.2/25 (netmask 255.255.255.128), "
        "gateway 10.0.0.1, port 8080, 53, nothing passed"
    )


def test_every_device_is_recorded() -> None:
    boot = Boot(
        target="hvt",
        image="a" * 64,
        network={"one": STATIC, "two": NetworkConfig(network="other", dhcp=True)},
        nics={"one": Nic("bridge", "br0"), "two": Nic("bridge", "br1")},
    )
    assert [record.link for record in network.configured(boot)] == ["br0", "br1"]


@pytest.mark.parametrize("target", ["hvt", "spt", "virtio"])
def test_a_guest_without_a_device_is_on_no_network(target: Target) -> None:
    (record,) = network.configured(Boot(target=target, image="a" * 64))
    assert record.describe() == "no network, nothing passed"


# What guests listen on.


def test_a_guest_in_qemus_own_network_listens_on_the_hosts_tcp_ports() -> None:
    nic = Nic("user", None, None, ("127.0.0.1:8080:80", "0.0.0.0:81:81", "udp:127.0.0.1:53:53"))
    boot = on_link(STATIC, nic, ("--port=80",))
    assert network.endpoints(boot) == [Endpoint("127.0.0.1", 8080), Endpoint(None, 81)]


def test_a_guest_with_a_device_of_its_own_takes_no_port_of_the_hosts() -> None:
    assert network.endpoints(on_link(STATIC, arguments=("--port=80",))) == []


def test_a_guest_listens_on_its_address_at_each_of_its_ports() -> None:
    arguments = ("--ipv4=10.0.0.2/24", "--port=80", "--https-port=443")
    assert network.endpoints(boot(*arguments)) == [
        Endpoint("10.0.0.2", 80),
        Endpoint("10.0.0.2", 443),
    ]


@pytest.mark.parametrize("arguments", [("--port=80",), ("--ipv4=0.0.0.0/0", "--port=80")])
def test_a_guest_without_an_address_listens_on_every_one(arguments: tuple[str, ...]) -> None:
    assert network.endpoints(boot(*arguments)) == [Endpoint(None, 80)]


def test_a_guest_with_an_address_of_each_kind_listens_on_both() -> None:
    arguments = ("--ipv6=fd00::2/64", "--ipv4=10.0.0.2/24", "--port=80")
    assert set(network.endpoints(boot(*arguments))) == {
        Endpoint("fd00::2", 80),
        Endpoint("10.0.0.2", 80),
    }


def test_a_guest_that_names_no_port_listens_on_none() -> None:
    assert network.endpoints(boot("--ipv4=10.0.0.2/24")) == []


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        (Endpoint("10.0.0.2", 80), Endpoint("10.0.0.2", 80), True),
        (Endpoint("10.0.0.2", 80), Endpoint("10.0.0.2", 81), False),
        (Endpoint("10.0.0.2", 80), Endpoint("10.0.0.3", 80), False),
        (Endpoint(None, 80), Endpoint("10.0.0.3", 80), True),
        (Endpoint(None, 80), Endpoint(None, 80), True),
        (Endpoint(None, 80), Endpoint(None, 81), False),
    ],
)
def test_endpoints_overlap_where_two_sockets_could_not_listen(
    one: Endpoint, other: Endpoint, overlap: bool
) -> None:
    assert (one.overlaps(other), other.overlaps(one)) == (overlap, overlap)


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [
        (Endpoint("10.0.0.2", 80), "10.0.0.2:80"),
        (Endpoint("fd00::2", 80), "[fd00::2]:80"),
        (Endpoint(None, 80), "*:80"),
    ],
)
def test_an_endpoint_reads_as_an_address(endpoint: Endpoint, text: str) -> None:
    assert str(endpoint) == text


def test_two_guests_with_one_address_are_named_with_it() -> None:
    guests = {"a": [Endpoint("10.0.0.2", 80)], "b": [Endpoint("10.0.0.2", 80)]}
    assert network.shared(guests) == ("a", "b", Endpoint("10.0.0.2", 80))


def test_a_guest_on_every_address_shares_with_one_on_a_single_one() -> None:
    guests = {"a": [Endpoint("10.0.0.2", 80)], "b": [Endpoint(None, 80)]}
    assert network.shared(guests) == ("a", "b", Endpoint(None, 80))


def test_sharing_is_found_between_any_two_guests() -> None:
    guests = {
        "a": [Endpoint("10.0.0.1", 80)],
        "b": [Endpoint("10.0.0.2", 80), Endpoint("10.0.0.2", 443)],
        "c": [Endpoint("10.0.0.3", 80), Endpoint("10.0.0.2", 443)],
    }
    assert network.shared(guests) == ("b", "c", Endpoint("10.0.0.2", 443))


def test_guests_with_addresses_or_ports_of_their_own_share_nothing() -> None:
    guests = {
        "a": [Endpoint("10.0.0.1", 80), Endpoint("10.0.0.1", 81)],
        "b": [Endpoint("10.0.0.2", 80)],
        "c": [Endpoint(None, 82)],
    }
    assert network.shared(guests) is None


def test_a_guest_does_not_share_with_itself() -> None:
    assert network.shared({"a": [Endpoint(None, 80), Endpoint("10.0.0.2", 80)]}) is None
