"""What every hook that deploys does: start a converger, and follow it on the terminal."""

import os
import sys

from mirage_hooks.boot import follow
from mirage_hooks.boot.errors import Error


def deploy(hook: str, origin: str) -> int:
    """Converge the repository that the dropped `hook` is in; return 0: a hook never breaks git.

    Ctrl-C, or a terminal that is gone, ends the following only.
    """
    common_dir = os.path.dirname(os.path.dirname(os.path.abspath(hook)))  # noqa: PTH100, PTH120
    try:
        run = follow.start(common_dir, {"origin": origin, "automatic": True})
        follow.follow(run, _show, follow.LIMIT)
    except Error as error:
        _print(f"mirage-hooks: {error}")
    except OSError as error:
        _print(f"mirage-hooks: nothing was deployed: {error}")
    except KeyboardInterrupt:
        _print("mirage-hooks: the deploy goes on; `mirage-hooks logs -f` follows it")
    return 0


def _show(event: dict[str, object]) -> None:
    _print(f"mirage-hooks: {event['message']}")


def _print(text: str) -> None:
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        # Whoever read this has gone; the deploy does not depend on it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
