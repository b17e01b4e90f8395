"""What the doctor says."""

from dataclasses import dataclass
from typing import Literal

from mirage_hooks.boot.errors import Error


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what was found, and how to mend it where it is not right."""

    level: Literal["ok", "warning", "failed"]
    subject: str
    finding: str
    mend: str = ""

    @classmethod
    def of(cls, subject: str, error: Error) -> "Finding":
        """Return what an error says."""
        return cls("failed", subject, error.message, error.hint)
