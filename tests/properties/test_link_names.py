"""Names, MACs and aliases of links: always the same, each its own, and what the kernel can hold."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirage_hooks.boot import links, tap_helper
from mirage_hooks.boot.errors import ConfigError
from strategies import NAMES, VALUES, assert_told

INSTALLATIONS = st.from_regex(links.INSTALLATION, fullmatch=True)
DEVICES = st.from_regex(r"[A-Za-z0-9]{1,20}", fullmatch=True)
GENERATIONS = st.integers(1, 10**9)
DEVICES_OF_GUESTS = st.tuples(INSTALLATIONS, NAMES, DEVICES)
TAPS = st.tuples(INSTALLATIONS, NAMES, GENERATIONS, DEVICES)


@given(TAPS)
def test_a_tap_name_is_one_that_a_link_can_have_and_the_helper_takes(
    tap: tuple[str, str, int, str],
) -> None:
    name = links.tap_name(*tap)
    assert len(name) <= 15
    assert links.TAP_NAME.fullmatch(name)


@given(TAPS, TAPS)
def test_taps_have_one_name_where_they_are_one(
    one: tuple[str, str, int, str], other: tuple[str, str, int, str]
) -> None:
    assert (links.tap_name(*one) == links.tap_name(*other)) == (one == other)


@given(DEVICES_OF_GUESTS)
def test_a_mac_is_of_one_station_and_of_no_vendor(device: tuple[str, str, str]) -> None:
    octets = bytes.fromhex(links.mac_address(*device).replace(":", ""))
    assert len(octets) == 6
    assert octets[0] & 0b11 == 0b10


@given(DEVICES_OF_GUESTS, DEVICES_OF_GUESTS)
def test_devices_have_one_mac_where_they_are_one(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    assert (links.mac_address(*one) == links.mac_address(*other)) == (one == other)


@given(DEVICES_OF_GUESTS, NAMES)
def test_a_bridge_has_no_guests_mac(device: tuple[str, str, str], bridge: str) -> None:
    mac = links.bridge_mac(device[0], bridge)
    assert mac == links.bridge_mac(device[0], bridge)
    assert mac != links.mac_address(*device)


@given(INSTALLATIONS, NAMES, GENERATIONS)
def test_an_alias_says_what_a_tap_is_for(installation: str, guest: str, generation: int) -> None:
    alias = links.tap_alias(installation, guest, generation)
    match = links.TAP_ALIAS.fullmatch(alias)
    assert match is not None
    assert match.groups() == (installation, guest, str(generation))
    assert len(alias) < 256  # IFALIASZ in linux/if.h


def test_names_stay_as_they_are_over_versions() -> None:
    assert links.tap_name("0123456789ab", "www", 7, "service") == "mh2b56dc66603e"
    assert links.mac_address("0123456789ab", "www", "service") == "2e:30:f4:72:ab:ee"
    assert links.bridge_mac("0123456789ab", "br0") == "6e:a3:6e:d1:5a:37"


# What the helper is asked.

ADD = {
    "do": "add",
    "name": "mh0123456789ab",
    "bridge": "br-none",
    "alias": "mirage-hooks:0123456789ab:www:7",
}
SWEEP = {"do": "sweep", "installation": "0123456789ab", "keep": []}


@given(st.binary(max_size=64) | VALUES.map(lambda value: json.dumps(value, default=str).encode()))
def test_what_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        tap_helper.serve(data, 65534)
    assert_told(caught.value)


@given(st.sampled_from([ADD, SWEEP]), st.data())
def test_a_request_with_one_wrong_field_is_refused(
    request: dict[str, object], data: st.DataObject
) -> None:
    field = data.draw(st.sampled_from([name for name in request if name != "bridge"]))
    value = data.draw(VALUES.filter(lambda value: value != [] or field != "keep"))
    with pytest.raises(ConfigError) as caught:
        tap_helper.serve(json.dumps({**request, field: value}, default=str).encode(), 65534)
    assert_told(caught.value)


@given(st.sampled_from([ADD, SWEEP]), st.text(max_size=8), VALUES)
def test_a_request_with_one_field_more_is_refused(
    request: dict[str, object], field: str, value: object
) -> None:
    more = {field: value, **request}
    if more != request:
        with pytest.raises(ConfigError):
            tap_helper.serve(json.dumps(more, default=str).encode(), 65534)
