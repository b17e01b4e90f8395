"""What was observed, in words, and how it differs from what was configured."""

from ipaddress import ip_address, ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirage_hooks.boot.sightings import MOST_SIGHTINGS, Configured, Sighting, describe, from_console

MAC, OTHER_MAC = "02:00:00:00:00:02", "02:00:00:00:00:09"
FIRED = 1000.0
STATIC = Configured((ip_interface("10.0.0.2/24"),), (ip_address("10.0.0.1"),), mac=MAC)
DUAL = Configured((ip_interface("10.0.0.2/24"), ip_interface("fd00::2/64")))
DHCP = Configured(dhcp=True, mac=MAC)
BAKED = Configured()

ARP = Sighting("10.0.0.2", MAC, "ARP", FIRED + 0.009)
GRANT = Sighting("10.0.0.50/24", MAC, "DHCP", FIRED + 0.02, "10.0.0.1")
LINK_LOCAL = Sighting("fe80::2", MAC, "ND", FIRED + 0.001)
ASSEMBLED = "2026-11-22T22:16:42.500Z [tcpip-stack-direct] Dual TCP/IP stack assembled: "


def difference(configured: Configured, *sightings: Sighting) -> str | None:
    """Return the warning of what was observed."""
    return describe(configured, sightings, FIRED)[1]


def test_what_was_configured_and_observed_is_told_in_a_line() -> None:
    assert describe(STATIC, [ARP], FIRED) == (
        "configured 10.0.0.2/24 via 10.0.0.1; "
        "observed 10.0.0.2 at 02:00:00:00:00:02 by ARP after 9 ms",
        None,
    )


def test_what_dhcp_granted_is_told_with_its_prefix_and_gateway() -> None:
    announced = Sighting("10.0.0.50", MAC, "ARP", FIRED + 0.021)
    assert describe(DHCP, [GRANT, announced], FIRED) == (
        "configured DHCP; "
        "observed 10.0.0.50/24 via 10.0.0.1 at 02:00:00:00:00:02 by DHCP after 20 ms",
        None,
    )


def test_what_is_baked_in_is_told_as_it_is_observed() -> None:
    text, warning = describe(BAKED, [ARP], FIRED)
    assert text.startswith("configured what is baked in; observed 10.0.0.2 at")
    assert warning is None


def test_two_addresses_are_told_in_the_order_they_came() -> None:
    late = Sighting("fd00::2", MAC, "ND", FIRED + 1.25)
    assert describe(DUAL, [late, ARP], FIRED) == (
        "configured 10.0.0.2/24, fd00::2/64; observed 10.0.0.2 at 02:00:00:00:00:02 by ARP after "
        "9 ms, fd00::2 at 02:00:00:00:00:02 by ND after 1.2 s",
        None,
    )


def test_the_console_is_quoted_where_the_wire_told_nothing() -> None:
    printed = Sighting("10.0.0.2/24", MAC, "console", FIRED + 0.004)
    assert (
        "10.0.0.2/24 at 02:00:00:00:00:02 on the console after 4 ms"
        in (describe(STATIC, [printed], FIRED)[0])
    )
    assert "console" not in describe(STATIC, [printed, ARP], FIRED)[0]


def test_the_link_local_address_is_left_out_beside_others() -> None:
    assert "fe80" not in describe(STATIC, [LINK_LOCAL, ARP], FIRED)[0]


def test_the_link_local_address_is_told_where_it_is_all_there_is() -> None:
    assert "observed fe80::2 at" in describe(STATIC, [LINK_LOCAL], FIRED)[0]


def test_another_address_than_configured_is_a_difference() -> None:
    assert difference(STATIC, Sighting("10.0.0.9", MAC, "ARP", FIRED)) == (
        "10.0.0.2 was configured, and not observed; 10.0.0.9 was observed, and not configured"
    )


def test_one_more_address_than_configured_is_a_difference() -> None:
    assert difference(STATIC, ARP, Sighting("10.0.0.9", MAC, "ARP", FIRED)) == (
        "10.0.0.9 was observed, and not configured"
    )


def test_another_mac_than_given_is_a_difference() -> None:
    assert difference(STATIC, Sighting("10.0.0.2", OTHER_MAC, "ARP", FIRED)) == (
        f"the guest was given the MAC {MAC}, and speaks as {OTHER_MAC}"
    )


def test_a_mac_is_the_same_in_capitals() -> None:
    given_mac = Configured(STATIC.addresses, mac=MAC.upper())
    assert difference(given_mac, ARP) is None


def test_nothing_observed_of_a_static_address_is_a_difference() -> None:
    text, warning = describe(STATIC, [], FIRED)
    assert text.endswith("; observed nothing")
    assert warning == "10.0.0.2 was configured, and not observed"


def test_nothing_observed_of_dhcp_is_a_difference() -> None:
    assert difference(DHCP, LINK_LOCAL) == "DHCP was configured, and no address observed"


def test_who_watches_too_late_misses_nothing_and_still_sees_what_is_wrong() -> None:
    assert describe(STATIC, [], FIRED, late=True)[1] is None
    assert describe(DHCP, [ARP], FIRED, late=True)[1] is None
    moved = Sighting("10.0.0.9", MAC, "ARP", FIRED)
    assert (
        describe(STATIC, [moved], FIRED, late=True)[1]
        == "10.0.0.9 was observed, and not configured"
    )


def test_nothing_observed_of_what_is_baked_in_is_none() -> None:
    assert describe(BAKED, [], FIRED) == ("configured what is baked in; observed nothing", None)


def test_ipv6_beside_a_configured_ipv4_is_no_difference() -> None:
    routed = Sighting("2001:db8::2", MAC, "ND", FIRED)
    assert difference(STATIC, ARP, LINK_LOCAL, routed) is None


# The console.


@pytest.mark.parametrize(
    ("said", "addresses"),
    [
        ("mac=a6:31:e9:83:2c:52,ip=10.0.0.2/24", ["10.0.0.2/24"]),
        ("mac=a6:31:e9:83:2c:52,ip=10.0.0.2", ["10.0.0.2"]),
        ("mac=a6:31:e9:83:2c:52,ip=10.0.0.2/24, fd00::2/64", ["10.0.0.2/24", "fd00::2/64"]),
        ("mac=a6:31:e9:83:2c:52,ip=0.0.0.0/0, fe80::2/64", ["fe80::2/64"]),
    ],
)
def test_the_line_of_mirageos_tells_mac_and_addresses(said: str, addresses: list[str]) -> None:
    found = from_console([ASSEMBLED + said])
    assert [one.address for one in found] == addresses
    assert {(one.mac, one.how) for one in found} == {("a6:31:e9:83:2c:52", "console")}


def test_a_line_is_as_old_as_its_date() -> None:
    (found,) = from_console(
        [
            "1970-01-01T00:16:40.009Z stack TCP/IP stack assembled: "
            "mac=a6:31:e9:83:2c:52,ip=10.0.0.2/24"
        ]
    )
    assert found.at == pytest.approx(FIRED + 0.009)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "TCP/IP stack assembled: mac=a6:31:e9:83:2c:52,ip=10.0.0.2/24",  # no date
        f"{ASSEMBLED}mac=a6:31:e9:83:2c:52,ip=10.0.0.999/24",
        f"{ASSEMBLED}mac=a6:31:e9:83:2c:52,ip=10.0.0.2/99",
        f"{ASSEMBLED}mac=a6:31,ip=10.0.0.2/24",
        f"{ASSEMBLED}ip=10.0.0.2/24",
    ],
)
def test_other_lines_tell_nothing(line: str) -> None:
    assert from_console([line]) == []


@given(st.lists(st.text()), st.text("0123456789abcdef.:/, "))
def test_no_console_raises(lines: list[str], said: str) -> None:
    for one in from_console([*lines, f"{ASSEMBLED}mac={MAC},ip={said}"]):
        assert describe(STATIC, [one], FIRED)[0]


def test_a_guest_that_prints_without_end_is_heard_out_no_further() -> None:
    line = f"{ASSEMBLED}mac={MAC},ip=10.0.0.2/24"
    assert len(from_console([line] * 1000)) == MOST_SIGHTINGS
