"""What a guest may be called, how it may be addressed and checked, and what makes a boot new."""

import hashlib
import math
import re

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mirage_hooks.boot.device import BlockConfig, NetworkConfig, Nic, Volume
from mirage_hooks.boot.guest import (
    Boot,
    Check,
    Guest,
    Restart,
    check_name,
    seconds,
    short,
    split_address,
)

BOOT = Boot(target="unix", image="a" * 64)
OPEN = settings(max_examples=200, deadline=None)


# Durations.


@pytest.mark.parametrize(
    ("text", "expected"),
    [("200ms", 0.2), ("10s", 10), ("1.5s", 1.5), ("5m", 300), ("1h", 3600), ("1d", 86400)],
)
def test_a_duration_is_a_number_and_a_unit(text: str, expected: float) -> None:
    assert seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text", ["", "10", "s", "-1s", "+1s", "1 s", " 1s", "1s\n", "1w", "1e3s", ".5s", "5.s", "nans"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        seconds(text)


@OPEN
@given(st.from_regex(r"\d{1,30}(\.\d{1,30})?(ms|s|m|h)", fullmatch=True) | st.text())
@example("9" * 400 + "h")
def test_any_text_is_a_finite_duration_or_refused(text: str) -> None:
    try:
        duration = seconds(text)
    except ValueError:
        return
    assert math.isfinite(duration)
    assert duration >= 0


# Names.


@pytest.mark.parametrize("name", ["www", "W", "a-b_c.d", "mort.io", "a1", "a" * 100])
def test_a_name_of_letters_digits_and_a_few_signs_is_taken(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../x", "a/b", "/a", "a/../b", "-a", "--help", "1a", "_a", "é", "aé"),
        *("a b", " a", "a ", "a\n", "\na", "a\nb", "a\0b", "a\tb", "a\x1b", "a" * 101, "a*", "a$"),
    ],
)
def test_what_cannot_name_a_guest_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a guest"):
        check_name(name)


@OPEN
@given(st.text())
def test_any_text_that_names_a_guest_is_a_plain_path_component(name: str) -> None:
    try:
        check_name(name)
    except ValueError:
        return
    assert re.fullmatch(r"[A-Za-z][-A-Za-z0-9_.]{0,99}", name)


@pytest.mark.parametrize("name", ["..", "a/b", "-a", "a\n"])
def test_a_guest_cannot_be_made_with_a_name_that_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a guest"):
        Guest(name=name, target="unix", image="www.unix")


def test_a_name_that_is_refused_is_quoted_in_the_message() -> None:
    with pytest.raises(ValueError, match=re.escape(r"'a\nb'")):
        check_name("a\nb")


# Guests.


@pytest.mark.parametrize("device", ["", "a b", "a\nb", "-a", "a" * 68, "\x1b[2J"])
def test_what_cannot_name_a_device_is_refused(device: str) -> None:
    with pytest.raises(ValueError, match="cannot name a network device"):
        Guest(
            name="www", target="unix", image="www.unix", network={device: NetworkConfig(baked=True)}
        )


def test_a_network_and_a_block_device_cannot_have_one_name() -> None:
    with pytest.raises(ValueError, match="'storage' names a network and a block device"):
        Guest(
            name="www",
            target="hvt",
            image="www.hvt",
            network={"storage": NetworkConfig(network="public", dhcp=True)},
            block={"storage": BlockConfig("data")},
        )


@pytest.mark.parametrize(
    ("mirage", "numbers"), [("4.0", (4, 0)), ("3.10", (3, 10)), ("3.9", (3, 9)), ("2.7", (2, 7))]
)
def test_versions_of_mirage_are_compared_as_numbers(mirage: str, numbers: tuple[int, int]) -> None:
    guest = Guest(name="www", target="hvt", image="www.hvt", mirage=mirage)
    assert guest.mirage_version == numbers


@pytest.mark.parametrize("mirage", ["", "4", "4.", "4.0.0", "v4.0", "0.9", "4.0\n", "4.1234"])
def test_what_is_no_version_of_mirage_is_refused(mirage: str) -> None:
    with pytest.raises(ValueError, match=r"is no version: write it like '3\.10'"):
        Guest(name="www", target="hvt", image="www.hvt", mirage=mirage)


@pytest.mark.parametrize("memory", [0, -1])
def test_a_guest_without_memory_is_refused(memory: int) -> None:
    with pytest.raises(ValueError, match="memory is in MiB"):
        Guest(name="www", target="unix", image="www.unix", memory=memory)


@pytest.mark.parametrize("arg", ["", "a\0b", "a\nb", "a\tb", "\x1b[2J", "\x7f"])
def test_an_argument_that_is_empty_or_holds_a_control_character_is_refused(arg: str) -> None:
    with pytest.raises(ValueError, match="argument"):
        Guest(name="www", target="unix", image="www.unix", args=(arg,))


@pytest.mark.parametrize("arg", ["--logs=*:info", "--hello=a b", 'a"b', "a\\b", "é", "--"])
def test_an_argument_of_printable_characters_is_taken(arg: str) -> None:
    assert Guest(name="www", target="unix", image="www.unix", args=(arg,)).args == (arg,)


# Checks.


def test_a_guest_without_a_check_has_to_stay_alive_for_two_seconds() -> None:
    assert Check().alive_seconds == 2.0


@pytest.mark.parametrize(
    "check", [Check(tcp="10.0.0.2:80"), Check(http="http://10.0.0.2/"), Check(console="up")]
)
def test_a_guest_with_another_check_need_not_wait_for_two_seconds(check: Check) -> None:
    assert check.alive_seconds == 0.0


def test_a_guest_can_be_asked_for_both_a_check_and_a_time() -> None:
    assert Check(tcp="10.0.0.2:80", alive="3s").alive_seconds == 3.0


@pytest.mark.parametrize("key", ["alive", "within", "interval"])
def test_a_time_of_a_check_has_to_be_a_duration(key: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="'soon' is no duration"):
        msgspec.convert({key: "soon"}, Check)


@pytest.mark.parametrize(("interval", "within"), [("0s", "10s"), ("11s", "10s"), ("1ms", "0s")])
def test_an_interval_is_more_than_nothing_and_at_most_the_whole_time(
    interval: str, within: str
) -> None:
    with pytest.raises(ValueError, match="interval has to be"):
        Check(tcp="10.0.0.2:80", interval=interval, within=within)


@pytest.mark.parametrize("check", [{"alive": "11s"}, {"within": "1s"}])
def test_a_guest_cannot_be_asked_to_live_longer_than_is_waited(check: dict[str, str]) -> None:
    with pytest.raises(msgspec.ValidationError, match="has to be at most within"):
        msgspec.convert(check, Check)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.2:80", ("10.0.0.2", 80)),
        ("[::1]:8080", ("::1", 8080)),
        ("localhost:1", ("localhost", 1)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_a_tcp_address_is_a_host_and_a_port(text: str, expected: tuple[str, int]) -> None:
    assert split_address(text) == expected


TCP_REFUSED = [
    *("", "80", ":80", "10.0.0.2", "10.0.0.2:", "10.0.0.2:0", "10.0.0.2:65536", "10.0.0.2:http"),
    *("10.0.0.2:-1", "10.0.0.2:8 0", "10.0.0.2:80\n"),
]


@pytest.mark.parametrize("text", TCP_REFUSED)
def test_what_is_no_tcp_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no address"):
        Check(tcp=text)


# Where Python cannot encode a host's name it raises UnicodeError, which no check would expect.
@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example", "[]"])
def test_a_host_that_no_resolver_takes_is_refused_as_a_tcp_address(host: str) -> None:
    with pytest.raises(ValueError, match="is no address"):
        Check(tcp=f"{host}:80")


@OPEN
@given(st.text())
def test_any_text_is_a_host_and_a_port_or_refused(text: str) -> None:
    try:
        host, port = split_address(text)
    except ValueError:
        return
    assert host
    assert 0 < port < 65536


@pytest.mark.parametrize(
    "url", ["http://10.0.0.2/", "https://[::1]:8443/a?b=c", "http://www.example.org"]
)
def test_an_http_address_is_taken(url: str) -> None:
    assert Check(http=url).http == url


@pytest.mark.parametrize("url", ["", "10.0.0.2", "ftp://10.0.0.2/", "http://", "http:///a", "//a/"])
def test_what_is_no_http_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is no address"):
        Check(http=url)


# Each would be found out only when a guest has been fired already, as an error nobody expects.
@pytest.mark.parametrize(
    "url",
    [
        *("http://[::1", "http://10.0.0.2:99999/", "http://10.0.0.2:www/"),
        *("http://a..b/", "http://10.0.0.2/\u20ac"),
    ],
)
def test_an_http_address_that_no_client_can_ask_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is no address"):
        Check(http=url)


@pytest.mark.parametrize(
    "pattern",
    [
        "(",
        "*",
        "[a",
        pytest.param("a{99999999999999}", id="too many repetitions"),
        pytest.param("(" * 2000 + ")" * 2000, id="too deep"),
    ],
)
def test_what_is_no_regular_expression_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="is no regular expression"):
        Check(console=pattern)


@OPEN
@given(st.text(alphabet=r"ab01{}()[]*+?.|\^$,-:=<P>#") | st.text())
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_any_console_pattern_is_taken_or_refused(pattern: str) -> None:
    try:
        check = Check(console=pattern)
    except ValueError:
        return
    assert check.console == pattern


# Restarts.


@pytest.mark.parametrize("limit", [0, -1])
def test_a_restart_limit_below_one_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match="limit has to be at least 1"):
        Restart(limit=limit)


def test_the_window_of_a_restart_limit_has_to_be_a_duration() -> None:
    with pytest.raises(ValueError, match="is no duration"):
        Restart(window="soon")


def test_a_restart_policy_reaches_the_monitor_in_seconds() -> None:
    policy = Restart(on="always", limit=3, window="2m").policy()
    assert (policy.on, policy.limit, policy.window) == ("always", 3, 120.0)


# The boot digest.


def test_the_digest_of_a_boot_with_defaults_stays_what_it_was() -> None:
    encoded = f'{{"image":"{"a" * 64}","target":"unix"}}'
    assert BOOT.digest == hashlib.sha256(encoded.encode()).hexdigest()


def test_the_digest_of_a_boot_with_everything_stays_what_it_was() -> None:
    boot = Boot(
        target="unix",
        image="b" * 64,
        arguments=("--port=80", "x"),
        memory=64,
        network={"service": NetworkConfig(address="10.0.0.2/24")},
        user="mirage",
    )
    encoded = (
        f'{{"arguments":["--port=80","x"],"image":"{"b" * 64}","memory":64,'
        '"network":{"service":{"address":"10.0.0.2/24"}},"target":"unix","user":"mirage"}'
    )
    assert boot.digest == hashlib.sha256(encoded.encode()).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        {"image": "b" * 64},
        {"target": "hvt"},
        {"arguments": ["--port=80"]},
        {"memory": 33},
        {"network": {"service": {"address": "10.0.0.2/24"}}},
        {"network": {"service": {}}},
        {"user": "mirage"},
        {"secrets": "c" * 64},
        {"nics": {"service": {"kind": "bridge", "link": "br0"}}},
        {"volumes": {"storage": {"path": "/srv/data.img"}}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_boot_that_differs_has_another_digest(change: dict[str, object]) -> None:
    changed = msgspec.convert({**msgspec.to_builtins(BOOT), **change}, Boot)
    assert changed.digest != BOOT.digest


def test_the_order_in_which_devices_are_written_makes_no_other_digest() -> None:
    one, two = NetworkConfig(address="10.0.0.2/24"), NetworkConfig(network="b", dhcp=True)
    written = Boot(target="hvt", image="a", network={"one": one, "two": two})
    turned = Boot(target="hvt", image="a", network={"two": two, "one": one})
    assert written.digest == turned.digest


def test_the_order_of_arguments_makes_another_digest() -> None:
    one = Boot(target="unix", image="a", arguments=("x", "y"))
    other = Boot(target="unix", image="a", arguments=("y", "x"))
    assert one.digest != other.digest


ARGUMENTS = st.lists(st.text(alphabet='ab ,"\\[]', max_size=4), max_size=4).map(tuple)


@OPEN
@given(ARGUMENTS, ARGUMENTS)
def test_digests_are_equal_where_arguments_are(
    one: tuple[str, ...], other: tuple[str, ...]
) -> None:
    digests = [Boot(target="unix", image="a", arguments=args).digest for args in (one, other)]
    assert (digests[0] == digests[1]) == (one == other)


def test_a_boot_read_back_from_its_record_has_the_same_digest() -> None:
    boot = Boot(target="hvt", image="a", network={"service": NetworkConfig(network="b", dhcp=True)})
    assert msgspec.json.decode(msgspec.json.encode(boot), type=Boot).digest == boot.digest


def test_a_boot_with_devices_read_back_from_its_record_has_the_same_digest() -> None:
    boot = Boot(
        target="virtio",
        image="a",
        network={"service": NetworkConfig(network="b", address=("10.0.0.2/24", "fd00::2/64"))},
        nics={"service": Nic("user", None, "02:00:00:00:00:01", ("127.0.0.1:8080:80",))},
        volumes={"storage": Volume("/srv/data.img", readonly=True)},
    )
    assert msgspec.json.decode(msgspec.json.encode(boot), type=Boot).digest == boot.digest


def test_a_hash_is_shown_in_seven_digits() -> None:
    assert short("0123456789abcdef") == "0123456"
