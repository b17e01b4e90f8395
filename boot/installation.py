"""Which installation this is: the same after a reinstall, another on every host and repository."""

import hashlib
import os
import socket
from pathlib import Path

_MACHINE = Path("/etc/machine-id")


def identify(common_dir: Path) -> str:
    """Return twelve hex digits for a repository on this host.

    Of the host's own id only a digest with something else in it is shown (machine-id(5)).
    """
    try:
        machine = _MACHINE.read_text().strip()
    except OSError:
        machine = ""
    names = ["mirage-hooks", machine or socket.gethostname(), os.fsdecode(common_dir)]
    return hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()[:12]
