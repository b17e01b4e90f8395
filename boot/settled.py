"""The hooks' fast path: a stamp that says all is as it should be, for these object ids.

The dropped hook compares, in sh, the stamp with what `git cat-file --batch-check` says of the
watched paths now. A stamp that is missing, or differs, starts a converge; so whoever starts a
change deletes it first, and a monitor whose guest ends does too.
"""

from collections.abc import Iterable

from mirage_hooks.boot.errors import RepositoryError
from mirage_hooks.boot.files import write_atomic
from mirage_hooks.boot.process import ProcessId, boot_id
from mirage_hooks.boot.record import State
from mirage_hooks.boot.repository import Repository
from mirage_hooks.boot.revision import Revision

# What the dropped hook knows how to read.
FORMAT = "1"


def clear(state: State) -> None:
    """Say that something is about to change."""
    state.settled.unlink(missing_ok=True)


def write(
    state: State,
    repository: Repository,
    branch: str,
    paths: Iterable[str],
    seen: Revision,
    host_text: bytes,
    monitors: Iterable[ProcessId],
) -> None:
    """Stamp the state as settled, unless the branch moved on meanwhile (from revision `seen`).

    The text is what the hook's sh makes: format, boot id and what HEAD is to hold, the host file as
    it was read, then the object ids. Beside it lie the names they belong to, and the monitors that
    have to be alive, and the host file, by which the hook knows whether they still are the ones.
    """
    # Not by asking git, as the hook does: its own look into a folder of old images takes a while.
    oids = {f"refs/heads/{branch}:{path}": seen.oid(path) for path in paths}
    if repository.tip(branch).id != seen.id:
        return
    identities = "".join(f"{oid or f'{name} missing'}\n" for name, oid in oids.items())
    living = "".join(f"{one.pid} {one.start}\n" for one in monitors)
    write_atomic(state.monitors, living.encode())
    write_atomic(state.bound, host_text)
    write_atomic(state.watched, "".join(f"{name}\n" for name in oids).encode())
    write_atomic(state.settled, _stamp(branch, host_text, identities))


def holds(state: State, repository: Repository, branch: str, host_text: bytes) -> bool:
    """Whether the state is settled: what the hook asks, asked in Python.

    It is not where git cannot say, as of what a partial clone has not fetched yet.
    """
    try:
        stamp = state.settled.read_bytes()
        names = state.watched.read_text(encoding="utf-8").splitlines()
        living = state.monitors.read_text().splitlines()
        monitors = [ProcessId(boot_id(), *map(int, line.split())) for line in living]
    except (FileNotFoundError, TypeError, ValueError):  # missing, or damaged
        return False
    try:
        found = _stamp(branch, host_text, repository.identify(names))
    except RepositoryError:
        return False
    return stamp == found and all(monitor.alive for monitor in monitors)


def lines(text: bytes) -> bytes:
    """Return a file as sh reads it, by lines: the last one is ended, ended in the file or not."""
    return text if text.endswith(b"\n") or not text else text + b"\n"


def _stamp(branch: str, host_text: bytes, identities: str) -> bytes:
    head = f"{FORMAT} {boot_id()} ref: refs/heads/{branch}\n"
    return head.encode() + lines(host_text) + identities.encode()
