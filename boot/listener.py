"""Who speaks to a monitor: its control socket, and the requests that come over it.

Shared with the monitor, which stays in memory.
"""

import contextlib
import os
import selectors
import socket
from collections.abc import Callable, Mapping

from mirage_hooks.boot import control


class Listener:
    """A control socket and all who are connected to it, served by a selector's events.

    The selector's data are what to call with the socket that has something to read.
    """

    def __init__(
        self,
        path: str,
        selector: selectors.BaseSelector,
        on_request: Callable[[socket.socket, dict[str, object]], None],
        on_hang_up: Callable[[socket.socket], None],
    ) -> None:
        """Listen at a path, in place of what is there. Raises OSError."""
        self._path = path
        self._selector = selector
        self._on_request = on_request
        self._on_hang_up = on_hang_up
        self._buffers: dict[socket.socket, bytes] = {}
        self._listen()

    def take(self, connection: socket.socket) -> None:
        """Hear what comes over a connection, until it ends."""
        self._buffers[connection] = b""
        self._selector.register(connection, selectors.EVENT_READ, self._read)

    def reopen(self) -> None:
        """Listen again where the path was lost; folders on the way are made. Raises OSError."""
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(self._path), self._made):
                return  # who is about to be heard would be hung up on
        os.makedirs(os.path.dirname(self._path), 0o700, exist_ok=True)
        before = self._socket
        self._listen()
        self._selector.unregister(before)
        before.close()

    def close(self) -> None:
        """Be found no more; those who are connected may still be answered."""
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def _listen(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self._path)
        self._made = os.stat(self._path)
        listener.listen()
        self._socket = listener
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.setblocking(False)  # who does not read is hung up on, and stalls no guest
        self.take(connection)

    def _read(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(connection)
            connection.close()
            del self._buffers[connection]
            self._on_hang_up(connection)
            return
        *lines, self._buffers[connection] = (self._buffers[connection] + data).split(b"\n")
        for line in lines:
            self._on_request(connection, control.parse_request(line))


def answer(connection: socket.socket, message: Mapping[str, object]) -> None:
    """Send an answer; who does not take it whole is hung up on."""
    try:
        connection.sendall(control.encode(message))
    except OSError:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
