"""Run the operator's command for events: `[notify]` of the host file.

Run as `python -m mirage_hooks.boot.notify STATE_FOLDER`, by tell.py; each packet on standard input
is an event. It is in no hurry: who sends them does not wait.
"""

import fcntl
import os
import pwd
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mirage_hooks.boot import host, journal, ownership, tell
from mirage_hooks.boot.errors import Error, HostError, RepositoryError
from mirage_hooks.boot.targets.tenders import PATH

# How long the command may take for an event; seconds.
SECONDS = 10.0
# More than a packet between two processes holds (net.core.wmem_default is some 200 KiB).
_PACKET_BYTES = 1 << 20
_SAID_BYTES = 4096


def refuse_unfit(command: Sequence[str]) -> None:
    """Raise HostError where a command cannot be run, or somebody else could change what is."""
    path = Path(command[0])
    if not os.access(path, os.X_OK) or path.is_dir():
        raise HostError(
            f"{path} is no program that can be executed", f"{host.NAME} names it in [notify]"
        )
    ownership.refuse_foreign([path])


def deliver(state: Path, event: Mapping[str, object]) -> None:
    """Hand an event to the command, if there is one. Raises Error, OSError."""
    bound, _ = host.load(state / host.NAME)
    command = bound.notify.command
    if not command:
        return
    refuse_unfit(command)
    git_dir = state.parent
    told = {
        **event,
        "repository": str(git_dir.parent if git_dir.name == ".git" else git_dir),
        "branch": bound.branch,
        "host": socket.gethostname(),
    }
    # One at a time, whoever sends: so they come in order, and a slow command does not pile up.
    with (state / "notifying").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run(command, journal.encode(told).encode() + b"\n", SECONDS)


def run(command: Sequence[str], given: bytes, seconds: float) -> None:
    """Run a command with something on standard input. Raises HostError where it does not end well.

    After `seconds` it is killed, with its process group.
    """
    with os.fdopen(os.memfd_create("event"), "w+b") as file:
        file.write(given)
        file.seek(0)
        process = subprocess.Popen(
            command,
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=_environment(),
            start_new_session=True,
        )
    with process:
        said = _listen(process, time.monotonic() + seconds)
        if said is None:
            os.killpg(process.pid, signal.SIGKILL)
            raise HostError(f"{command[0]} took more than {seconds:g} s, and was killed")
        code = process.wait()
    if code != 0:
        how = f"ended with {code}" if code > 0 else f"was killed by signal {-code}"
        last = (said.decode(errors="replace").strip() or "it said nothing").splitlines()[-1]
        raise HostError(f"{command[0]} {how}: {last}")


def _listen(process: subprocess.Popen[bytes], deadline: float) -> bytes | None:
    """Return the end of what a process said before it ended, None where it did not in time.

    What it says is taken, so that a full pipe does not hold it up; children that it leaves are
    not waited for.
    """
    assert process.stdout is not None  # noqa: S101 - a pipe
    output, pidfd, said = process.stdout.fileno(), os.pidfd_open(process.pid), b""
    watched = [pidfd, output]
    try:
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select(watched, [], [], left)
            if output in ready:
                data = os.read(output, _SAID_BYTES)
                said = (said + data)[-_SAID_BYTES:]
                if not data:
                    watched.remove(output)
            elif ready:
                return said
    finally:
        os.close(pidfd)
    return None


def _environment() -> dict[str, str]:
    account = pwd.getpwuid(os.geteuid())
    return {
        "PATH": PATH,
        "LANG": "C.UTF-8",
        "HOME": account.pw_dir,
        "LOGNAME": account.pw_name,
        "USER": account.pw_name,
    }


def main() -> None:
    """Take events until who sends them has no more; what fails is logged once."""
    state, failed = sys.argv[1], False
    os.umask(0o077)
    with socket.socket(fileno=0) as events:
        while packet := events.recv(_PACKET_BYTES):
            if (event := journal.parse(packet.decode())) is None:
                continue
            try:
                deliver(Path(state), event)
            except RepositoryError:
                return  # it was taken out meanwhile
            except (Error, OSError, ValueError) as error:
                if not failed:
                    text = f"{event['event']} is not told: {error}"
                    tell.log_failure(state, event, text)
                failed = True


if __name__ == "__main__":
    main()
