"""What every MirageOS image takes: addresses by its version's keys, and quoted arguments."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirage_hooks.boot.device import HOST_NETWORK, NetworkConfig
from mirage_hooks.boot.errors import ConfigError
from mirage_hooks.boot.guest import Guest
from mirage_hooks.boot.targets import mirage
from mirage_hooks.boot.targets.mirage import quote

WHITE = " \t\n\v\f\r"


def split(text: str) -> list[str]:
    """Split as mirage/parse-argv does: a specification of its own, not made from `quote`."""
    words, word, quoted, at = [], "", "", 0
    while at < len(text):
        char = text[at]
        if quoted == "'":
            quoted, word = ("", word) if char == "'" else (quoted, word + char)
        elif char == "\\":
            at += 1
            word += text[at]
        elif char == '"':
            quoted = "" if quoted else '"'
        elif not quoted and char == "'":
            quoted = "'"
        elif not quoted and char in WHITE:
            words.append(word)
            word = ""
        else:
            word += char
        at += 1
    assert not quoted, f"a quote is left open in {text!r}"
    return [word for word in [*words, word] if word]


def four(gateway: str | None = None, group: str | None = None) -> NetworkConfig:
    return NetworkConfig(network="net", address="10.0.0.2/25", gateway=gateway, group=group)


def guest(*args: str, mirage: str = "4.0", **network: NetworkConfig) -> Guest:
    return Guest(name="www", target="hvt", image="i", args=args, mirage=mirage, network=network)


BOTH = NetworkConfig(
    network="net", address=("10.0.0.2/24", "fd00::2/64"), gateway=("10.0.0.1", "fd00::1")
)


# Addresses, by version.


@pytest.mark.parametrize("version", [(3, 10), (4, 0), (4, 11)])
def test_since_3_10_a_guest_with_ipv4_alone_is_told_so(version: tuple[int, int]) -> None:
    assert mirage.addresses(four("10.0.0.1"), version) == (
        "--ipv4=10.0.0.2/25",
        "--ipv4-gateway=10.0.0.1",
        "--ipv4-only=true",
    )


def test_since_3_10_a_guest_with_ipv6_alone_is_told_so() -> None:
    config = NetworkConfig(network="net", address="fd00::2/64", gateway="fe80::1")
    assert mirage.addresses(config, (3, 10)) == (
        "--ipv6=fd00::2/64",
        "--ipv6-gateway=fe80::1",
        "--ipv6-only=true",
    )


def test_since_3_10_a_guest_with_both_is_told_both() -> None:
    assert mirage.addresses(BOTH, (4, 0)) == (
        "--ipv4=10.0.0.2/24",
        "--ipv6=fd00::2/64",
        "--ipv4-gateway=10.0.0.1",
        "--ipv6-gateway=fd00::1",
    )


@pytest.mark.parametrize("version", [(3, 0), (3, 9)])
def test_before_3_10_there_is_ipv4_alone(version: tuple[int, int]) -> None:
    passed = mirage.addresses(four("10.0.0.1"), version)
    assert passed == ("--ipv4=10.0.0.2/25", "--ipv4-gateway=10.0.0.1")


@pytest.mark.parametrize("version", [(2, 7), (2, 9)])
def test_before_3_0_address_netmask_and_gateways_have_keys_of_their_own(
    version: tuple[int, int],
) -> None:
    passed = mirage.addresses(four("10.0.0.1"), version)
    assert passed == ("--ip=10.0.0.2", "--netmask=255.255.255.128", "--gateways=10.0.0.1")


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (2, 6)])
def test_before_2_7_an_address_is_compiled_in(version: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="takes its address when it is configured") as error:
        mirage.addresses(four(), version)
    assert "baked = true" in error.value.hint


@pytest.mark.parametrize("version", [(2, 9), (3, 0), (3, 9)])
def test_before_3_10_an_ipv6_address_is_refused(version: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=r"MirageOS before 3\.10 takes no IPv6 address"):
        mirage.addresses(BOTH, version)


@pytest.mark.parametrize("version", [(1, 0), (2, 7), (3, 0), (4, 0)])
@pytest.mark.parametrize("mode", ["dhcp", "baked"])
def test_what_a_guest_finds_out_itself_is_not_passed(version: tuple[int, int], mode: str) -> None:
    config = NetworkConfig(network="net", dhcp=mode == "dhcp", baked=mode == "baked")
    assert mirage.addresses(config, version) == ()


@pytest.mark.parametrize(
    ("version", "key"), [((2, 7), "ip"), ((3, 0), "ipv4"), ((4, 0), "ipv4-only")]
)
def test_every_argument_of_a_named_stack_starts_with_its_name(
    version: tuple[int, int], key: str
) -> None:
    passed = mirage.addresses(four("10.0.0.1", group="private"), version)
    assert all(argument.startswith("--private-") for argument in passed)
    assert any(argument.startswith(f"--private-{key}=") for argument in passed)


def test_on_the_hosts_sockets_no_family_is_switched_off() -> None:
    config = NetworkConfig(network=HOST_NETWORK, address="10.0.0.2/24")
    assert mirage.addresses(config, (4, 0)) == ("--ipv4=10.0.0.2/24",)


def test_the_addresses_of_every_device_go_before_the_guests_own_arguments() -> None:
    one = guest("--port=80", a=four(), b=BOTH, mirage="3.10")
    assert mirage.arguments(one)[0] == "--ipv4=10.0.0.2/25"
    assert mirage.arguments(one)[-1] == "--port=80"


# Arguments that are at odds.


@pytest.mark.parametrize(
    "argument", ["--ipv4=10.0.0.3/24", "--ipv4", "--ipv4-gateway=10.0.0.1", "--ipv4-only=false"]
)
def test_an_address_that_is_given_in_the_arguments_too_is_refused(argument: str) -> None:
    with pytest.raises(ConfigError, match="network service: the address is given in args, too"):
        mirage.check(guest(argument, service=four("10.0.0.1")))


@pytest.mark.parametrize("argument", ["--private-ipv4=10.0.0.3/24", "--ip=10.0.0.3", "--ipv4x=1"])
def test_the_address_of_another_stack_may_be_in_the_arguments(argument: str) -> None:
    mirage.check(guest(argument, service=four()))


@pytest.mark.parametrize("key", ["ipv4", "ip", "private-ipv6-gateway", "interface"])
def test_a_key_of_the_network_is_given_once(key: str) -> None:
    with pytest.raises(ConfigError) as error:
        mirage.check(guest(f"--{key}=a", f"--{key}=b"))
    assert error.value.message == f"args: --{key} is given more than once"


# It would be found where the network is logged, as an error that nobody expects.
@pytest.mark.parametrize("argument", ["--port=0", "--port=65536", "--http-port=99999999"])
def test_what_is_no_port_is_refused_on_every_target(argument: str) -> None:
    with pytest.raises(ConfigError, match=r"^args: [0-9]+ is no port"):
        mirage.check(guest(argument))


def test_an_argument_of_the_guests_own_may_be_given_twice() -> None:
    mirage.check(guest("--logs=a", "--logs=b"))


def test_two_stacks_need_names() -> None:
    with pytest.raises(ConfigError) as error:
        mirage.check(guest(one=four(), two=four()))
    assert error.value.message == "networks one, two have arguments of the same name"
    assert error.value.hint.startswith("`group` says what the stack of each is called")


def test_two_stacks_with_names_are_told_their_addresses() -> None:
    mirage.check(guest(one=four(), two=four(group="private")))


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("--interface=tap0", True),
        ("--private-interface", True),
        ("--interfaces=2", False),
        ("interface=tap0", False),
        ("--ipv4=10.0.0.2/24", False),
    ],
)
def test_an_argument_that_names_an_interface_is_known(argument: str, named: bool) -> None:
    assert mirage.names_interface(argument) is named


# Solo5 keeps 8192 bytes with their end; its virtio bindings cut the rest off without a word.
def test_as_many_arguments_as_solo5_has_room_for_are_taken() -> None:
    mirage.refuse_long(["a" * 8000, "b" * 190])


@pytest.mark.parametrize("arguments", [["a" * 8000, "b" * 191], ["\u20ac" * 2731], ['"' * 4100]])
def test_more_arguments_than_solo5_has_room_for_are_refused(arguments: list[str]) -> None:
    with pytest.raises(ConfigError, match="bytes: a Solo5 guest takes 8191"):
        mirage.refuse_long(arguments)


# Quoting.


# What upstream's own tests say of the splitter.
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("foo bar baz", ["foo", "bar", "baz"]),
        (r"f\ oo b\"r baz", ["f oo", 'b"r', "baz"]),
        ('foo bar"bie"boo', ["foo", "barbieboo"]),
        ("foo 'b a\"r' baz", ["foo", 'b a"r', "baz"]),
        ('foo "b a\'r" baz', ["foo", "b a'r", "baz"]),
        (r"""foo 'b\\ a\"r'""", ["foo", r"b\\ a\"r"]),
        (r'foo "b\\ a\"r"', ["foo", r'b\ a"r']),
        ("  ", []),
    ],
)
def test_a_command_line_is_split_as_upstream_says(text: str, words: list[str]) -> None:
    assert split(text) == mirage.split(text) == words


@given(st.lists(st.text(min_size=1)))
def test_quoted_arguments_reach_the_guest_as_they_were_written(arguments: list[str]) -> None:
    assert split(" ".join(map(quote, arguments))) == arguments


@given(st.text("-=a '\"\\\t", min_size=1))
def test_an_argument_of_nothing_but_special_characters_survives(argument: str) -> None:
    assert split(quote(argument)) == [argument]


@pytest.mark.parametrize("argument", ["--port=80", "--ipv4=10.0.0.2/24", "--logs=*:info", "a,b;$c"])
def test_a_plain_argument_is_passed_unquoted(argument: str) -> None:
    assert quote(argument) == argument


def test_only_the_value_of_an_option_is_quoted() -> None:
    assert quote("--hello=a b") == '--hello="a b"'


@given(st.lists(st.text(min_size=1) | st.text("-=a '\"\\\t", min_size=1)))
def test_what_was_quoted_is_split_into_what_it_was(arguments: list[str]) -> None:
    assert mirage.split(" ".join(map(quote, arguments))) == arguments


def test_a_quote_that_is_left_open_ends_with_the_command_line() -> None:
    assert mirage.split("a --hello=it's all right") == ["a", "--hello=its all right"]


def test_a_command_line_that_a_backslash_ends_is_refused() -> None:
    with pytest.raises(ValueError, match="a backslash ends it"):
        mirage.split("a b\\")
