"""What a poll does beyond its sh: the branch is to move, or something is not as it should be.

Called by the script that `install` puts into the state folder (pollfile.py of the installer), which
has fetched before. What stays as it was is neither said nor logged.
"""

import contextlib
import os
from pathlib import Path

from mirage_hooks.boot import (
    fetching,
    follow,
    host,
    journal,
    ownership,
    pins,
    settled,
    severity,
    upstream,
)
from mirage_hooks.boot.environment import leave_operation, not_found
from mirage_hooks.boot.errors import Error, HostError, RepositoryError
from mirage_hooks.boot.fetching import UpstreamError
from mirage_hooks.boot.files import write_atomic
from mirage_hooks.boot.host import Host
from mirage_hooks.boot.record import State
from mirage_hooks.boot.repository import Repository
from mirage_hooks.boot.tell import Teller
from mirage_hooks.hooks.said import Said
from mirage_hooks.hooks.trigger import say

# The descriptor by which sh holds the lock of polls.
LOCK = 9
_INTERRUPTED = 130

_UPSTREAM, _DEPLOY, _SELF = "upstream", "deploy", "poll"


def main(state: str, arguments: list[str]) -> int:
    """Do what sh asks for; return the exit code.

    `bind` leaves for sh what the host file says, `missing TOOL` says which program is not there,
    `fetched CODE` goes on after a fetch.
    """
    with contextlib.suppress(OSError):  # nothing that is started from here is to hold it
        os.set_inheritable(LOCK, False)
    leave_operation()
    verb, *rest = arguments
    common_dir = Path(state).absolute().parent.resolve()
    where = State(common_dir)
    said = Said(where.polls)
    try:
        if verb == "bind":
            _bind(where, common_dir)
            return 0
        if verb == "missing":
            raise not_found(rest[0])
        return _Poll(where, common_dir, said).run(int(rest[0]))
    except (Error, OSError) as error:
        told = error if isinstance(error, Error) else HostError(str(error))
        if said.is_new(_SELF, str(told)):
            say(f"mirage-hooks: {told}", severity.ERROR)
        said.save()
        return told.exit_code
    except KeyboardInterrupt:
        say("mirage-hooks: a deploy that has begun goes on; `mirage-hooks logs -f` follows it")
        return _INTERRUPTED


def _bind(state: State, common_dir: Path) -> None:
    """Leave for sh what it is to fetch, and the host file that says so. Raises Error, OSError."""
    state.check_access()
    ownership.refuse_foreign(ownership.obeyed(common_dir))
    bound, text = host.load(state.host_file)
    known = f"{bound.branch}\n{bound.poll.seconds}\n".encode()
    write_atomic(state.poll_bound, known + settled.lines(text))


class _Poll:
    """One poll: the branch is moved, then what runs is made what it should be."""

    def __init__(self, state: State, common_dir: Path, said: Said) -> None:
        self._state = state
        self._common_dir = common_dir
        self._said = said
        self._converge = follow.make_id()
        self._teller = Teller(str(state.folder))
        # What is said once there is something worth a word.
        self._pending: list[dict[str, object]] = []
        self._spoke = False

    def run(self, fetched: int) -> int:
        """Poll, after a fetch with an exit code; return the exit code. Raises Error, OSError."""
        ownership.refuse_foreign(ownership.obeyed(self._common_dir))
        bound, text = host.load(self._state.host_file)
        repository = Repository(self._common_dir)
        code = self._follow_upstream(repository, bound, fetched)
        if self._triggered() or not settled.holds(self._state, repository, bound.branch, text):
            code = self._deploy() or code
        if self._said.ended(_UPSTREAM):
            self._note("repository.mended", f"{bound.branch} follows its upstream again")
        if self._said.ended(_DEPLOY) and not self._spoke:
            say("mirage-hooks: what should run runs again", severity.NOTICE)
        if self._said.ended(_SELF):
            say("mirage-hooks: polls work again", severity.NOTICE)
        self._said.save()
        return code

    def _follow_upstream(self, repository: Repository, bound: Host, fetched: int) -> int:
        """Move the branch to what was fetched; return the exit code that this is worth."""
        source = repository.upstream(bound.branch)
        log = self._state.fetch_log.read_text(errors="replace")
        try:
            if fetched:
                remote = source[0] if source is not None else "its upstream"
                raise fetching.not_fetched(bound.branch, remote, fetched, log, bound.poll.seconds)
            if source is None:
                return 0
            move = upstream.update(
                repository,
                self._state.folder,
                bound.branch,
                bound.poll.upstream,
                self._is_rewound(repository, log),
            )
        except RepositoryError as error:
            if self._said.is_new(_UPSTREAM, str(error)):
                event = error.event if isinstance(error, UpstreamError) else fetching.BLOCKED
                self._note(event, str(error))
            return error.exit_code
        self._said.rewound = None
        if move is not None:
            if move.printed:
                say(move.printed, severity.INFO)
            if move.event == "repository.followed":
                self._note(move.event, move.message)
            else:
                self._pending.append(self._log(move.event, move.message))
        return 0

    def _is_rewound(self, repository: Repository, log: str) -> bool:
        """Whether the upstream has taken back what it had: git marks that with a plus sign."""
        theirs = repository.resolve(pins.UPSTREAM)
        if any(line.split()[:1] == ["+"] for line in log.splitlines()):
            self._said.rewound = theirs
        return theirs is not None and self._said.rewound == theirs

    def _triggered(self) -> bool:
        with contextlib.suppress(OSError):
            return self._state.trigger.stat().st_size > 0
        return False

    def _deploy(self) -> int:
        """Converge, and follow it to its end; return the exit code. Raises Error."""
        asked = {"origin": "poll", "automatic": True, "quiet": True}
        run = follow.start(str(self._common_dir), asked, self._converge)
        heard: list[dict[str, object]] = []
        try:
            code = follow.follow(run, lambda event: self._hear(heard, event))
        except HostError as error:  # it was killed
            if self._said.is_new(_DEPLOY, str(error)):
                say(f"mirage-hooks: {error}", severity.ERROR)
            return error.exit_code
        told = str(heard[-1]["message"])
        news = self._said.is_new(_DEPLOY, told) if code else self._said.ended(_DEPLOY)
        if not self._spoke and news:
            self._spoke = True
            for event in heard:
                self._keep(event)
            say(f"mirage-hooks: {told}", severity.priority(heard[-1]))
        elif not self._spoke:
            Path(run.path).unlink(missing_ok=True)
        return code

    def _hear(self, heard: list[dict[str, object]], event: dict[str, object]) -> None:
        """Say what a converge does, from where it changes something."""
        heard.append(event)
        self._pending.append(event)
        if self._spoke or journal.is_news(event):
            self._spoke = True
            for one in self._pending:
                say(f"mirage-hooks: {one['message']}", severity.priority(one))
            self._pending.clear()

    def _note(self, name: str, message: str) -> None:
        """Say and log something about the upstream."""
        event = self._log(name, message)
        say(f"mirage-hooks: {message}", severity.priority(event))

    def _log(self, name: str, message: str) -> dict[str, object]:
        event = journal.make_event(name, self._converge, message)
        self._keep(event)
        return event

    def _keep(self, event: dict[str, object]) -> None:
        journal.append(str(self._state.events), event)
        self._teller.tell(event)
