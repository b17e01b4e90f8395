"""How the last converge ended: whoever waited for it since before it began is served by it.

So a burst of pushes, pulls and polls costs one converge after the one that goes on, not one each.
"""

from pathlib import Path

import msgspec

from mirage_hooks.boot.files import write_atomic
from mirage_hooks.boot.process import boot_id
from mirage_hooks.boot.request import Request


class Outcome(msgspec.Struct, frozen=True):
    """The end of a converge that deployed: when it began (monotonic, seconds, of a kernel boot)."""

    converge: str
    request: Request
    boot: str
    began: float
    exit_code: int
    message: str

    def serves(self, request: Request, asked: float) -> bool:
        """Whether it has done all that a request, made at a moment since boot, asks for.

        It read the branch after that moment, then; and tried no less: what is asked for by hand
        tries again what an automatic converge leaves alone.
        """
        mine = self.request
        return (
            self.boot == boot_id()
            and self.began > asked
            and request.verb == mine.verb == "deploy"
            and mine.retry >= request.retry
            and mine.allow_empty >= request.allow_empty
            and request.automatic >= mine.automatic
        )


def load(path: Path) -> Outcome | None:
    """Return the last outcome, None where there is none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Outcome)
    except (OSError, msgspec.DecodeError):
        return None


def save(path: Path, outcome: Outcome) -> None:
    """Record an outcome, in place of the last."""
    write_atomic(path, msgspec.json.encode(outcome))
