"""What a poll costs when nothing came, beside `git fetch` when nothing came.

In the clone that deploys, whose guest runs: `git fetch` as by hand, the script that polls, and the
command that runs it, in turn. Over a local path, where a fetch costs least, and over ssh where an
sshd can be run. That the poll ended in its sh is checked every time: it said nothing, and started
no converge.
"""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stage import COMMAND, Stage
from table import Budget, Figure

import ssh_server

_ROUNDS = 60
_WARM_UP = 3


def measure(stage: Stage) -> list[Figure]:
    """Return, a way to the upstream each, the fetch, and the poll beside it."""
    figures = _measure(stage, "over a path")
    with _over_ssh(stage) as reached:
        if reached:
            figures += _measure(stage, "over ssh")
    return figures


def _measure(stage: Stage, how: str) -> list[Figure]:
    script = stage.state.poll
    stage.run(script, cwd=stage.ours)  # the first one binds what it is to fetch
    commands: dict[str, list[str | Path]] = {
        f"git fetch {how}, nothing new": ["git", "fetch", "-q"],
        f"poll {how}, nothing new": [script],
        f"mirage-hooks poll {how}, nothing new": [COMMAND, "poll"],
    }
    samples: dict[str, list[float]] = {name: [] for name in commands}
    names = list(commands)
    for at in range(_WARM_UP + _ROUNDS):
        for name in names[at % 3 :] + names[: at % 3]:
            seconds = _time(stage, commands[name])
            if at >= _WARM_UP:
                samples[name].append(seconds * 1000)
    fetch, poll, command = names
    base = samples[fetch]
    return [
        Figure(fetch, "ms", base),
        Figure(poll, "ms", samples[poll], base, budget=Budget("ratio", 2.0)),
        Figure(command, "ms", samples[command], base),
    ]


def _time(stage: Stage, command: list[str | Path]) -> float:
    before = stage.settled()
    log = stage.folder / "poll.log"
    with log.open("wb") as output:
        began = time.monotonic()
        code = subprocess.call(
            command,
            cwd=stage.ours,
            env=stage.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        ended = time.monotonic()
    if code != 0 or log.stat().st_size or stage.settled() != before:
        raise RuntimeError(f"{command} found something to do:\n{log.read_text()}")
    return ended - began


@contextmanager
def _over_ssh(stage: Stage) -> Iterator[bool]:
    """Have the upstream behind an sshd of our own; False where there can be none."""
    if ssh_server.SSHD is None:
        print("no poll over ssh: there is no sshd (Debian: openssh-server)")
        yield False
        return
    before = stage.run("git", "remote", "get-url", "origin", cwd=stage.ours).strip()
    with ssh_server.running_sshd(stage.folder / "ssh") as server:
        address = f"ssh://127.0.0.1:{server.port}{stage.upstream}"
        stage.run("git", "config", "core.sshCommand", server.client, cwd=stage.ours)
        stage.run("git", "remote", "set-url", "origin", address, cwd=stage.ours)
        try:
            yield True
        finally:
            stage.run("git", "config", "--unset", "core.sshCommand", cwd=stage.ours)
            stage.run("git", "remote", "set-url", "origin", before, cwd=stage.ours)
