"""What a program without rights over the network is told."""

import subprocess
import sys

from namespace import Namespace

_PROGRAM = """
from mirage_hooks.boot import links, taps
from mirage_hooks.boot.errors import HostError
try:
    {statement}
except HostError as error:
    print(error, end="")
"""


def without_right(host: Namespace, statement: str) -> str:
    """Run a statement on a host as root without CAP_NET_ADMIN; return the error it ends with."""
    command = [
        "setpriv",
        "--bounding-set=-net_admin",
        "--inh-caps=-net_admin",
        sys.executable,
        "-I",
    ]
    done = subprocess.run(
        host.inside(*command, "-c", _PROGRAM.format(statement=statement)),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout
