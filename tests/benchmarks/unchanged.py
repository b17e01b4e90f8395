"""What a pull pays for our hook when nothing that deploys has changed.

Five clones of one upstream pull the same fast-forward in turn, a README commit a round: one without
a hook, three with hooks to compare with, one with ours and a guest deployed. Each round starts with
another clone, since the first to pull finds colder caches. That our hook ended in its fast path is
checked every time: the stamp was there, and is as it was, and no converge was started.
"""

import sys
from pathlib import Path
from statistics import median

from stage import Stage
from table import Budget, Figure

_ROUNDS = 80
_WARM_UP = 3

_HOOKS = {
    "pull: no hook": None,
    "pull: sh hook that does nothing": "#!/bin/sh\nexit 0\n",
    "pull: sh hook with one git command": (
        "#!/bin/sh\ngit rev-parse --verify -q HEAD >/dev/null\nexit 0\n"
    ),
    "pull: Python hook that does nothing": f"#!{sys.executable} -IS\n",
}
_BARE, _, _GIT, _ = _HOOKS
_OURS = "pull: our hook, nothing changed"


def measure(stage: Stage) -> list[Figure]:
    """Return a line a hook: the pull, and what the hook adds to it."""
    clones = {name: _clone(stage, at, hook) for at, (name, hook) in enumerate(_HOOKS.items())}
    clones[_OURS] = stage.ours
    order = list(clones)
    samples: dict[str, list[float]] = {name: [] for name in order}
    for at, commit in enumerate(_prepare(stage, _WARM_UP + _ROUNDS)):
        stage.run("git", "update-ref", "refs/heads/main", commit, cwd=stage.upstream)
        for name in order[at % len(order) :] + order[: at % len(order)]:
            seconds = _pull_settled(stage) if name == _OURS else _pull(stage, clones[name])
            if at >= _WARM_UP:
                samples[name].append(seconds * 1000)
    base = samples[_BARE]
    limit = max(6.0, 1.5 * (median(samples[_GIT]) - median(base)))
    return [
        Figure(_BARE, "ms", base),
        *(Figure(name, "ms", samples[name], base, "difference") for name in order[1:-1]),
        Figure(_OURS, "ms", samples[_OURS], base, "difference", Budget("difference", limit)),
    ]


def _clone(stage: Stage, at: int, hook: str | None) -> Path:
    clone = stage.clone(f"hook-{at}")
    if hook is not None:
        path = clone / ".git" / "hooks" / "post-merge"
        path.write_text(hook)
        path.chmod(0o755)
    return clone


def _prepare(stage: Stage, count: int) -> list[str]:
    """Make commits that touch a README only, and move the upstream's branch back before them."""
    before = stage.run("git", "rev-parse", "HEAD", cwd=stage.upstream).strip()
    commits = []
    for at in range(count):
        (stage.upstream / "README.md").write_text(f"Revision {at}\n")
        commits.append(stage.commit(f"describe {at}"))
    stage.run("git", "update-ref", "refs/heads/main", before, cwd=stage.upstream)
    return commits


def _pull(stage: Stage, clone: Path) -> float:
    began, ended = stage.pull(clone)
    return ended - began


def _pull_settled(stage: Stage) -> float:
    before = stage.settled()
    seconds = _pull(stage, stage.ours)
    if stage.settled() != before:
        raise RuntimeError("our hook did not take its fast path")
    return seconds
