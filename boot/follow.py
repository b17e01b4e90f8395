"""Start a converger that outlives whoever asks for it, and follow what it does.

On the way of every hook that has something to do, so it imports little.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from mirage_hooks.boot import journal
from mirage_hooks.boot.errors import HostError, RepositoryError
from mirage_hooks.boot.users import user_name

# A hook does not follow for longer: git, cron or a pusher wait for it. Seconds.
LIMIT = 900.0
_PAUSE = 0.02
# With less than this a disk is full: what a file and its folder take at the least.
_LEAST_BYTES = 8192


def foreign_owner(common_dir: str | os.PathLike[str]) -> str | None:
    """Return the user the state of a repository belongs to, None where that is this user.

    Raises RepositoryError where nothing is installed.
    """
    try:
        owner = os.stat(os.path.join(common_dir, "mirage-hooks")).st_uid
    except FileNotFoundError:
        raise RepositoryError(
            f"nothing is installed in {os.fspath(common_dir)}", "run: mirage-hooks install"
        ) from None
    return None if owner == os.geteuid() else user_name(owner)


def trigger(common_dir: str | os.PathLike[str]) -> str:
    """Return the file by which who may push, but not deploy, says that there is something new."""
    return os.path.join(common_dir, "mirage-hooks.trigger")


def leave_trigger(common_dir: str | os.PathLike[str]) -> None:
    """Say in the trigger that there is something new. Raises OSError where that is not allowed.

    It is there already, made by `install`: who may push can make no file in the git folder.
    """
    descriptor = os.open(trigger(common_dir), os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.write(descriptor, b"push\n")
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Run:
    """A converger that was started: the id of its converge, its pid, and where its events go."""

    converge: str
    pid: int
    path: str


def make_id() -> str:
    """Return an id for a converge that this process is to start: its time, UTC, and its pid."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}"


def start(common_dir: str, request: dict[str, object], converge: str | None = None) -> Run:
    """Start a converger: in a session of its own, its standard streams a file.

    `converge` is the id it gets, where something that belongs to it was logged before.
    A child that kept git's streams would make `git pull | cat` and every push wait for it, and die
    with the terminal. Raises RepositoryError, HostError.
    """
    folder = os.path.join(common_dir, "mirage-hooks")
    converge = converge or make_id()
    runs = os.path.join(folder, "runs")
    path = os.path.join(runs, f"{converge}.jsonl")
    try:
        if (owner := foreign_owner(common_dir)) is not None:  # root would leave files of its own
            raise HostError(
                f"the state in {folder} belongs to user {owner}",
                "run this as that user: what runs here is theirs",
            )
        os.makedirs(runs, mode=0o700, exist_ok=True)
        output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(
            f"no converge can be started: {error.filename}: {error.strerror}",
            f"the state in {folder} has to be writable, and this user's",
        ) from None
    command = [sys.executable, "-I", "-m", "mirage_hooks.boot.converge"]
    try:
        pid = os.posix_spawn(
            sys.executable,
            [*command, common_dir, converge, json.dumps(request)],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
            ],
            setsid=True,
        )
    finally:
        os.close(output)
    return Run(converge, pid, path)


def _full(path: str) -> bool:
    """Whether a file's disk is full: then a converger had nowhere to say so."""
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize < _LEAST_BYTES


def follow(run: Run, show: Callable[[dict[str, object]], None], limit: float | None = None) -> int:
    """Show a converge's events until it has finished; return its exit code.

    Past `limit` seconds it goes on unfollowed. Raises HostError where the converger was killed.
    """
    deadline = None if limit is None else time.monotonic() + limit
    with open(run.path, encoding="utf-8", errors="replace") as file:
        pending = ""
        while True:
            gone, status = os.waitpid(run.pid, os.WNOHANG)
            while chunk := file.readline():
                pending += chunk
                if not pending.endswith("\n"):
                    continue
                event, pending = journal.parse(pending), ""
                if event is None:
                    continue
                show(event)
                if event["event"] == "converge.finished":
                    return int(str(event["exit_code"]))
            if gone:
                code = os.waitstatus_to_exitcode(status)
                if code == HostError.exit_code and _full(run.path):
                    raise HostError(
                        f"no space left on the disk that {run.path} is on",
                        "what runs goes on running; free some space there: the next pull or "
                        "`mirage-hooks deploy` goes on",
                    )
                how = f"ended with {code}" if code >= 0 else "was killed"
                raise HostError(
                    f"the converger (pid {run.pid}) {how} before it had finished",
                    "nothing is lost: the next pull or `mirage-hooks deploy` goes on from there; "
                    f"its log: {run.path}",
                )
            if deadline is not None and time.monotonic() > deadline:
                text = "the deploy still goes on: `mirage-hooks logs -f` follows it"
                show(journal.make_event("converge.unfollowed", run.converge, text))
                return 0
            time.sleep(_PAUSE)
