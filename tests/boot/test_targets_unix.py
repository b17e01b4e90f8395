"""The unix target: arguments, command, and quoting that survives MirageOS's own splitting."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirage_hooks.boot.device import NetworkConfig
from mirage_hooks.boot.errors import ConfigError
from mirage_hooks.boot.guest import Boot, Guest
from mirage_hooks.boot.targets.mirage import quote
from mirage_hooks.boot.targets.tending import Start
from mirage_hooks.boot.targets.unix import Unix
from support import USER, free_port, get, wait_for

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


def guest(*args: str, user: str | None = USER, **network: NetworkConfig) -> Guest:
    return Guest(name="www", target="unix", image="www.unix", args=args, network=network, user=user)


def address(text: str) -> NetworkConfig:
    return NetworkConfig(address=text)


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
def test_the_splitter_of_these_tests_splits_as_upstream_says(text: str, words: list[str]) -> None:
    assert split(text) == words


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


def test_the_address_goes_before_the_guests_own_arguments() -> None:
    described = guest("--port=80", service=address("10.0.0.2/24"))
    assert Unix().arguments(described) == ("--ipv4=10.0.0.2/24", "--port=80")


def test_an_ipv6_address_is_passed_by_its_own_key() -> None:
    assert Unix().arguments(guest(service=address("fd00::2/64"))) == ("--ipv6=fd00::2/64",)


def test_a_baked_in_address_is_not_passed() -> None:
    assert Unix().arguments(guest("--port=80", service=NetworkConfig(baked=True))) == ("--port=80",)


def test_the_image_is_executed_under_the_guests_name() -> None:
    boot = Boot(target="unix", image="0" * 64, arguments=("--port=80", "--hello=a b"))
    program, argv = Unix().command(boot, Start("www", "/images/0"))
    assert (program, argv) == ("/images/0", ["www", "--port=80", '--hello="a b"'])


def test_a_guest_on_the_hosts_sockets_has_one_network_at_most() -> None:
    with pytest.raises(ConfigError, match="one network at most"):
        Unix().check(guest(one=address("10.0.0.2/24"), two=address("10.0.1.2/24")))


def test_an_address_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="the address is given in args, too"):
        Unix().check(guest("--ipv4=10.0.0.2/24", service=address("10.0.0.3/24")))


def test_a_real_guest_takes_a_quoted_argument_as_one(compiled: Callable[[str], Path]) -> None:
    port, text = free_port(), 'it\'s "one" \\ page'
    boot = Boot(target="unix", image="", arguments=(f"--port={port}", f"--hello={text}"))
    program, argv = Unix().command(boot, Start("www", str(compiled("one"))))
    with subprocess.Popen(argv, executable=program, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: get(port) is not None, 5)
            assert get(port) == text
        finally:
            process.kill()
