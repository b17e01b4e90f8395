"""A monitor's private memory, a second after a deploy, beside a Python that does nothing.

Private_Clean and Private_Dirty of /proc/PID/smaps_rollup: what would be free again if it ended.
Pages of files that another Python has mapped too, such as the benchmark's own, are not in it.
"""

import re
import subprocess
import sys
import time
from pathlib import Path

from stage import Stage
from table import Budget, Figure

_ROUNDS = 5
_MOST_MB = 12.0
_AFTER_SECONDS = 1.0


def measure(stage: Stage) -> list[Figure]:
    """Return a bare Python's memory, and a monitor's."""
    bare, monitor = [], []
    for _ in range(_ROUNDS):
        stage.mirage_hooks("reboot", "www")
        with subprocess.Popen(
            [sys.executable, "-I", "-c", "input()"], stdin=subprocess.PIPE
        ) as python:
            time.sleep(_AFTER_SECONDS)
            bare.append(_private_mb(python.pid))
            python.communicate(b"\n")
        monitor.append(_private_mb(stage.monitor().monitor.pid))
    return [
        Figure("memory: a bare Python", "MB", bare),
        Figure("memory: a monitor", "MB", monitor, bare, "difference", Budget("median", _MOST_MB)),
    ]


def _private_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(map(int, re.findall(r"^Private_(?:Clean|Dirty): +(\d+) kB$", text, re.M))) / 1024
