"""One boot of a guest, as it is recorded, and how far it has come."""

import time
from enum import StrEnum

import msgspec

from mirage_hooks.boot.artifact import Provenance
from mirage_hooks.boot.guest import Boot, Check, Restart

# Of a record. One that only gained fields is no new format.
FORMAT = 1


class Phase(StrEnum):
    """How far a generation has come. Each is recorded before the step that it names is taken."""

    PREPARING = "preparing"  # its monitor is about to be started
    ARMED = "armed"  # its monitor waits for the word
    FIRED = "fired"  # the word is about to be given: it may run, and was not found healthy yet
    HEALTHY = "healthy"  # its check passed
    FAILED = "failed"  # its check did not pass
    ENDED = "ended"  # it was healthy, and something took its place or it was stopped
    ABANDONED = "abandoned"  # it was never fired, or killed before it could be judged


_UNJUDGED = frozenset({Phase.PREPARING, Phase.ARMED, Phase.FIRED})


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """One boot of a guest."""

    format: int = FORMAT
    guest: str
    number: int
    boot: Boot
    provenance: Provenance
    check: Check
    restart: Restart
    origin: str
    converge: str
    created: float
    phase: Phase
    healthy_at: float | None = None
    ended_at: float | None = None
    lost: bool = False
    reason: str = ""
    observed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """The boot digest."""
        return self.boot.digest

    @property
    def unjudged(self) -> bool:
        """Whether a converger was, or is, still at work on it."""
        return self.phase in _UNJUDGED

    def become(self, phase: Phase, **changes: object) -> "Generation":
        """Return the record in another phase."""
        return msgspec.structs.replace(self, phase=phase, **changes)

    def end(self, reason: str, lost: bool = False) -> "Generation":
        """Return the record of its end, now; `lost` says that it was nobody's will.

        A failed one stays failed, and why: that mark is on its boot digest.
        """
        if self.phase is Phase.FAILED:
            return self.become(Phase.FAILED, ended_at=time.time())
        return self.become(Phase.ENDED, ended_at=time.time(), reason=reason, lost=lost)
