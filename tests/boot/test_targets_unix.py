"""The unix target: a program of this host, on its sockets or on a tap."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mirage_hooks.boot.device import BlockConfig, NetworkConfig, Nic
from mirage_hooks.boot.errors import ConfigError
from mirage_hooks.boot.guest import Boot, Guest
from mirage_hooks.boot.host import Tenders
from mirage_hooks.boot.image import Image
from mirage_hooks.boot.targets.tending import Start, Tending
from mirage_hooks.boot.targets.unix import Unix
from support import USER, free_port, get, wait_for


def guest(*args: str, user: str | None = USER, **network: NetworkConfig) -> Guest:
    return Guest(name="www", target="unix", image="www.unix", args=args, network=network, user=user)


def address(text: str) -> NetworkConfig:
    return NetworkConfig(address=text)


def test_the_address_goes_before_the_guests_own_arguments() -> None:
    described = guest("--port=80", service=address("10.0.0.2/24"))
    assert Unix().arguments(described) == ("--ipv4=10.0.0.2/24", "--port=80")


def test_a_baked_in_address_is_not_passed() -> None:
    assert Unix().arguments(guest("--port=80", service=NetworkConfig(baked=True))) == ("--port=80",)


def test_the_image_is_executed_under_the_guests_name() -> None:
    boot = Boot(target="unix", image="0" * 64, arguments=("--port=80", "--hello=a b"))
    program, argv = Unix().command(boot, Start("www", "/images/0"))
    assert (program, argv) == ("/images/0", ["www", "--port=80", '--hello="a b"'])


def test_a_guest_on_the_hosts_sockets_has_one_network_at_most() -> None:
    with pytest.raises(ConfigError, match="one network at most"):
        Unix().check(guest(one=address("10.0.0.2/24"), two=address("10.0.1.2/24")))


def on_tap(network: NetworkConfig) -> list[str]:
    """Return the argument list of a guest with the direct stack."""
    boot = Boot(
        target="unix",
        image="0" * 64,
        arguments=("--port=80",),
        network={"service": network},
        nics={"service": Nic("bridge", "br0")},
    )
    return Unix().command(boot, Start("www", "/images/0", taps={"service": "mh0"}))[1]


def test_a_guest_with_the_direct_stack_is_told_its_tap() -> None:
    config = NetworkConfig(network="public", dhcp=True)
    assert on_tap(config) == ["www", "--interface=mh0", "--port=80"]


def test_the_tap_of_a_named_stack_is_told_by_its_name() -> None:
    config = NetworkConfig(network="public", dhcp=True, group="private")
    assert on_tap(config) == ["www", "--private-interface=mh0", "--port=80"]


@pytest.mark.parametrize("argument", ["--interface=tap0", "--interface", "--private-interface=t"])
def test_a_guest_on_a_tap_of_ours_names_no_interface(argument: str) -> None:
    with pytest.raises(ConfigError, match="network service: args name an interface, too"):
        Unix().check(guest(argument, service=NetworkConfig(network="public", dhcp=True)))


def test_a_guest_on_the_hosts_sockets_may_name_an_interface() -> None:
    Unix().check(guest("--interface=tap0"))


def test_a_version_that_takes_no_taps_name_has_no_network_of_its_own() -> None:
    config = NetworkConfig(network="public", dhcp=True)
    old = Guest(name="www", target="unix", image="i", network={"s": config}, mirage="2.9")
    with pytest.raises(ConfigError) as error:
        Unix().check(old)
    assert error.value.message == "network s: MirageOS 2.9 takes no tap's name"


def test_a_unix_guest_has_no_mac_of_the_repositorys() -> None:
    config = NetworkConfig(network="public", dhcp=True, mac="02:00:00:00:00:01")
    with pytest.raises(ConfigError, match="a unix guest chooses its own mac"):
        Unix().check(guest(service=config))


def test_a_unix_guest_has_no_block_device_of_the_hosts() -> None:
    one = Guest(name="www", target="unix", image="i", block={"storage": BlockConfig("data")})
    with pytest.raises(ConfigError, match="by the paths it was built with"):
        Unix().check(one)


def test_a_unix_image_has_no_tender() -> None:
    assert Unix().tending(Tenders(), USER, Image("unix")) == Tending()


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
