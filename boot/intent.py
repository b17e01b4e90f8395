"""The operator's word: on a guest, and on all that is automatic."""

from datetime import UTC, datetime
from typing import Literal

import msgspec

# Why a guest was stopped that is held since.
HELD = "held by hand"


class Intent(msgspec.Struct, frozen=True):
    """The operator's word on a guest, where it is not `follow`.

    A pin says which generation is to run, and while the desired boot digest is which.
    """

    kind: Literal["held", "pinned"]
    since: float
    generation: int | None = None
    desired: str | None = None


class Pause(msgspec.Struct, frozen=True):
    """The operator's word that hooks deploy nothing: why, since when, and which user's."""

    why: str
    since: float
    by: str

    @property
    def time(self) -> str:
        """Since when, in ISO 8601, UTC."""
        return datetime.fromtimestamp(self.since, UTC).isoformat(timespec="seconds")

    def __str__(self) -> str:
        return f"paused since {self.time} by {self.by}: {self.why}"
