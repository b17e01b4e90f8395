"""What a bridge has learned: behind which port a guest is.

Shared with the monitor, which stays in memory.
"""

import contextlib


def forget(port: str) -> None:
    """Have a bridge forget who is behind a port, if that is one, and we have the right to say so.

    A frame for whom it does not know goes to every port. What it is told by is `flush` in Linux's
    net/bridge/br_sysfs_if.c.
    """
    with (
        contextlib.suppress(OSError),
        open(f"/sys/class/net/{port}/brport/flush", "w", encoding="ascii") as flush,
    ):
        flush.write("1")
