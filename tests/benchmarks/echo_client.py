"""A client that pings a guest every millisecond, and notes when each answer came.

    python -IS echo_client.py ADDRESS

It prints `ready` once it has begun, and `answered` at the first answer. Once its input has ended,
it prints how often it asked, and when each answer came (monotonic, seconds), all in a line, and
ends.

An echo request is what every MirageOS stack answers: real images can be measured by it, too. What
cannot be sent, since nobody has the address or the bridge has no carrier, is lost.
"""

import contextlib
import select
import socket
import struct
import sys
import time

PERIOD = 0.001

# RFC 792: type, code, checksum, identifier, sequence. The kernel sees to checksum and identifier of
# a request from a socket for pings, and hands on what answers to that; but it has to be allowed to,
# so that this is a raw one, which needs both, and gets every ICMP packet with its IP header.
_HEADER = struct.Struct("!BBHHH")
_REQUEST, _REPLY = 8, 0
_IP_BYTES = 20
_IDENTIFIER = 0x6D68


def request(sequence: int) -> bytes:
    """Return an echo request."""
    total = (_REQUEST << 8) + _IDENTIFIER + sequence
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return _HEADER.pack(_REQUEST, 0, ~total & 0xFFFF, _IDENTIFIER, sequence)


def answers(packet: bytes) -> bool:
    """Whether a packet, as a raw socket gives it, answers a request of ours."""
    kind, _, _, identifier, _ = _HEADER.unpack_from(packet, _IP_BYTES)
    return bool(kind == _REPLY and identifier == _IDENTIFIER)


def main() -> None:
    """Ask until the input ends."""
    times: list[float] = []
    asked = 0
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as guest:
        guest.connect((sys.argv[1], 0))
        print("ready", flush=True)
        due = time.monotonic()
        while True:
            wait = max(0.0, due - time.monotonic())
            ready, _, _ = select.select([guest, sys.stdin], [], [], wait)
            if guest in ready:
                with contextlib.suppress(OSError):  # an address that nobody has
                    if answers(guest.recv(2048)):
                        times.append(time.monotonic())
                        if len(times) == 1:
                            print("answered", flush=True)
            if sys.stdin in ready:
                break
            if time.monotonic() >= due:
                asked += 1
                with contextlib.suppress(OSError):
                    guest.send(request(asked & 0xFFFF))
                # One that was held up asks no faster after that.
                due = max(due + PERIOD, time.monotonic())
    print(asked, *times)


if __name__ == "__main__":
    main()
