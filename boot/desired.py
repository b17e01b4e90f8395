"""What should run at a revision, as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mirage_hooks.boot import host
from mirage_hooks.boot.artifact import Missing, Provenance
from mirage_hooks.boot.description import NAME
from mirage_hooks.boot.errors import Error
from mirage_hooks.boot.guest import Boot, Guest


@dataclass(frozen=True)
class Desired:
    """One guest as it should run."""

    guest: Guest
    boot: Boot
    provenance: Provenance
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class DesiredState:
    """What should run at a revision, and the paths it was read from.

    `selection` is the host's choice of guests, None for all; `unselected` are the others. `startup`
    is the place of each guest, 0 where it has none, in the order in which they are booted.
    """

    revision: str
    guests: dict[str, Desired] = field(default_factory=dict)
    unready: dict[str, Error] = field(default_factory=dict)
    watched: tuple[str, ...] = ()
    selection: tuple[str, ...] | None = None
    unselected: frozenset[str] = frozenset()
    startup: Mapping[str, int] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """Every guest that is to run here."""
        return frozenset(self.guests) | frozenset(self.unready)

    @property
    def broken(self) -> list[str]:
        """The guests whose image or secrets are there, but cannot serve."""
        return sorted(name for name, why in self.unready.items() if not isinstance(why, Missing))

    @property
    def lost(self) -> bool:
        """Whether no guest at all is described, though nobody said that none is to run."""
        return not self.names and not self.unselected and self.selection != ()

    @property
    def why_empty(self) -> str:
        """Why no guest is to run here, where none is."""
        if self.selection is None:
            return f"no guest is described: commit a {NAME}, or use install --guest"
        if not self.selection:
            return f"no guest is to run here: guests = [] in {host.NAME}"
        return f"none of this host's guests is described: {', '.join(self.selection)}"
