"""How much an event matters: whether an operator is told of it, and its rank in a journal."""

import os
from collections.abc import Mapping

# Priorities of syslog(3).
ERROR, WARNING, NOTICE, INFO = 3, 4, 5, 6

# Events that say how something came out. All others are steps on the way.
_OUTCOMES = {
    "guest.healthy": NOTICE,
    "guest.stopped": NOTICE,
    "guest.unpinned": NOTICE,
    "guest.planned": WARNING,  # a roll back alone
    "guest.restarting": WARNING,
    "guest.ended": WARNING,
    "guest.unhealthy": ERROR,
    "guest.given-up": ERROR,
    "guest.fault": ERROR,
    "network.differs": WARNING,
    "network.fault": WARNING,
    "collect.fault": WARNING,
    "repository.fetch-failed": WARNING,
    "repository.diverged": ERROR,
    "repository.followed": WARNING,
    "repository.blocked": ERROR,
    "repository.mended": NOTICE,
    "state.rebuilt": WARNING,
    "state.damaged": ERROR,
    "converge.finished": ERROR,  # with another exit code than 0
}


def outcome(event: Mapping[str, object]) -> int | None:
    """Return the priority of an event that an operator wants to be told of, None for a step."""
    match event:
        case {"event": "guest.planned", "verb": verb} if verb != "roll back":
            return None
        case {"event": "converge.finished", "exit_code": 0}:
            return None
    return _OUTCOMES.get(str(event.get("event")))


def priority(event: Mapping[str, object]) -> int:
    """Return the priority of any event."""
    return outcome(event) or INFO


def ranked(text: str, rank: int, descriptor: int) -> str:
    """Return a text as it is to be written to a descriptor: for systemd's journal with its rank.

    Each line of it gets one, as sd-daemon(3) has it; elsewhere nothing is added.
    """
    if not _is_journal(descriptor):
        return text
    return "\n".join(f"<{rank}>{line}" for line in text.split("\n"))


def _is_journal(descriptor: int) -> bool:
    """Whether a descriptor leads to the journal: $JOURNAL_STREAM of systemd.exec(5) names it."""
    if (stream := os.environ.get("JOURNAL_STREAM")) is None:
        return False
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"
