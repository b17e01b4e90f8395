"""A control socket: requests are heard whole, and who waits to be heard is not lost."""

import json
import os
import selectors
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from mirage_hooks.boot.listener import Listener, answer


class Heard:
    """A listener, what it has heard, and how many have hung up."""

    def __init__(self, path: Path, clients: ExitStack) -> None:
        self.path = path
        self.requests: list[dict[str, object]] = []
        self.gone = 0
        self._clients = clients
        self._selector = clients.enter_context(selectors.DefaultSelector())
        self.listener = Listener(str(path), self._selector, self._hear, self._lose)

    def _hear(self, connection: socket.socket, request: dict[str, object]) -> None:
        self.requests.append(request)
        answer(connection, {"heard": len(self.requests)})

    def _lose(self, _: socket.socket) -> None:
        self.gone += 1

    def connect(self) -> socket.socket:
        """Return a client's end of a connection."""
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._clients.enter_context(closing(client))
        client.settimeout(5)
        client.connect(str(self.path))
        return client

    def serve(self) -> None:
        """Do what there is to do, until there is nothing."""
        while events := self._selector.select(0):
            for key, _ in events:
                key.data(key.fileobj)

    def close(self) -> None:
        """Close what the listener has open."""
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()


@pytest.fixture
def heard() -> Iterator[Heard]:
    """A listener at a path that is short enough for a socket."""
    with ExitStack() as clients:
        made = Heard(Path(os.environ["XDG_RUNTIME_DIR"]) / "listener", clients)
        yield made
        made.close()
        made.listener.close()


def said(client: socket.socket) -> list[object]:
    return [json.loads(line) for line in client.recv(65536).splitlines()]


def test_a_request_is_heard_and_answered(heard: Heard) -> None:
    client = heard.connect()
    client.sendall(b'{"do": "status"}\n')
    heard.serve()
    assert (heard.requests, said(client)) == ([{"do": "status"}], [{"heard": 1}])


def test_a_request_that_comes_in_pieces_is_heard_once_it_is_whole(heard: Heard) -> None:
    client = heard.connect()
    client.sendall(b'{"do": "st')
    heard.serve()
    assert heard.requests == []
    client.sendall(b'atus"}\n')
    heard.serve()
    assert heard.requests == [{"do": "status"}]


def test_requests_that_come_together_are_heard_in_their_order(heard: Heard) -> None:
    client = heard.connect()
    client.sendall(b'{"do": "one"}\n{"do": "two"}\n')
    heard.serve()
    assert [request["do"] for request in heard.requests] == ["one", "two"]


def test_clients_do_not_get_into_each_others_words(heard: Heard) -> None:
    first, second = heard.connect(), heard.connect()
    first.sendall(b'{"do": "o')
    second.sendall(b'{"do": "two"}\n')
    heard.serve()
    first.sendall(b'ne"}\n')
    heard.serve()
    assert [request["do"] for request in heard.requests] == ["two", "one"]


def test_who_hangs_up_is_told_of(heard: Heard) -> None:
    heard.connect().close()
    heard.serve()
    assert heard.gone == 1


def test_a_connection_that_came_by_another_way_is_heard_as_well(heard: Heard) -> None:
    ours, theirs = socket.socketpair()
    heard.listener.take(theirs)
    with ours:
        ours.sendall(b'{"do": "fire"}\n')
        heard.serve()
    assert heard.requests == [{"do": "fire"}]


def test_a_socket_that_was_lost_is_there_again(heard: Heard) -> None:
    heard.path.unlink()
    heard.listener.reopen()
    heard.connect().sendall(b"{}\n")
    heard.serve()
    assert heard.requests == [{}]


def test_a_socket_is_there_again_though_its_folder_was_lost(heard: Heard) -> None:
    folder = heard.path.parent
    heard.path.unlink()
    folder.rmdir()
    heard.listener.reopen()
    assert heard.path.is_socket()


def test_who_waits_is_heard_though_the_socket_was_thought_lost(heard: Heard) -> None:
    client = heard.connect()
    client.sendall(b'{"do": "describe"}\n')
    heard.listener.reopen()
    heard.serve()
    assert said(client) == [{"heard": 1}]


def test_a_socket_that_is_closed_is_not_found(heard: Heard) -> None:
    heard.listener.close()
    assert not heard.path.exists()
