"""The process that converges a repository, whoever asked for it.

Run as `python -m mirage_hooks.boot.converge COMMON_DIR ID REQUEST`, by follow.py, detached.
"""

import contextlib
import os
import sys
import traceback
from pathlib import Path

from mirage_hooks.boot import collect, journal, request
from mirage_hooks.boot.converger import Converger
from mirage_hooks.boot.environment import leave_operation
from mirage_hooks.boot.errors import Error, HostError
from mirage_hooks.boot.journal import Journal
from mirage_hooks.boot.record import State
from mirage_hooks.boot.repository import Repository
from mirage_hooks.boot.tell import Teller

_BUG_EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h


def main() -> None:
    """Converge one repository; everything said goes to standard output, a line an event."""
    common_dir, converge, raw = sys.argv[1:4]
    state = State(Path(common_dir))
    os.umask(0o077)
    leave_operation()
    journal.rotate(str(state.events))
    log = Journal(str(state.events), converge, _print, Teller(str(state.folder)).tell)
    try:
        collect.forget_runs(state)
        asked = request.parse(raw)
        if asked.quiet:
            log.hold()
        code = Converger(Repository(common_dir), asked, log).run()
    except Error as error:
        code = error.exit_code
        log.event("converge.finished", str(error), exit_code=code)
    except OSError as error:
        code = HostError.exit_code
        log.event("converge.finished", f"the state cannot be kept: {error}", exit_code=code)
    except Exception:
        traceback.print_exc()
        code = _BUG_EXIT_CODE
        text = (
            "this is a bug of mirage-hooks; what runs goes on running; "
            f"the log to report: {state.runs}/{converge}.jsonl"
        )
        log.event("converge.finished", text, exit_code=code)
    try:
        sys.stdout.flush()
    except OSError:  # Python would try once more, and end with 120 instead
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


def _print(line: str) -> None:
    with contextlib.suppress(OSError):  # a full disk; the exit code is left to say it
        print(line, flush=True)


if __name__ == "__main__":
    main()
