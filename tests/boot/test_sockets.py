"""What processes listen on: what is taken, and what is observed."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mirage_hooks.boot import sockets
from mirage_hooks.boot.network import Endpoint
from support import free_port, get, wait_for


@pytest.fixture
def listen() -> Iterator[Callable[..., int]]:
    """Return a function that listens on an address, in this process, and returns the port."""
    listeners = []

    def start(address: str = "127.0.0.1", port: int = 0) -> int:
        listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        listeners.append(listener)
        listener.bind((address, port))
        listener.listen()
        chosen: int = listener.getsockname()[1]
        return chosen

    yield start
    for listener in listeners:
        listener.close()


# What is taken.

OURS = frozenset({os.getpid()})


def test_a_port_that_somebody_listens_on_is_taken(listen: Callable[..., int]) -> None:
    port = listen()
    found = sockets.taken([Endpoint("127.0.0.1", port)], sockets.listening(frozenset()))
    assert found is not None
    assert found[0] == Endpoint("127.0.0.1", port)


def test_whoever_took_a_port_is_named(listen: Callable[..., int]) -> None:
    found = sockets.taken([Endpoint("127.0.0.1", listen())], sockets.listening(frozenset()))
    assert found is not None
    assert found[1].endswith(f"(pid {os.getpid()})")


def test_a_port_that_we_listen_on_is_not_taken(listen: Callable[..., int]) -> None:
    assert sockets.taken([Endpoint("127.0.0.1", listen())], sockets.listening(OURS)) is None


def test_a_port_that_nobody_listens_on_is_not_taken() -> None:
    assert (
        sockets.taken([Endpoint("127.0.0.1", free_port())], sockets.listening(frozenset())) is None
    )


def test_nothing_wanted_is_never_taken(listen: Callable[..., int]) -> None:
    listen()
    assert sockets.taken([], sockets.listening(frozenset())) is None


def test_a_port_is_taken_by_who_listens_on_every_address(listen: Callable[..., int]) -> None:
    assert (
        sockets.taken([Endpoint("127.0.0.1", listen("0.0.0.0"))], sockets.listening(frozenset()))
        is not None
    )


def test_every_address_is_taken_by_who_listens_on_one(listen: Callable[..., int]) -> None:
    assert sockets.taken([Endpoint(None, listen())], sockets.listening(frozenset())) is not None


def test_a_port_is_not_taken_by_who_listens_on_another_address(listen: Callable[..., int]) -> None:
    assert (
        sockets.taken([Endpoint("127.0.0.1", listen("127.0.0.2"))], sockets.listening(frozenset()))
        is None
    )


def test_a_connection_takes_no_port(listen: Callable[..., int]) -> None:
    with socket.create_connection(("127.0.0.1", listen())) as connection:
        port = connection.getsockname()[1]
        assert sockets.taken([Endpoint("127.0.0.1", port)], sockets.listening(frozenset())) is None


def test_the_second_of_two_wanted_ports_can_be_taken(listen: Callable[..., int]) -> None:
    port = listen()
    wanted = [Endpoint("127.0.0.1", free_port()), Endpoint("127.0.0.1", port)]
    found = sockets.taken(wanted, sockets.listening(frozenset()))
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
    assert sockets.observed(serve(port).pid) == [Endpoint("127.0.0.1", port)]


def test_what_a_descendant_listens_on_is_observed(
    serve: Callable[..., subprocess.Popen[bytes]],
) -> None:
    port = free_port()
    shell = serve(port, "sh", "-c", '"$@" & wait', "sh")
    assert sockets.observed(shell.pid) == [Endpoint("127.0.0.1", port)]


def test_a_descendant_is_of_the_family(serve: Callable[..., subprocess.Popen[bytes]]) -> None:
    shell = serve(free_port(), "sh", "-c", '"$@" & wait', "sh")
    family = sockets.family(shell.pid)
    assert (family[0], len(family)) == (shell.pid, 2)


def test_what_others_listen_on_is_not_observed(
    serve: Callable[..., subprocess.Popen[bytes]], listen: Callable[..., int]
) -> None:
    foreign = listen()
    ports = [endpoint.port for endpoint in sockets.observed(serve(free_port()).pid)]
    assert foreign not in ports


def test_a_listener_on_every_address_is_observed_as_one(listen: Callable[..., int]) -> None:
    assert Endpoint(None, listen("0.0.0.0")) in sockets.observed(os.getpid())


def test_nothing_is_observed_of_a_process_that_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert (sockets.observed(process.pid), sockets.family(process.pid)) == ([], [])
