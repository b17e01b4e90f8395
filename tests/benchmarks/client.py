"""A client that asks a guest for its page over and over, and notes when the page changes.

    python -IS client.py PORT OLD NEW PAUSE

It prints `ready` once it has read OLD, then, at the first NEW, when the last reply of the old guest
and the first one of the new guest were complete (monotonic, seconds), and ends. Each request is a
connection of its own, read to its end. PAUSE, in seconds, is kept after each reply: 0 is a tight
loop. One that fails is tried again almost at once: without any pause the client would not leave its
core while nobody answers, and the new guest would wait for the client, by whole ticks of the clock.

The client ends each connection by a reset, once it has read all. Else the guest's end of it would
stay in TIME-WAIT, and the new guest's bind() goes through all of those on its port: thousands after
a second of a tight loop, which cost it milliseconds.
"""

import socket
import struct
import sys
import time

_RESET_AT_CLOSE = struct.pack("ii", 1, 0)
_SECONDS = 30.0
_AFTER_FAILURE = 0.00005


def page(port: int) -> str | None:
    """Return what the guest answers, None where it does not."""
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            data = b""
            while chunk := connection.recv(4096):
                data += chunk
    except OSError:
        return None
    return data.decode().partition("\r\n\r\n")[2].strip() or None


def main() -> None:
    """Ask until the page has changed."""
    port, old, new, pause = int(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])
    deadline = time.monotonic() + _SECONDS
    last: float | None = None
    while (now := time.monotonic()) < deadline:
        said = page(port)
        if said is None:
            time.sleep(_AFTER_FAILURE)
            continue
        now = time.monotonic()
        if said == new and last is not None:
            print(last, now, flush=True)
            return
        if said == old:
            if last is None:
                print("ready", flush=True)
            last = now
        if pause:
            time.sleep(pause)
    sys.exit(f"port {port} did not change from {old!r} to {new!r} within {_SECONDS:g} s")


if __name__ == "__main__":
    main()
