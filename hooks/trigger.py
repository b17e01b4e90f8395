"""What every hook that deploys does: start a converger, and follow it for whoever waits."""

import os
import select
import sys
from pathlib import Path

from mirage_hooks.boot import follow, severity
from mirage_hooks.boot.errors import Error

# How long a pipe may stay full before nobody is taken to read it; seconds.
_PATIENCE = 30.0


def deploy(state: str, origin: str, head: str | None = None) -> int:
    """Converge the repository with a state folder; return 0: a hook never breaks git.

    `head` is what is checked out where the hook runs. Ctrl-C, a terminal that is gone, or a client
    that no longer reads end the following only.
    """
    common_dir = Path(state).absolute().parent.resolve()
    try:
        if (owner := follow.foreign_owner(common_dir)) is not None:
            _leave_trigger(common_dir, owner)
            return 0
        run = follow.start(str(common_dir), {"origin": origin, "head": head, "automatic": True})
        follow.follow(run, _show, follow.LIMIT)
    except Error as error:
        say(f"mirage-hooks: {error}", severity.ERROR)
    except OSError as error:
        say(f"mirage-hooks: nothing was deployed: {error}", severity.ERROR)
    except KeyboardInterrupt:
        say("mirage-hooks: the deploy goes on; `mirage-hooks logs -f` follows it")
    return 0


def head() -> str | None:
    """Return the branch that is checked out where git runs a hook, "a detached HEAD" for none.

    None where that cannot be read.
    """
    try:
        text = Path(os.environ.get("GIT_DIR", ".git"), "HEAD").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    branch = text.removeprefix("ref: refs/heads/")
    return "a detached HEAD" if branch == text else branch


def _leave_trigger(common_dir: Path, owner: str) -> None:
    """Note for the owner of the guests that there is something to deploy: they alone may do it."""
    try:
        follow.leave_trigger(common_dir)
    except OSError as error:
        say(
            f"mirage-hooks: nothing was deployed: the guests here are {owner}'s, and no trigger "
            f"can be left for them: {error}\n"
            f"  as {owner}, run: mirage-hooks deploy; docs/push.md has how a push can do it"
        )
        return
    say(
        f"mirage-hooks: the guests here are {owner}'s: a trigger is left for their next "
        "`mirage-hooks deploy`"
    )


def _show(event: dict[str, object]) -> None:
    say(f"mirage-hooks: {event['message']}", severity.priority(event))


def say(text: str, rank: int = severity.WARNING) -> None:
    """Print for whoever follows, if they read.

    Behind post-receive is a pipe to the client. When that has gone git reads no more of it, and
    whoever writes more than the pipe holds would hang for ever.
    """
    data = f"{severity.ranked(text, rank, 2)}\n".encode(errors="backslashreplace")
    try:
        sys.stderr.flush()
        while data:
            if not os.isatty(2) and not _writable(2):
                raise TimeoutError
            data = data[os.write(2, data[: select.PIPE_BUF]) :]
    except OSError:
        # Whoever read this has gone; the deploy does not depend on it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _writable(descriptor: int) -> bool:
    """Wait until PIPE_BUF bytes can be written without blocking (pipe(7)); False if not in time."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(_PATIENCE * 1000))
