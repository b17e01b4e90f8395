"""git where it asks a server or runs what others wrote: bounded in time, without a terminal."""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

# What timeout(1) ends with for a program that took too long, and for one that it had to kill.
TOO_LONG = frozenset({124, 137})
# Has git and what it runs ask nobody: what is not in the environment or in git's configuration, a
# key's passphrase and an unknown host key end it.
SILENT = {
    "GIT_TERMINAL_PROMPT": "0",
    # Empty, it stands for core.askPass as well (gitcredentials(7)). Credential helpers are asked.
    "GIT_ASKPASS": "",
    "SSH_ASKPASS": "",
    "SSH_ASKPASS_REQUIRE": "never",
    "GCM_INTERACTIVE": "never",
}


def git(
    folder: str | Path,
    *arguments: str,
    seconds: int,
    environment: Mapping[str, str] | None = None,
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
    umask: int = -1,
) -> tuple[int, str]:
    """Run git in a folder; return its exit code, and what it and its hooks printed, in English.

    What they leave running in the background may keep the stream: it is a file, not a pipe. Who is
    interrupted meanwhile, ends it. Its `umask` is the caller's where none is given. What it has for
    programs to read is in `stdout`, where that is given, apart from what it has to say.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            ["timeout", "-k", "5", str(seconds), "git", "-C", str(folder), *arguments],
            stdin=stdin if stdin is not None else subprocess.DEVNULL,
            stdout=stdout if stdout is not None else output,
            stderr=output,
            env={**os.environ, **(environment or {}), "LC_ALL": "C"},
            start_new_session=True,
            umask=umask,
        )
        try:
            code = process.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise
        output.seek(0)
        return code, output.read().decode(errors="replace").strip()


def umask_of(common_dir: str | os.PathLike[str]) -> int:
    """Return the umask by which what git writes in a repository has the rights of what is there.

    A deploy's own is for its user alone: others could not read what it fetches, and `git gc` ends
    at a ref that it cannot read. What core.sharedRepository says git sees to by itself.
    """
    return ~Path(common_dir, "objects").stat().st_mode & 0o777
