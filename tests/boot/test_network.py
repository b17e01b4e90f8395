"""Network configurations: what is logged of them, what two guests cannot share, what is seen."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mirage_hooks.boot import network
from mirage_hooks.boot.guest import Boot, NetworkConfig
from mirage_hooks.boot.network import Endpoint
from support import free_port, get, wait_for


def boot(*arguments: str, **networks: NetworkConfig) -> Boot:
    return Boot(target="unix", image="a" * 64, arguments=arguments, network=dict(networks))


@pytest.fixture
def listen() -> Iterator[Callable[..., int]]:
    """Return a function that listens on an address, in this process, and returns the port."""
    sockets = []

    def start(address: str = "127.0.0.1", port: int = 0) -> int:
        listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        sockets.append(listener)
        listener.bind((address, port))
        listener.listen()
        chosen: int = listener.getsockname()[1]
        return chosen

    yield start
    for listener in sockets:
        listener.close()


# As configured.


def test_a_static_address_is_recorded_with_prefix_netmask_and_ports() -> None:
    record = network.configured(
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
    record = network.configured(boot("--ipv4=10.0.0.2/25", "--secret=x", "--port=80"))
    assert record.passed == ("--ipv4=10.0.0.2/25", "--port=80")


def test_an_ipv6_address_is_recorded_with_its_prefix() -> None:
    record = network.configured(boot("--ipv6=fd00::2/64"))
    assert (record.address, record.prefix) == ("fd00::2", 64)


def test_a_gateway_is_recorded() -> None:
    config = NetworkConfig(network="public", address="10.0.0.2/24", gateway="10.0.0.1")
    assert network.configured(boot(service=config)).gateway == "10.0.0.1"


def test_a_baked_in_address_is_recorded_as_such() -> None:
    record = network.configured(boot(service=NetworkConfig(baked=True)))
    assert (record.mode, record.address) == ("baked", None)


@pytest.mark.parametrize("arguments", [(), ("--ipv4=nonsense",), ("--ipv4=10.0.0.999/8",)])
def test_no_sound_address_is_recorded_as_none(arguments: tuple[str, ...]) -> None:
    record = network.configured(boot(*arguments))
    assert (record.address, record.prefix, record.netmask) == (None, None, None)


def test_a_record_reads_as_one_line() -> None:
    record = network.configured(boot("--ipv4=10.0.0.2/24", "--port=80", "--https-port=443"))
    assert record.describe() == (
        "host sockets, 10.0.0.2/24 (netmask 255.255.255.0), port 80, 443, "
        "passed as --ipv4=10.0.0.2/24 --port=80 --https-port=443"
    )


def test_a_record_of_nothing_says_that_nothing_was_passed() -> None:
    assert network.configured(boot()).describe() == "host sockets, nothing passed"


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


# What guests listen on.


def test_a_guest_listens_on_its_address_at_each_of_its_ports() -> None:
    arguments = ("--ipv4=10.0.0.2/24", "--port=80", "--https-port=443")
    assert network.endpoints(arguments) == [Endpoint("10.0.0.2", 80), Endpoint("10.0.0.2", 443)]


@pytest.mark.parametrize("arguments", [("--port=80",), ("--ipv4=0.0.0.0/0", "--port=80")])
def test_a_guest_without_an_address_listens_on_every_one(arguments: tuple[str, ...]) -> None:
    assert network.endpoints(arguments) == [Endpoint(None, 80)]


def test_a_guest_with_an_address_of_each_kind_listens_on_both() -> None:
    arguments = ("--ipv6=fd00::2/64", "--ipv4=10.0.0.2/24", "--port=80")
    assert set(network.endpoints(arguments)) == {Endpoint("fd00::2", 80), Endpoint("10.0.0.2", 80)}


def test_a_guest_that_names_no_port_listens_on_none() -> None:
    assert network.endpoints(("--ipv4=10.0.0.2/24",)) == []


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


# What is taken.

OURS = frozenset({os.getpid()})


def test_a_port_that_somebody_listens_on_is_taken(listen: Callable[..., int]) -> None:
    port = listen()
    found = network.taken([Endpoint("127.0.0.1", port)], network.listening(frozenset()))
    assert found is not None
    assert found[0] == Endpoint("127.0.0.1", port)


def test_whoever_took_a_port_is_named(listen: Callable[..., int]) -> None:
    found = network.taken([Endpoint("127.0.0.1", listen())], network.listening(frozenset()))
    assert found is not None
    assert found[1].endswith(f"(pid {os.getpid()})")


def test_a_port_that_we_listen_on_is_not_taken(listen: Callable[..., int]) -> None:
    assert network.taken([Endpoint("127.0.0.1", listen())], network.listening(OURS)) is None


def test_a_port_that_nobody_listens_on_is_not_taken() -> None:
    assert (
        network.taken([Endpoint("127.0.0.1", free_port())], network.listening(frozenset())) is None
    )


def test_nothing_wanted_is_never_taken(listen: Callable[..., int]) -> None:
    listen()
    assert network.taken([], network.listening(frozenset())) is None


def test_a_port_is_taken_by_who_listens_on_every_address(listen: Callable[..., int]) -> None:
    assert (
        network.taken([Endpoint("127.0.0.1", listen("0.0.0.0"))], network.listening(frozenset()))
        is not None
    )


def test_every_address_is_taken_by_who_listens_on_one(listen: Callable[..., int]) -> None:
    assert network.taken([Endpoint(None, listen())], network.listening(frozenset())) is not None


def test_a_port_is_not_taken_by_who_listens_on_another_address(listen: Callable[..., int]) -> None:
    assert (
        network.taken([Endpoint("127.0.0.1", listen("127.0.0.2"))], network.listening(frozenset()))
        is None
    )


def test_a_connection_takes_no_port(listen: Callable[..., int]) -> None:
    with socket.create_connection(("127.0.0.1", listen())) as connection:
        port = connection.getsockname()[1]
        assert network.taken([Endpoint("127.0.0.1", port)], network.listening(frozenset())) is None


def test_the_second_of_two_wanted_ports_can_be_taken(listen: Callable[..., int]) -> None:
    port = listen()
    wanted = [Endpoint("127.0.0.1", free_port()), Endpoint("127.0.0.1", port)]
    found = network.taken(wanted, network.listening(frozenset()))
    assert found is not None
    assert found[0].port == port


# What is observed.


@pytest.fixture
def serve(compiled: Callable[[str], Path]) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Return a function that starts a command with a guest's address and port at its end."""
    processes = []

    def start(port: int, *before: str) -> subprocess.Popen[bytes]:
        arguments = [str(compiled("one")), "--ipv4=127.0.0.1/8", f"--port={port}"]
        processes.append(
            subprocess.Popen([*before, *arguments], stderr=subprocess.DEVNULL, process_group=0)
        )
        wait_for(lambda: get(port) is not None)
        return processes[-1]

    yield start
    for process in processes:
        os.killpg(process.pid, 9)
        process.wait()


def test_what_a_process_listens_on_is_observed(
    serve: Callable[..., subprocess.Popen[bytes]],
) -> None:
    port = free_port()
    assert network.observed(serve(port).pid) == [Endpoint("127.0.0.1", port)]


def test_what_a_descendant_listens_on_is_observed(
    serve: Callable[..., subprocess.Popen[bytes]],
) -> None:
    port = free_port()
    shell = serve(port, "sh", "-c", '"$@" & wait', "sh")
    assert network.observed(shell.pid) == [Endpoint("127.0.0.1", port)]


def test_a_descendant_is_of_the_family(serve: Callable[..., subprocess.Popen[bytes]]) -> None:
    shell = serve(free_port(), "sh", "-c", '"$@" & wait', "sh")
    family = network.family(shell.pid)
    assert (family[0], len(family)) == (shell.pid, 2)


def test_what_others_listen_on_is_not_observed(
    serve: Callable[..., subprocess.Popen[bytes]], listen: Callable[..., int]
) -> None:
    foreign = listen()
    ports = [endpoint.port for endpoint in network.observed(serve(free_port()).pid)]
    assert foreign not in ports


def test_a_listener_on_every_address_is_observed_as_one(listen: Callable[..., int]) -> None:
    assert Endpoint(None, listen("0.0.0.0")) in network.observed(os.getpid())


def test_nothing_is_observed_of_a_process_that_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert (network.observed(process.pid), network.family(process.pid)) == ([], [])
