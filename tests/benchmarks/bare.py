"""A guest that nobody looks after: what a person, or a short script, would start and end."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass
class BareGuest:
    """A guest's process, started by posix_spawn, that prints to `log`."""

    log: Path
    _pid: int | None = None

    def start(self, executable: str | Path, argv: list[str]) -> None:
        """Boot it."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._pid = os.posix_spawn(
            executable,
            argv,
            {"PATH": os.defpath},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, self.log, flags, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
        )

    def stop(self) -> None:
        """End it by SIGTERM, and wait for its end."""
        if self._pid is not None:
            os.kill(self._pid, signal.SIGTERM)
            os.waitpid(self._pid, 0)
            self._pid = None
